-- Ends a session: it counts no more and can reserve nothing. Its record stays, marked, until its names are released, so
-- that the janitor finds them after a crash in between.
-- KEYS 1 meta of the account's shard, 2 sessions, 3 the account's sessions, 4 names held by the session
-- ARGV 1 shard, 2 lease ms, 3 channel, 4 session id, 5 epoch,
--      6 incarnation: only when the record is of this or a lower one; '' for any
-- Returns {'ok', generation, version, name…} | {'stale'}
local shard, lease, channel, id, epoch = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local gen = guard(KEYS[1], shard, lease, channel, now_ms())
local raw = redis.call('HGET', KEYS[2], id)
local record = raw and cjson.decode(raw)
local dead = tonumber(ARGV[6])
if not record or record.p ~= epoch or (dead and record.c > dead) then return { 'stale' } end
local version = 0
if not record.x then
  record.x = 1
  redis.call('HSET', KEYS[2], id, cjson.encode(record))
  redis.call('SREM', KEYS[3], id)
  version = announce(KEYS[1], shard, channel, gen, 'session', id, '')
end
local reply = { 'ok', gen, version }
for _, name in ipairs(redis.call('HKEYS', KEYS[4])) do reply[#reply + 1] = name end
return reply
