-- Claims a session id for an account and gives its epoch: above every epoch that this agent's sessions had.
-- KEYS 1 meta of the agent's shard, 2 agent index
-- ARGV 1 shard, 2 lease ms, 3 channel, 4 session id, 5 account, 6 floor: the epoch must be above it,
--      7 epoch to restore or ''
-- Returns {'ok', epoch, now} | {'taken', account, epoch} | {'rebuilding', ms}
local shard, lease, channel, id, account = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local now = now_ms()
local _, open = guard(KEYS[1], shard, lease, channel, now)
local restore = tonumber(ARGV[7])
if restore then restored(KEYS[1], open, lease, now) elseif now < open then return { 'rebuilding', open - now } end

local entry = redis.call('HGET', KEYS[2], id)
if entry then
  entry = cjson.decode(entry)
  if entry.a ~= account then return { 'taken', entry.a, int(entry.p) } end
end
local last = tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0)
local epoch = restore or math.max(last + 1, now, tonumber(ARGV[6]) + 1)
if epoch > last then redis.call('HSET', KEYS[1], 'epoch', int(epoch)) end
if not entry or entry.p < epoch then
  redis.call('HSET', KEYS[2], id, cjson.encode({ a = account, p = epoch }))
end
return { 'ok', int(epoch), int(now) }
