-- Says that nothing up to the node's version is missing any more.
-- ARGV 3 who, 4 version
-- Returns {'ok'} | {'lost'}
local by, known = ARGV[3], tonumber(ARGV[4])
local now = now_ms()
local gen, open = guard(now)
if redis.call('HGET', KEYS[1], 'by') ~= by or number_of('offer') ~= known then return { 'lost' } end
restoring(now, open)
redis.call('HSET', KEYS[1], 'whole', int(known), 'version', int(math.max(known, number_of('version'))))
redis.call('HDEL', KEYS[1], 'offer', 'by', 'until')
return { 'ok' }
