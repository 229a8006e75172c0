-- A node holds records up to a version and asks to put them back. One does at a time, and the one that knows most comes last:
-- what it knows to be removed must not come back with an older copy.
-- ARGV 3 who, 4 version
-- Returns {'go', generation} | {'older'}: nothing up to that version is missing | {'busy', ms}
local by, version = ARGV[3], tonumber(ARGV[4])
local now = now_ms()
local gen, open = guard(now)
if version <= number_of('whole') then return { 'older' } end
local left = number_of('until') - now
if left > 0 and redis.call('HGET', KEYS[1], 'by') ~= by and number_of('offer') >= version then return { 'busy', left } end
redis.call('HSET', KEYS[1], 'offer', int(version), 'by', by, 'until', int(now + WINDOW))
restoring(now, open)
return { 'go', gen }
