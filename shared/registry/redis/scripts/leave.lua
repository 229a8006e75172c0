-- Ends a node's lease at its own wish; what it left behind is swept like that of a dead node.
-- KEYS 1 meta of the nodes, 2 leases, 3 dead incarnations
-- ARGV 1 lease ms, 2 channel, 3 node id, 4 incarnation
-- Returns {'ok'}
local now = now_ms()
local gen = guard(KEYS[1], -1, tonumber(ARGV[1]), ARGV[2], now)
local raw = redis.call('HGET', KEYS[2], ARGV[3])
if raw and cjson.decode(raw).i == tonumber(ARGV[4]) then
  redis.call('HDEL', KEYS[2], ARGV[3])
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4] .. ':' .. int(now))
  redis.call('PUBLISH', ARGV[2], cjson.encode({ -1, gen, 0, 'nodes', ARGV[3] }))
end
if redis.call('HGET', KEYS[1], 'leader') == ARGV[3] then redis.call('HDEL', KEYS[1], 'leader', 'leads') end
return { 'ok' }
