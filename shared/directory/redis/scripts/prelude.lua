-- Put in front of every script. KEYS 1 meta, 2 accounts, 3 agents, 4 keys, 5 revocations, 6 members, 7 gone, 8 recent.
-- ARGV 1 window ms, 2 channel. All times are Redis' own, in milliseconds.

local WINDOW, CHANNEL = tonumber(ARGV[1]), ARGV[2]
local RECORDS = { account = KEYS[2], agent = KEYS[3], key = KEYS[4], revocation = KEYS[5] }
-- Events that a node which missed some can still read, and removals that a node which comes back late is told.
local KEPT_EVENTS, KEPT_REMOVALS = 1000, 20000

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Lua prints large numbers with an exponent.
local function int(n)
  return string.format('%.0f', n)
end

local function number_of(field)
  return tonumber(redis.call('HGET', KEYS[1], field) or 0)
end

local function records()
  local sum = 0
  for at = 2, 5 do sum = sum + redis.call('HLEN', KEYS[at]) end
  return sum
end

-- The generation of the data and when it opens for changes.
-- A generation ends when its key is gone (wiped), when the server is not the one that wrote it (restart from a snapshot,
-- failover to a replica that lagged), or when records are missing that were counted (evicted, a key deleted by hand): data
-- may be lost then. The new one refuses changes for one window, while nodes put back what they hold. `found` says up to which
-- version nothing was missing when it began, `whole` up to which nothing is missing now.
local function guard(now)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local m = redis.call('HMGET', KEYS[1], 'gen', 'run', 'open', 'version', 'count')
  local complete = tonumber(m[5] or 0) == records()
  if m[1] and m[2] == run and complete then return m[1], tonumber(m[3]) end
  local gen = string.sub(run, 1, 8) .. '-' .. int(now)
  local open = now + WINDOW
  local found = complete and m[4] or '0'
  redis.call('HSET', KEYS[1], 'gen', gen, 'run', run, 'open', int(open), 'since', int(now), 'count', records(),
    'found', found, 'whole', found)
  redis.call('HDEL', KEYS[1], 'offer', 'by', 'until')
  redis.call('PUBLISH', CHANNEL, cjson.encode({ gen, 0, '0', 'gen', '' }))
  return gen, open
end

-- Much to put back takes longer: the data opens half a window after the last of it, six windows after the loss at the latest.
local function restoring(now, open)
  if now >= open then return end
  local later = math.min(now + WINDOW / 2, number_of('since') + 6 * WINDOW)
  if later > open then redis.call('HSET', KEYS[1], 'open', int(later)) end
end

-- `version:created:fields`, the fields as the node wrote them: decoding and encoding would turn [] into {}.
local function version_of(stored)
  return tonumber(string.match(stored, '^(%d+):'))
end

-- The account of an agent or key; nil for a key of none, and for what cannot be read.
local function owner_of(kind, stored)
  if kind ~= 'agent' and kind ~= 'key' then return nil end
  local ok, fields = pcall(cjson.decode, string.match(stored, '^%d+:%d+:(.*)$'))
  return ok and type(fields) == 'table' and type(fields.accountId) == 'string' and fields.accountId or nil
end

-- Writes a record, or removes it without `stored`, and tells every node. Event numbers have no gaps, so a node that missed one
-- knows. Returns the event's number.
local function change(gen, version, kind, id, stored, before)
  local added = (stored and 1 or 0) - (before and 1 or 0)
  if stored then
    redis.call('HSET', RECORDS[kind], id, stored)
  else
    redis.call('HDEL', RECORDS[kind], id)
    redis.call('ZADD', KEYS[7], int(version), kind .. ' ' .. id)
    redis.call('ZREMRANGEBYRANK', KEYS[7], 0, -KEPT_REMOVALS - 1)
  end
  if added ~= 0 then
    redis.call('HINCRBY', KEYS[1], 'count', added)
    local owner = owner_of(kind, stored or before)
    if owner and redis.call('HINCRBY', KEYS[6], owner, added) <= 0 then redis.call('HDEL', KEYS[6], owner) end
  end
  redis.call('HSET', KEYS[1], 'version', int(math.max(version, number_of('version'))))
  local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
  local event = cjson.encode({ gen, n, redis.call('HGET', KEYS[1], 'version'), kind, id }) .. '\n' .. (stored or '')
  redis.call('LPUSH', KEYS[8], event)
  redis.call('LTRIM', KEYS[8], 0, KEPT_EVENTS - 1)
  redis.call('PUBLISH', CHANNEL, event)
  return n
end
