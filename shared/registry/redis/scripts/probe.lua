-- Where a shard is: begins a new generation when its data may be lost.
-- KEYS 1 meta of the shard
-- ARGV 1 shard, 2 lease ms, 3 channel
-- Returns {generation, version, ms until it opens for claims (0 when open)}
local now = now_ms()
local gen, open = guard(KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], now)
return { gen, tonumber(redis.call('HGET', KEYS[1], 'version') or 0), math.max(0, open - now) }
