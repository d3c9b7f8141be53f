-- The shares that a hold has of its counters: a list of {name, limit, end}, in the order of the request's rules. What a share holds or
-- has used follows from the hold's own figures. Keys of counters come in the same order, from KEYS[first].

-- The names that the caller must bring the keys of, or nil where it has brought them.
local function missing_keys(shares, keys)
  local complete = #keys == #shares
  for index, share in ipairs(shares) do
    local key = keys[index]
    complete = complete and key ~= nil and string.sub(key, -#share[1] - 3) == ':c:' .. share[1]
  end
  if complete then return nil end
  local reply = { 'keys' }
  for _, share in ipairs(shares) do reply[#reply + 1] = share[1] end
  return reply
end

local function close_share(key, share, held, used, now)
  local kind = kind_of(share[1])
  if IS_RATE[kind] then return change_rate(key, used - held, now) end
  if kind == 'c' then return change_concurrency(key, -held) end
  local suffix = suffix_of(key, share[3])
  if not suffix then return end
  unhold_units(key, suffix, held)
  use_units(key, suffix, used)
  drop_if_over(key, suffix)
end

local function nothing_of(kind)
  return is_meter(kind) and ZERO or 0
end

-- Replaces what an open hold's shares hold by what was used; `used` is {tokens, amount}, or nil where everything is given back.
local function close_shares(keys, hold, used, now)
  for index, share in ipairs(hold.shares) do
    local kind = kind_of(share[1])
    local of_use = used and need_of(kind, used.tokens, used.amount) or nothing_of(kind)
    close_share(keys[index], share, need_of(kind, hold.tokens, hold.amount), of_use, now)
  end
end

-- Replaces what was used, by the close of a sweep, by what was used in truth.
local function recount_shares(keys, hold, before, used, now)
  for index, share in ipairs(hold.shares) do
    local kind = kind_of(share[1])
    local old = before.released and nothing_of(kind) or need_of(kind, before.tokens, before.amount)
    local new = need_of(kind, used.tokens, used.amount)
    if IS_RATE[kind] then change_rate(keys[index], new - old, now)
    elseif kind ~= 'c' then
      local suffix = suffix_of(keys[index], share[3])
      if suffix then use_units(keys[index], suffix, new - old) end
    end
  end
end
