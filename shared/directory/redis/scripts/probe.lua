-- Where the data is: begins a new generation when it may be lost.
-- Returns {generation, n of the last event, version, ms until it opens for changes (0 when open), found, records}
local now = now_ms()
local gen, open = guard(now)
local m = redis.call('HMGET', KEYS[1], 'n', 'version', 'found')
return { gen, tonumber(m[1] or 0), m[2] or '0', math.max(0, open - now), m[3] or '0', records() }
