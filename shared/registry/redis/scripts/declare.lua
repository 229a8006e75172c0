-- Declares an incarnation of a node dead for good. Checks the lease itself: what the janitor saw may be old.
-- KEYS 1 meta of the nodes, 2 leases, 3 dead incarnations
-- ARGV 1 lease ms, 2 channel, 3 node id, 4 incarnation
-- Returns {'ok'} | {'alive'}
local lease, channel, node = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local now = now_ms()
local before = redis.call('HGET', KEYS[1], 'gen')
local gen = guard(KEYS[1], -1, lease, channel, now)
local raw = redis.call('HGET', KEYS[2], node)
local entry = raw and cjson.decode(raw)
local m = redis.call('HMGET', KEYS[1], 'last', 'steady')
local gap = gen ~= before or now - tonumber(m[1] or 0) > lease * 0.8 or now - tonumber(m[2] or now) < lease
if gap or not entry or entry.i ~= tonumber(ARGV[4]) or now < entry.x then return { 'alive' } end
redis.call('HDEL', KEYS[2], node)
redis.call('HSET', KEYS[3], node, int(entry.i) .. ':' .. int(now))
redis.call('PUBLISH', channel, cjson.encode({ -1, gen, 0, 'nodes', node }))
return { 'ok' }
