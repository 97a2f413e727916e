-- One limit of one key, as the generic cell rate algorithm has it: "used" is how much
-- of the burst was in use at "last", in 2^-20 tokens and in microseconds of the
-- server's clock. All numbers are integers below 2^53, which Lua has exactly. What
-- came back in the meantime is rounded down, so that too little is allowed at most.
--
-- ARGV: how many tokens are needed, how many are wanted at most, which part of what
-- more there is may be taken, units that come back in a microsecond, units of the burst.
-- Returned: how many were taken, all of the needed ones or none; how many are left;
-- microseconds until all of the burst is there.
local unit, ever = 1048576, 1e15
local least, most, part = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local speed, burst = tonumber(ARGV[4]), tonumber(ARGV[5])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last, used = now, 0
local state = redis.call('GET', KEYS[1])
if state then
  local a, b = string.match(state, '^(%d+) (%d+)$')
  if not a then
    return redis.error_reply('ERR the key has no rate limit')
  end
  last, used = tonumber(a), tonumber(b)
end
-- A clock that goes back gives nothing, and takes nothing away.
used = math.max(used - math.floor(math.max(now - last, 0) * speed), 0)

local taken = 0
local free = math.floor((burst - used) / unit)
if free >= least then
  taken = math.min(most, least + math.floor((free - least) / part))
  used = used + taken * unit
end
local reset = math.min(math.ceil(used / speed), ever)
if taken > 0 or now < last then
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', now, used), 'PX', string.format('%.0f', reset / 1000 + 1))
end
return {taken, math.max(free - taken, 0), reset}
