-- Limits that count. A counter's name begins with its kind: r requests and t tokens per minute, c concurrency, R requests, T tokens
-- and A amount in a window, B budget; then its window: - none, 5 five hours, d w m calendar.
--
-- A rate is a string, `limit level at`: a token bucket as it was at that time, its level in units * 60000 so that it refills exactly.
-- Concurrency is a number, deleted at zero.
-- A meter is a hash: e the end of the window that it is in (- for none), u used, h held, z open shares that hold nothing. A window that
-- is over lives on, as u<end> h<end> z<end>, for as long as holds have shares of it.

local SCALE = 60000
-- The largest limit whose scaled level is a whole number in a double; larger ones count as this.
local MAX_RATE = 75059993789
local FIVE_HOURS_MS = 18000000
-- So long counters outlive what they are needed for: a late settle comes within 15 minutes, and extensions of longer holds renew it.
local KEEP_MS = 1800000
local LONGEST_TTL_MS = 1e15

local IS_RATE = { r = true, t = true }
local IS_AMOUNT = { A = true, B = true }

local function kind_of(name)
  return string.sub(name, 1, 1)
end

local function is_meter(kind)
  return not IS_RATE[kind] and kind ~= 'c'
end

-- What a request needs of a limit: a number for rates and concurrency, a pair for meters.
local function need_of(kind, tokens, amount)
  if kind == 't' then return tokens end
  if IS_AMOUNT[kind] then return amount end
  if kind == 'T' then return pair_of_number(tokens) end
  if kind == 'R' then return ONE end
  return 1
end

-- ---------------------------------------------------------------- rates

local function rate_of(text)
  if not text then return { limit = 0, level = 0, at = 0 } end
  local limit, level, at = string.match(text, '^(%S+) (%S+) (%S+)$')
  return { limit = tonumber(limit), level = tonumber(level), at = tonumber(at) }
end

-- Refilled until now; a changed limit keeps what was used.
local function level_at(rate, limit, now)
  local refilled = math.min(rate.limit * SCALE, rate.level + rate.limit * (now - rate.at))
  return refilled + (limit - rate.limit) * SCALE
end

local function rate_text(rate)
  return digits(rate.limit) .. ' ' .. digits(rate.level) .. ' ' .. digits(rate.at)
end

-- A rate without a limit never refills, so it is never forgotten.
local function write_rate(key, rate, keep_ms)
  if rate.limit == 0 then return redis.call('SET', key, rate_text(rate)) end
  local refill_ms = math.ceil((rate.limit * SCALE - rate.level) / rate.limit)
  redis.call('SET', key, rate_text(rate), 'PX', digits(math.min(refill_ms + keep_ms, LONGEST_TTL_MS)))
end

local function move_rate(rate, amount, limit, now)
  rate.level = math.min(limit * SCALE, level_at(rate, limit, now) - amount * SCALE)
  rate.limit = limit
  rate.at = now
end

-- Takes or gives back after admission. A rate that was forgotten was full.
local function change_rate(key, amount, now)
  local text = redis.call('GET', key)
  if not text or amount == 0 then return end
  local rate = rate_of(text)
  move_rate(rate, amount, rate.limit, now)
  write_rate(key, rate, KEEP_MS)
end

-- ---------------------------------------------------------------- meters

local function read_meter(key)
  local found = redis.call('HMGET', key, 'e', 'u', 'h', 'z')
  return { ends = found[1], used = pair_of(found[2]), held = pair_of(found[3]), zeros = tonumber(found[4] or 0) }
end

-- The server's clock selects between the two calendar windows that the caller gave; five hours begin now, at their first use.
local function window_end(rule, now)
  local window = string.sub(rule.name, 2, 2)
  if window == '-' then return '-' end
  if window == '5' then return digits(now + FIVE_HOURS_MS) end
  return now < tonumber(rule.ends) and rule.ends or rule.next_ends
end

-- The window that now is in: the one that is known, or a fresh one that nobody has used yet.
local function window_at(meter, rule, now)
  if meter.ends and (meter.ends == '-' or now < tonumber(meter.ends)) then return meter end
  return { ends = window_end(rule, now), used = ZERO, held = ZERO, zeros = 0, fresh = true }
end

-- A meter outlives its window by as long as a late settle may come. `longer` keeps a later time that it has already.
local function keep_meter(key, ends, now, longer)
  if ends == '-' then return end
  local ttl = digits(math.max(0, tonumber(ends) - now) + KEEP_MS)
  if longer then redis.call('PEXPIRE', key, ttl, 'GT') else redis.call('PEXPIRE', key, ttl) end
end

-- Makes a fresh window the meter's own. What is still held in the one before stays beside it.
local function begin_window(key, meter, ends, now)
  if meter.ends and (meter.held ~= ZERO or meter.zeros > 0) then
    local old = meter.ends
    redis.call('HSET', key, 'u' .. old, text_of(meter.used), 'h' .. old, text_of(meter.held), 'z' .. old, digits(meter.zeros))
  end
  redis.call('HSET', key, 'e', ends, 'u', '0', 'h', '0', 'z', '0')
  keep_meter(key, ends, now, false)
end

local function hold_units(key, suffix, units)
  if units == ZERO then redis.call('HINCRBY', key, 'z' .. suffix, 1)
  else redis.call('HINCRBY', key, 'h' .. suffix, text_of(units)) end
end

local function unhold_units(key, suffix, units)
  if units == ZERO then redis.call('HINCRBY', key, 'z' .. suffix, -1)
  else redis.call('HINCRBY', key, 'h' .. suffix, text_of(ZERO - units)) end
end

local function use_units(key, suffix, units)
  if units ~= ZERO then redis.call('HINCRBY', key, 'u' .. suffix, text_of(units)) end
end

-- Where the fields of a window are in its meter: '' for the one it is in, its end for an earlier one, nil where it is forgotten.
local function suffix_of(key, ends)
  local found = redis.call('HMGET', key, 'e', 'u' .. ends)
  if found[1] == ends then return '' end
  return found[2] and ends or nil
end

local function drop_if_over(key, suffix)
  if suffix == '' then return end
  local found = redis.call('HMGET', key, 'h' .. suffix, 'z' .. suffix)
  if found[1] == '0' and found[2] == '0' then redis.call('HDEL', key, 'u' .. suffix, 'h' .. suffix, 'z' .. suffix) end
end

-- ---------------------------------------------------------------- concurrency

local function change_concurrency(key, by)
  if redis.call('INCRBY', key, by) <= 0 then redis.call('DEL', key) end
end
