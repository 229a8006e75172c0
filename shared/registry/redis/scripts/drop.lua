-- Takes back `reserve`, unless a newer session of the same id holds the name by now.
-- KEYS 1 the account's names, 2 names held by the session
-- ARGV 1 epoch, 2… names
-- Returns {'ok'}
for i = 2, #ARGV do
  local held = tonumber(redis.call('HGET', KEYS[2], ARGV[i]))
  if held and held <= tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[2], ARGV[i])
    if redis.call('HINCRBY', KEYS[1], ARGV[i], -1) <= 0 then redis.call('HDEL', KEYS[1], ARGV[i]) end
  end
end
return { 'ok' }
