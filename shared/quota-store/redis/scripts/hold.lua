-- Says how many permits a holder uses and how many it would like.
-- KEYS 1 holders
-- ARGV 1 holder, 2 limit of all, 3 in use, 4 wanted, 5 ttl ms
-- Returns {permits that the holder has now}
local now = now_ms()
local holder, limit, in_use = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local want, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])
local all = redis.call('HGETALL', KEYS[1])
local others = 0
for i = 1, #all, 2 do
  local count, expires = string.match(all[i + 1], '^(%d+):(%d+)$')
  if tonumber(expires) <= now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= holder then
    others = others + tonumber(count)
  end
end
local count = math.max(in_use, math.min(want, limit - others))
if count > 0 then
  redis.call('HSET', KEYS[1], holder, int(count) .. ':' .. int(now + ttl))
  -- All holders ask for the same time, so none outlives the key.
  redis.call('PEXPIRE', KEYS[1], ttl)
else
  redis.call('HDEL', KEYS[1], holder)
end
return { int(math.max(0, count)) }
