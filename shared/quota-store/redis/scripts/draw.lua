-- Settles what was used and draws a portion from each bucket. A bucket whose key is missing is full.
-- KEYS one bucket each, all of one account
-- ARGV 1 share of what is left that may be drawn ahead of need; then for each key: rate per second, burst, used, want, need
-- Returns {granted, level, granted, level, …}, levels as text
local now = now_ms()
local share = tonumber(ARGV[1])
local result = {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5 + 1
  local rate, burst, used = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local want, need = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local stored = redis.call('HMGET', key, 'level', 'at')
  local filled = burst
  -- After a failover the clock may be behind: then nothing was filled.
  if stored[1] then filled = tonumber(stored[1]) + rate * math.max(0, now - tonumber(stored[2])) / 1000 end
  local level = math.min(burst, filled - used)
  local left = math.max(0, math.floor(level))
  local granted = math.min(left, want, math.max(need, math.floor(left * share)))
  local rest = level - granted
  if rest >= burst then
    redis.call('HDEL', key, 'level', 'at')
  else
    redis.call('HSET', key, 'level', string.format('%.6f', rest), 'at', string.format('%.3f', now))
    -- Full again by then: gone means the same.
    redis.call('PEXPIRE', key, int(math.ceil((burst - rest) / rate * 1000) + 1))
  end
  result[#result + 1] = int(granted)
  result[#result + 1] = string.format('%.6f', rest)
end
return result
