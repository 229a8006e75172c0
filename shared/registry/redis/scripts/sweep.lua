-- Removes the endpoints that a dead incarnation of a node left on a name.
-- The incarnation was declared dead for good by declare.lua, which checked the lease itself: a node that came back has a
-- higher one, so a sweep that comes late, or of a janitor that lost its lead, removes nothing of it.
-- KEYS 1 meta of the name's shard, 2 routes
-- ARGV 1 shard, 2 lease ms, 3 channel, 4 name, 5 node id, 6 incarnation
-- Returns {'ok', number removed}
local shard, lease, channel, name, node, dead = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local gen = guard(KEYS[1], shard, lease, channel, now_ms())
local raw = redis.call('HGET', KEYS[2], name)
if not raw then return { 'ok', 0 } end
local route = cjson.decode(raw)
local kept = {}
for _, endpoint in ipairs(route.e) do
  if endpoint.b ~= node or endpoint.i > dead then kept[#kept + 1] = endpoint end
end
local removed = #route.e - #kept
if removed > 0 then
  route.e = kept
  put_route(KEYS[1], KEYS[2], shard, channel, gen, name, route)
end
return { 'ok', removed }
