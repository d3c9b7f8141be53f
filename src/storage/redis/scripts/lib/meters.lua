-- A meter is a hash: e the end of the window that it is in (- where there is none), u used, h held, z open shares that hold nothing. A window
-- that is over lives on beside it, as u<end> h<end> z<end>, for as long as holds have shares of it.

local FIVE_HOURS_MS = 18000000
-- So long a meter outlives its window.
local KEEP_METER_MS = 1800000

local function read_meter(key)
  local found = call('HMGET', key, 'e', 'u', 'h', 'z')
  return { ends = found[1], used = pair_of(found[2]), held = pair_of(found[3]), zeros = found[4] }
end

-- The server's clock selects between the two calendar windows that the caller gave; five hours (5) begin now, at their first use.
local function window_end(ends, next_ends, now)
  if ends == '-' then return ends end
  if ends == '5' then return digits(now + FIVE_HOURS_MS) end
  return now < tonumber(ends) and ends or next_ends
end

-- The window that now is in: the one that is known, or a fresh one that nobody has used yet.
local function window_at(meter, ends, next_ends, now)
  if meter.ends and (meter.ends == '-' or now < tonumber(meter.ends)) then return meter end
  return { ends = window_end(ends, next_ends, now), used = ZERO, held = ZERO, fresh = true }
end

-- Makes a fresh window the meter's own. What is still held in the one before stays beside it.
local function begin_window(key, meter, ends, now)
  local old = meter.ends
  if old and (meter.held ~= ZERO or meter.zeros ~= '0') then
    call('HSET', key, 'u' .. old, text_of(meter.used), 'h' .. old, text_of(meter.held), 'z' .. old, meter.zeros)
  end
  call('HSET', key, 'e', ends, 'u', '0', 'h', '0', 'z', '0')
  if ends ~= '-' then call('PEXPIRE', key, digits(math.max(0, tonumber(ends) - now) + KEEP_METER_MS)) end
end

local function hold_units(key, suffix, units)
  if units == ZERO then call('HINCRBY', key, 'z' .. suffix, '1') else call('HINCRBY', key, 'h' .. suffix, text_of(units)) end
end
