-- Writes a record whose version is the one that the writer read.
-- ARGV 3 kind, 4 id, 5 expected version, 0 for a new record, 6 fields JSON, 7 records allowed of the kind
-- Returns {'ok', generation, n, version, created} | {'gone', generation, n} | {'conflict', generation, n} | {'full'}
--         | {'restoring', ms}
local kind, id, expected = ARGV[3], ARGV[4], tonumber(ARGV[5])
local now = now_ms()
local gen, open = guard(now)
if now < open then return { 'restoring', open - now } end
local before = redis.call('HGET', RECORDS[kind], id)
if before and version_of(before) ~= expected then return { 'conflict', gen, number_of('n') } end
if not before and expected ~= 0 then return { 'gone', gen, number_of('n') } end
if not before and redis.call('HLEN', RECORDS[kind]) >= tonumber(ARGV[7]) then return { 'full' } end
local version = math.max(now, number_of('version') + 1)
local created = before and string.match(before, '^%d+:(%d+):') or int(version)
local n = change(gen, version, kind, id, int(version) .. ':' .. created .. ':' .. ARGV[6], before)
return { 'ok', gen, n, int(version), created }
