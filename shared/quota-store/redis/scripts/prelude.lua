-- Put in front of every script. All times are Redis' own, in milliseconds: nodes' clocks decide nothing.

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + tonumber(t[2]) / 1000
end

-- Lua prints large numbers with an exponent.
local function int(n)
  return string.format('%.0f', n)
end
