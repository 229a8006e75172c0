-- All routes and sessions of a shard at one version.
-- KEYS 1 meta of the shard, 2 routes, 3 sessions
-- ARGV 1 shard, 2 lease ms, 3 channel
-- Returns {generation, version, ms until it opens, {name, route JSON, …}, {session id, record JSON, …}}
local now = now_ms()
local gen, open = guard(KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], now)
return {
  gen,
  tonumber(redis.call('HGET', KEYS[1], 'version') or 0),
  math.max(0, open - now),
  redis.call('HGETALL', KEYS[2]),
  redis.call('HGETALL', KEYS[3]),
}
