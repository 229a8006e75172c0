-- Renews a node's lease and tells it who else is alive. The lead of the janitor is renewed with it.
-- KEYS 1 meta of the nodes, 2 leases, 3 dead incarnations
-- ARGV 1 lease ms, 2 channel, 3 node id, 4 incarnation, 0 for the first, 5 what others see (JSON, '' before it joins),
--      6 '1' when others should look at once
-- Returns {now, ms since when leases are renewed without a gap, incarnation, 1 when Redis did not know it else 0,
--          1 when this node leads else 0, {node id, lease JSON, …}, {dead node id, 'incarnation:since', …}}
local lease, channel, node, own, info = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local now = now_ms()
local before = redis.call('HGET', KEYS[1], 'gen')
local gen = guard(KEYS[1], -1, lease, channel, now)

-- Leases that ran out while Redis was away prove nothing: nobody could renew. They count again after a whole lease in
-- which somebody renewed without a gap.
local m = redis.call('HMGET', KEYS[1], 'last', 'steady', 'leader', 'leads')
local steady = tonumber(m[2])
if gen ~= before or not steady or now - tonumber(m[1] or 0) > lease * 0.8 then steady = now end
redis.call('HSET', KEYS[1], 'last', int(now), 'steady', int(steady))

local raw = redis.call('HGET', KEYS[2], node)
local entry = raw and cjson.decode(raw)
local dead = tonumber(string.match(redis.call('HGET', KEYS[3], node) or '0', '^%d+'))
local known = entry and entry.i or 0
local fresh = 0
if own == 0 or dead >= own or known > own then
  own = math.max(now, known + 1, dead + 1)
  fresh = 1
  -- The node's process before this one can never come back: its leftovers may go.
  if known > dead then redis.call('HSET', KEYS[3], node, int(known) .. ':' .. int(now)) end
elseif not entry then
  fresh = 1
end
redis.call('HSET', KEYS[2], node, cjson.encode({ i = own, x = now + lease, r = info }))
if fresh == 1 or ARGV[6] == '1' then redis.call('PUBLISH', channel, cjson.encode({ -1, gen, 0, 'nodes', node })) end

local leads = 0
if m[3] == node or not m[3] or tonumber(m[4] or 0) < now then
  redis.call('HSET', KEYS[1], 'leader', node, 'leads', int(now + lease))
  leads = 1
end
return { int(now), int(now - steady), int(own), fresh, leads, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]) }
