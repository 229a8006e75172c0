-- Makes a session the live one of its id, within the account's limit.
-- KEYS 1 meta of the account's shard, 2 sessions, 3 the account's sessions
-- ARGV 1 shard, 2 lease ms, 3 channel, 4 session id, 5 record JSON, 6 limit, or -1 to restore what was claimed before
-- Returns {'ok'|'same', generation, version} | {'older', epoch that is there} | {'taken'} | {'quota'} | {'rebuilding', ms}
local shard, lease, channel, id, json = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local limit = tonumber(ARGV[6])
local now = now_ms()
local gen, open = guard(KEYS[1], shard, lease, channel, now)
if limit < 0 then restored(KEYS[1], open, lease, now) elseif now < open then return { 'rebuilding', open - now } end

local record = cjson.decode(json)
local raw = redis.call('HGET', KEYS[2], id)
local old = raw and cjson.decode(raw)
if old then
  if old.a ~= record.a then return { 'taken' } end
  if old.p > record.p or (old.p == record.p and limit >= 0) then return { 'older', int(old.p) } end
  if raw == json then return { 'same', gen, tonumber(redis.call('HGET', KEYS[1], 'version') or 0) } end
end
if limit >= 0 and redis.call('SISMEMBER', KEYS[3], id) == 0 and redis.call('SCARD', KEYS[3]) >= limit then
  return { 'quota' }
end
redis.call('HSET', KEYS[2], id, json)
redis.call('SADD', KEYS[3], id)
local replaced = 'null'
if old and not old.x and old.p < record.p then replaced = raw end
return { 'ok', gen, announce(KEYS[1], shard, channel, gen, 'session', id, '[' .. json .. ',' .. replaced .. ']') }
