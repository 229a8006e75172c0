-- Puts records back, and takes out those that were removed, after `offer`. What is newer than the node's knowledge stays.
-- ARGV 3 who, 4 version, then for each record: kind, id, `version:created:fields` or '' when it was removed
-- Returns {'ok', records changed} | {'lost'}: another node knows more
local by, known = ARGV[3], tonumber(ARGV[4])
local now = now_ms()
local gen, open = guard(now)
if redis.call('HGET', KEYS[1], 'by') ~= by or number_of('offer') ~= known then return { 'lost' } end
redis.call('HSET', KEYS[1], 'until', int(now + WINDOW))
restoring(now, open)
local changed = 0
for at = 5, #ARGV, 3 do
  local kind, id, stored = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local before = redis.call('HGET', RECORDS[kind], id)
  local is_newer = before and version_of(before) > known
  if stored == '' then
    if before and not is_newer then
      change(gen, known, kind, id, nil, before)
      changed = changed + 1
    end
  elseif not is_newer and not (before and version_of(before) >= version_of(stored)) then
    local removed = tonumber(redis.call('ZSCORE', KEYS[7], kind .. ' ' .. id) or 0)
    if removed <= known then
      redis.call('ZREM', KEYS[7], kind .. ' ' .. id)
      change(gen, version_of(stored), kind, id, stored, before)
      changed = changed + 1
    end
  end
end
return { 'ok', changed }
