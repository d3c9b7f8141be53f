-- The shares that a hold has of its counters, in the order of its rules. What a share holds or has used follows from the hold's figures; all
-- that is kept of it is the end of the window that it counts in.
-- `counters` names a hold's counters: a line with the letter of each one's kind, then a line with each one's name.

local function count_of(counters)
  return (string.find(counters, '\n', 1, true) or 1) - 1
end

local function kind_at(counters, index)
  return string.sub(counters, index, index)
end

local function change_rate(key, amount, now)
  local text = amount ~= 0 and call('GET', key)
  -- A rate that was forgotten was full.
  if not text then return end
  local rate = rate_of(text)
  move_rate(rate, amount, rate.limit, now)
  write_rate(key, rate, KEEP_RATE_MS)
end

local function change_concurrency(key, by)
  if call('INCRBY', key, by) <= 0 then call('DEL', key) end
end

-- Where the fields of a window are in its meter: '' for the one that it is in, its end for an earlier one, nil where it is forgotten.
local function suffix_of(key, ends)
  local found = call('HMGET', key, 'e', 'u' .. ends)
  if found[1] == ends then return '' end
  return found[2] and ends or nil
end

local function unhold_units(key, suffix, units)
  if units == ZERO then call('HINCRBY', key, 'z' .. suffix, '-1') else call('HINCRBY', key, 'h' .. suffix, text_of(ZERO - units)) end
end

local function use_units(key, suffix, units)
  if units ~= ZERO then call('HINCRBY', key, 'u' .. suffix, text_of(units)) end
end

-- An earlier window is forgotten with the last share of it.
local function drop_if_over(key, suffix)
  if suffix == '' then return end
  local found = call('HMGET', key, 'h' .. suffix, 'z' .. suffix)
  if found[1] == '0' and found[2] == '0' then call('HDEL', key, 'u' .. suffix, 'h' .. suffix, 'z' .. suffix) end
end
