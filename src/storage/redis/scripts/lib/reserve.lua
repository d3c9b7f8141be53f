-- An account as an admission sees it: the grants that it walks, and what is owed.

local function grant_of(entry, balance, held)
  local reserved = pair_of(held)
  return { id = entry[1], unit = entry[2], expires_at = entry[4], entry = entry, held = reserved, free = pair_of(balance) - reserved }
end

-- The walked grants with their figures. Models and weights are read of those alone that have some.
local function read_grants(key, walk)
  local fields, special = {}, {}
  for index = 1, #walk do
    local entry = walk[index]
    fields[index * 2 - 1] = 'b:' .. entry[1]
    fields[index * 2] = 'r:' .. entry[1]
    if entry[6] then special[#special + 1] = index end
  end
  for at = 1, #special do fields[#fields + 1] = 'x:' .. walk[special[at]][1] end
  local found = read_fields(key, fields)
  local grants = {}
  for index = 1, #walk do grants[index] = grant_of(walk[index], found[index * 2 - 1], found[index * 2]) end
  for at = 1, #special do
    local grant, terms = grants[special[at]], cmsgpack.unpack(found[#walk * 2 + at])
    grant.models, grant.weights = terms.models, terms.weights
  end
  return grants
end

local function is_expired(grant, now)
  return grant.expires_at and grant.expires_at <= now
end

local function is_dropped(grant, now)
  return is_expired(grant, now) and grant.held == ZERO
end

-- Expired grants that hold nothing leave the list. Nobody can tell: they paid nothing already.
local function drop_expired(key, grants, now)
  local left, walk = {}, {}
  for _, grant in ipairs(grants) do
    if not is_dropped(grant, now) then
      left[#left + 1] = grant
      walk[#walk + 1] = grant.entry
    end
  end
  write_walk(key, walk)
  return left
end

local function without_expired(key, grants, now)
  for index = 1, #grants do
    if is_dropped(grants[index], now) then return drop_expired(key, grants, now) end
  end
  return grants
end

local function read_account(key, now)
  local found = call('HMGET', key, 'w', 'cu', 'ch', 'd', 'n')
  return {
    known = found[5] ~= false, credit_used = pair_of(found[2]), credit_held = pair_of(found[3]), debt = pair_of(found[4]),
    grants = without_expired(key, read_grants(key, walk_of(found[1])), now),
  }
end

local function pays_for(grant, model)
  return not grant.models or grant.models[model]
end

-- Money that the tenant has free for a model, without its credit line. What is owed counts, whatever it was for.
local function own_money(account, model, now)
  local total = ZERO - account.credit_used - account.credit_held - account.debt
  for index = 1, #account.grants do
    local grant = account.grants[index]
    if grant.unit == 'm' then
      local free = grant.free
      if free < ZERO or (not is_expired(grant, now) and pays_for(grant, model)) then total = total + free end
    end
  end
  return total
end

local function held_money(account)
  local total = account.credit_held
  for _, grant in ipairs(account.grants) do
    if grant.unit == 'm' then total = total + grant.held end
  end
  return total
end

-- Reserves planned parts. Their grants have something left, so all of them are walked already.
local function reserve(key, parts)
  for index = 1, #parts do
    local part = parts[index]
    call('HINCRBY', key, part[1] == CREDIT and 'ch' or 'r:' .. part[1], part[3])
  end
end
