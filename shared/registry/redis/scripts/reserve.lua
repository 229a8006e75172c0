-- Counts a name for a live session of an account, within the account's limit. The name itself is claimed after it.
-- KEYS 1 meta of the account's shard, 2 sessions, 3 the account's names, 4 names held by the session
-- ARGV 1 shard, 2 lease ms, 3 channel, 4 session id, 5 epoch, 6 name, 7 limit, or -1 to restore what was claimed before
-- Returns {'ok', 1 when the session held it already else 0} | {'replaced'} | {'quota'} | {'rebuilding', ms}
local shard, lease, channel, id, epoch, name = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local limit = tonumber(ARGV[7])
local now = now_ms()
local _, open = guard(KEYS[1], shard, lease, channel, now)
if limit < 0 then restored(KEYS[1], open, lease, now) end

local raw = redis.call('HGET', KEYS[2], id)
local record = raw and cjson.decode(raw)
if not record and now < open then return { 'rebuilding', open - now } end
if not record or record.x or record.p ~= epoch then return { 'replaced' } end

local held = tonumber(redis.call('HGET', KEYS[4], name))
if not held then
  if limit >= 0 and redis.call('HEXISTS', KEYS[3], name) == 0 then
    if now < open then return { 'rebuilding', open - now } end
    if redis.call('HLEN', KEYS[3]) >= limit then return { 'quota' } end
  end
  redis.call('HINCRBY', KEYS[3], name, 1)
end
if not held or held < epoch then redis.call('HSET', KEYS[4], name, int(epoch)) end
return { 'ok', held and 1 or 0 }
