-- Forgets that an incarnation died, when nothing of it can be left.
-- KEYS 1 dead incarnations
-- ARGV 1 node id, 2 the entry as it was read
-- Returns {'ok'}
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return { 'ok' }
