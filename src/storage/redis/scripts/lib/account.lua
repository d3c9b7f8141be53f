-- A tenant's money and quota: one hash. seq is the number of the last credit applied, cu and ch what the credit line has paid and holds,
-- d what used-up money grants are overdrawn by, n the open holds. A grant has b:<id> its balance, r:<id> what of it is reserved, t:<id> its
-- terms (JSON, for readers), and, if it is for some models or has weights, x:<id>.
-- w lists the grants that an admission walks, in burn order, each {id, unit, priority, expires_at, created_at, special}: those that have
-- something left or reserved. One that is used up leaves the list with the charge that empties it, one that has expired with the first
-- admission after its expiry. Units are m nano-yuan, t tokens, r requests.

local CREDIT = 'credit'
-- More fields are read in several steps: Lua's stack has room for some thousands.
local FIELDS_PER_READ = 1000

local function read_fields(key, fields)
  if #fields == 0 then return {} end
  if #fields <= FIELDS_PER_READ then return redis.call('HMGET', key, unpack(fields)) end
  local found = {}
  for first = 1, #fields, FIELDS_PER_READ do
    local slice = redis.call('HMGET', key, unpack(fields, first, math.min(#fields, first + FIELDS_PER_READ - 1)))
    for index = 1, #slice do found[first + index - 1] = slice[index] end
  end
  return found
end

local function walk_of(text)
  return text and cmsgpack.unpack(text) or {}
end

local function write_walk(key, walk)
  if #walk == 0 then redis.call('HDEL', key, 'w') else redis.call('HSET', key, 'w', cmsgpack.pack(walk)) end
end

-- The walked grants with their figures. Models and weights are read for those alone that have some.
local function read_grants(key, walk)
  local fields = {}
  for index, entry in ipairs(walk) do
    local id = entry[1]
    fields[index * 3 - 2] = 'b:' .. id
    fields[index * 3 - 1] = 'r:' .. id
    fields[index * 3] = (entry[6] and 'x:' or '') .. id
  end
  local found = read_fields(key, fields)
  local grants = {}
  for index, entry in ipairs(walk) do
    local special = entry[6] and cmsgpack.unpack(found[index * 3]) or {}
    grants[index] = {
      id = entry[1], unit = entry[2], expires_at = entry[4], models = special.models, weights = special.weights,
      balance = pair_of(found[index * 3 - 2]), held = pair_of(found[index * 3 - 1]), entry = entry,
    }
  end
  return grants
end

local function is_expired(grant, now)
  return grant.expires_at and grant.expires_at <= now
end

-- Expired grants that hold nothing leave the list. Nobody can tell: they paid nothing already.
local function drop_expired(key, grants, now)
  local left, walk = {}, {}
  for _, grant in ipairs(grants) do
    if not is_expired(grant, now) or grant.held ~= ZERO then
      left[#left + 1] = grant
      walk[#walk + 1] = grant.entry
    end
  end
  if #left < #grants then write_walk(key, walk) end
  return left
end

local function read_account(key, now)
  local found = redis.call('HMGET', key, 'w', 'cu', 'ch', 'd', 'n')
  local grants = drop_expired(key, read_grants(key, walk_of(found[1])), now)
  return {
    key = key, grants = grants, known = found[5] ~= false, credit_used = pair_of(found[2]), credit_held = pair_of(found[3]),
    debt = pair_of(found[4]),
  }
end

local function pays_for(grant, model)
  return not grant.models or grant.models[model]
end

-- Money that the tenant has free for a model, without its credit line. What is owed counts, whatever it was for.
local function own_money(account, model, now)
  local total = ZERO - account.credit_used - account.credit_held - account.debt
  for _, grant in ipairs(account.grants) do
    if grant.unit == 'm' then
      local free = grant.balance - grant.held
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
  for _, part in ipairs(parts) do
    redis.call('HINCRBY', key, part[1] == CREDIT and 'ch' or 'r:' .. part[1], part[3])
  end
end
