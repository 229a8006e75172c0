-- Makes a session an endpoint of a name. This is the step that decides whose the name is.
-- KEYS 1 meta of the name's shard, 2 routes, 3 the name's fence
-- ARGV 1 shard, 2 lease ms, 3 channel, 4 name, 5 account, 6 endpoint JSON, 7 createdAt to restore or ''
-- Returns {'ok', generation, version, route JSON} | {'taken'} | {'replaced'} | {'rebuilding', ms}
local shard, lease, channel, name, account = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local created = tonumber(ARGV[7])
local now = now_ms()
local gen, open = guard(KEYS[1], shard, lease, channel, now)
if created then restored(KEYS[1], open, lease, now) end

local endpoint = cjson.decode(ARGV[6])
-- A claim that was on its way while its session closed must not come to life after it.
if endpoint.p < tonumber(redis.call('HGET', KEYS[3], endpoint.s) or 0) then return { 'replaced' } end

local raw = redis.call('HGET', KEYS[2], name)
local route
if raw then
  route = cjson.decode(raw)
  if route.a ~= account then return { 'taken' } end
elseif not created and now < open then
  return { 'rebuilding', open - now }
else
  route = { a = account, c = created or now, e = {} }
end
if created and created < route.c then route.c = created end

local at = #route.e + 1
for i, other in ipairs(route.e) do
  if other.s == endpoint.s then
    if other.p > endpoint.p then return { 'replaced' } end
    -- Of one session the node's newer incarnation counts, whichever write came last.
    if other.p == endpoint.p and other.b == endpoint.b and other.i > endpoint.i then endpoint.i = other.i end
    at = i
    if other.p == endpoint.p and other.b == endpoint.b and other.i == endpoint.i
      and other.l == endpoint.l and other.h == endpoint.h and other.y == endpoint.y then
      return { 'ok', gen, tonumber(redis.call('HGET', KEYS[1], 'version') or 0), raw }
    end
  end
end
route.e[at] = endpoint
local version, json = put_route(KEYS[1], KEYS[2], shard, channel, gen, name, route)
return { 'ok', gen, version, json }
