-- Forgets a session after `closing`, when its names are released. A newer session of the same id keeps its own.
-- KEYS 1 sessions, 2 the account's names, 3 names held by the session
-- ARGV 1 session id, 2 epoch
-- Returns {'ok'}
local epoch = tonumber(ARGV[2])
local raw = redis.call('HGET', KEYS[1], ARGV[1])
local record = raw and cjson.decode(raw)
-- Its node came back meanwhile and published it again.
if record and record.p == epoch and not record.x then return { 'ok' } end
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do
  if tonumber(held[i + 1]) <= epoch then
    redis.call('HDEL', KEYS[3], held[i])
    if redis.call('HINCRBY', KEYS[2], held[i], -1) <= 0 then redis.call('HDEL', KEYS[2], held[i]) end
  end
end
if record and record.p == epoch then redis.call('HDEL', KEYS[1], ARGV[1]) end
return { 'ok' }
