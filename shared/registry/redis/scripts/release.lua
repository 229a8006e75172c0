-- Removes a session's endpoint from a name, and fences off claims of it that are still on their way.
-- KEYS 1 meta of the name's shard, 2 routes, 3 the name's fence
-- ARGV 1 shard, 2 lease ms, 3 channel, 4 name, 5 session id, 6 epoch: only an endpoint of this or a lower one,
--      7 lowest epoch that may claim the name again, 8 ms that the fence stands
-- Returns {'ok', generation, version}; version 0 when there was nothing to remove
local shard, lease, channel, name, id, epoch = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local gen = guard(KEYS[1], shard, lease, channel, now_ms())

if tonumber(redis.call('HGET', KEYS[3], id) or 0) < tonumber(ARGV[7]) then redis.call('HSET', KEYS[3], id, ARGV[7]) end
redis.call('PEXPIRE', KEYS[3], ARGV[8])

local raw = redis.call('HGET', KEYS[2], name)
if not raw then return { 'ok', gen, 0 } end
local route = cjson.decode(raw)
for i, endpoint in ipairs(route.e) do
  if endpoint.s == id and endpoint.p <= epoch then
    table.remove(route.e, i)
    return { 'ok', gen, (put_route(KEYS[1], KEYS[2], shard, channel, gen, name, route)) }
  end
end
return { 'ok', gen, 0 }
