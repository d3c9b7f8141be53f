-- A rate is a token bucket as it was at one time: limit, level and time, in MessagePack. Its level is in units * 60000, so that it refills
-- by `limit` each millisecond.

local SCALE = 60000
-- The largest limit whose scaled level is a whole number in a double; larger ones count as this.
local MAX_RATE = 75059993789
local MOST_DEBT = -9007199254740991
-- So long a full rate is remembered: a late settle comes within 15 minutes, and extensions of longer holds renew it.
local KEEP_RATE_MS = 1800000
local LONGEST_TTL_MS = 1000000000000000

local function rate_of(text)
  if not text then return { limit = 0, level = 0, at = 0 } end
  local limit, level, at = cmsgpack.unpack(text)
  return { limit = limit, level = level, at = at }
end

-- Refilled until now; a changed limit keeps what was used.
local function level_at(rate, limit, now)
  local refilled = math.min(rate.limit * SCALE, rate.level + rate.limit * (now - rate.at))
  return refilled + (limit - rate.limit) * SCALE
end

local function move_rate(rate, amount, limit, now)
  local level = math.min(limit * SCALE, level_at(rate, limit, now) - amount * SCALE)
  rate.level = math.max(MOST_DEBT, level)
  rate.limit = limit
  rate.at = now
end

-- A rate without a limit never refills, so it is never forgotten.
local function write_rate(key, rate, keep_ms)
  local text = cmsgpack.pack(rate.limit, rate.level, rate.at)
  if rate.limit == 0 then return call('SET', key, text) end
  local refill_ms = math.ceil((rate.limit * SCALE - rate.level) / rate.limit)
  call('SET', key, text, 'PX', digits(math.min(refill_ms + keep_ms, LONGEST_TTL_MS)))
end
