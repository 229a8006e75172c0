-- Removes a record whose version is the one that the writer read; an account only without agents and keys.
-- ARGV 3 kind, 4 id, 5 expected version
-- Returns {'ok', generation, n} | {'gone', generation, n} | {'conflict', generation, n} | {'members'} | {'restoring', ms}
local kind, id = ARGV[3], ARGV[4]
local now = now_ms()
local gen, open = guard(now)
if now < open then return { 'restoring', open - now } end
local before = redis.call('HGET', RECORDS[kind], id)
if not before then return { 'gone', gen, number_of('n') } end
if version_of(before) ~= tonumber(ARGV[5]) then return { 'conflict', gen, number_of('n') } end
if kind == 'account' and redis.call('HEXISTS', KEYS[6], id) == 1 then return { 'members' } end
return { 'ok', gen, change(gen, math.max(now, number_of('version') + 1), kind, id, nil, before) }
