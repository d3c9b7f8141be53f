-- What becomes of a hold's shares when it is closed. Keys of its counters come in the order of its rules, from KEYS[first] on.

local function nothing_of(kind)
  return IS_METER[kind] and ZERO or 0
end

local function close_meter(key, ends, held, used)
  local suffix = suffix_of(key, ends)
  if not suffix then return end
  unhold_units(key, suffix, held)
  use_units(key, suffix, used)
  drop_if_over(key, suffix)
end

-- Replaces what an open hold's shares hold by what was used: `used` is {tokens, amount}, or nil where everything is given back.
local function close_shares(first, hold, used, now)
  for index = 1, count_of(hold.counters) do
    local key, kind = KEYS[first + index - 1], kind_at(hold.counters, index)
    local held = need_of(kind, hold.tokens, hold.amount)
    local of_use = used and need_of(kind, used.tokens, used.amount) or nothing_of(kind)
    if IS_RATE[kind] then change_rate(key, of_use - held, now)
    elseif kind == 'c' then change_concurrency(key, '-1')
    else close_meter(key, hold.ends[index], held, of_use) end
  end
end

-- Replaces what the close of a sweep has counted by what was used in truth.
local function recount_shares(first, hold, before, used, now)
  for index = 1, count_of(hold.counters) do
    local key, kind = KEYS[first + index - 1], kind_at(hold.counters, index)
    local old = before.released and nothing_of(kind) or need_of(kind, before.tokens, before.amount)
    local more = need_of(kind, used.tokens, used.amount) - old
    if IS_RATE[kind] then change_rate(key, more, now)
    elseif IS_METER[kind] then
      local suffix = suffix_of(key, hold.ends[index])
      if suffix then use_units(key, suffix, more) end
    end
  end
end
