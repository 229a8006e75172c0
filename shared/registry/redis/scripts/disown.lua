-- Removes a session from its agent's index, unless a newer one of the same id is there.
-- KEYS 1 agent index
-- ARGV 1 session id, 2 epoch
-- Returns {'ok'}
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry and cjson.decode(entry).p <= tonumber(ARGV[2]) then redis.call('HDEL', KEYS[1], ARGV[1]) end
return { 'ok' }
