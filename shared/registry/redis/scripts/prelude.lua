-- Put in front of every script. All times are Redis' own, in milliseconds: nodes' clocks decide nothing.

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Lua prints large numbers with an exponent.
local function int(n)
  return string.format('%.0f', n)
end

-- The generation of a shard and when it opens for claims.
-- A generation ends when its key is gone (data lost), or when the server is not the one that wrote it (restart from a
-- snapshot, failover to a replica that lagged): data may be missing then. The new one refuses claims for one lease, while
-- nodes publish again what they hold. Checked inside each script, so that no claim comes before the first check.
local function guard(meta, shard, lease, channel, now)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local m = redis.call('HMGET', meta, 'gen', 'run', 'open')
  if m[1] and m[2] == run then return m[1], tonumber(m[3]) end
  local gen = string.sub(run, 1, 8) .. '-' .. int(now)
  local open = now + lease
  redis.call('HSET', meta, 'gen', gen, 'run', run, 'open', int(open), 'since', int(now))
  redis.call('PUBLISH', channel, cjson.encode({ tonumber(shard), gen, 0, 'gen', '' }))
  return gen, open
end

-- Nodes with much to publish again get more time: the shard opens a third of a lease after the last of it, and at the
-- latest six leases after the loss.
local function restored(meta, open, lease, now)
  if now >= open then return end
  local since = tonumber(redis.call('HGET', meta, 'since') or now)
  local later = math.min(math.ceil(now + lease / 3), since + 6 * lease)
  if later > open then redis.call('HSET', meta, 'open', int(later)) end
end

-- Tells every node of a change. Versions have no gaps, so a node that missed one knows.
local function announce(meta, shard, channel, gen, kind, id, payload)
  local version = redis.call('HINCRBY', meta, 'version', 1)
  redis.call('PUBLISH', channel, cjson.encode({ tonumber(shard), gen, version, kind, id }) .. '\n' .. payload)
  return version
end

-- Writes a route, or removes it when its last endpoint went. Returns version and JSON ('' when removed).
local function put_route(meta, routes, shard, channel, gen, name, route)
  if #route.e == 0 then
    redis.call('HDEL', routes, name)
    return announce(meta, shard, channel, gen, 'route', name, ''), ''
  end
  local json = cjson.encode(route)
  redis.call('HSET', routes, name, json)
  return announce(meta, shard, channel, gen, 'route', name, json), json
end
