-- Adds to what an account has used in a month.
-- KEYS 1 usage of the account in the month
-- ARGV 1 source, 2 sequence, 3 ms to keep it, 4 ms after which a silent source is forgotten; then for each of requests, in and out:
--      added, known
-- Returns {requests, in, out}
local key, source, sequence = KEYS[1], ARGV[1], tonumber(ARGV[2])
local now = now_ms()
local field = 's:' .. source
local stored = redis.call('HGET', key, field)
local last = stored and tonumber(string.match(stored, '^(%d+):')) or 0
local isNew = sequence > last
if not stored then
  -- Restarted nodes come under new names: those before them need not be told apart for ever.
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local seen = string.sub(all[i], 1, 2) == 's:' and tonumber(string.match(all[i + 1], ':(%d+)$'))
    if seen and seen < now - tonumber(ARGV[4]) then redis.call('HDEL', key, all[i]) end
  end
end
local result = {}
for i, name in ipairs({ 'requests', 'in', 'out' }) do
  local total = tonumber(redis.call('HGET', key, name) or 0)
  -- Less than a node knows of: data was lost.
  total = math.max(total, tonumber(ARGV[4 + 2 * i]))
  if isNew then total = total + tonumber(ARGV[3 + 2 * i]) end
  redis.call('HSET', key, name, int(total))
  result[i] = int(total)
end
if isNew then redis.call('HSET', key, field, int(sequence) .. ':' .. int(now)) end
redis.call('PEXPIRE', key, ARGV[3])
return result
