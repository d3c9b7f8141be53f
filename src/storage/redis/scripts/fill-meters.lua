#!lua flags=allow-oom
-- include: bucket, pairs, filling, meters, shares
--
-- Sets what windows and budgets have used, in a bucket that is being filled. What reports have reserved stays reserved.
--
-- KEYS  1 bucket, 2… counters
-- ARGV  3 epoch; then for each counter the end of its window (- where there is none) and what is used
-- Gives {filled} or {refused}. O(counters).

local now = now_ms()

-- An earlier window than the meter's own matters only to holds that have shares of it.
local function fill(key, ends, used)
  local meter = read_meter(key)
  if not meter.ends or (meter.ends ~= ends and tonumber(meter.ends) < tonumber(ends)) then begin_window(key, meter, ends, now) end
  local suffix = suffix_of(key, ends)
  if suffix then call('HSET', key, 'u' .. suffix, used) end
end

local filling, refused = filling_bucket(KEYS[1], ARGV[3])
if not filling then return refused end
for index = 2, #KEYS do fill(KEYS[index], ARGV[index * 2], ARGV[index * 2 + 1]) end
return { 'filled' }
