-- Changes of what grants have and hold. Parts are {grant, unit, amount}.
-- `changes` collects what a script will do to each grant, so that all of it can be checked before the first write.

local function new_changes()
  return { order = {}, by_grant = {}, credit_used = ZERO, credit_held = ZERO }
end

local function change_of(changes, part)
  local id = part[1]
  local known = changes.by_grant[id]
  if known then return known end
  local change = { id = id, unit = part[2], balance = ZERO, held = ZERO }
  changes.by_grant[id] = change
  changes.order[#changes.order + 1] = change
  return change
end

-- Gives reserved parts back.
local function free_parts(changes, parts)
  for _, part in ipairs(parts) do
    local amount = pair_of(part[3])
    if part[1] == CREDIT then changes.credit_held = changes.credit_held - amount
    else
      local change = change_of(changes, part)
      change.held = change.held - amount
    end
  end
end

-- Takes parts from the balances, verbatim.
local function charge_parts(changes, parts)
  for _, part in ipairs(parts) do
    local amount = pair_of(part[3])
    if part[1] == CREDIT then changes.credit_used = changes.credit_used + amount
    else
      local change = change_of(changes, part)
      change.balance = change.balance - amount
    end
  end
end

-- Undoes charge_parts.
local function refund_parts(changes, parts)
  for _, part in ipairs(parts) do
    local amount = pair_of(part[3])
    if part[1] == CREDIT then changes.credit_used = changes.credit_used - amount
    else
      local change = change_of(changes, part)
      change.balance = change.balance + amount
    end
  end
end

-- Reads what the changed grants have now. Gives the reply to refuse with if a balance would leave 64 bits.
local function check_changes(key, changes)
  local fields = {}
  for index, change in ipairs(changes.order) do
    fields[index * 2 - 1] = 'b:' .. change.id
    fields[index * 2] = 'r:' .. change.id
  end
  local found = read_fields(key, fields)
  for index, change in ipairs(changes.order) do
    change.known = found[index * 2 - 1] ~= false
    change.old_balance = pair_of(found[index * 2 - 1])
    change.old_held = pair_of(found[index * 2])
    change.new_balance = change.old_balance + change.balance
    change.new_held = change.old_held + change.held
    if not is_storable(change.new_balance) then
      return redis.error_reply('WEIRRANGE the balance of grant ' .. change.id .. ' would leave 64 bits')
    end
  end
  return nil
end

local function unknown_terms(id, unit)
  local names = { m = 'nano_cny', t = 'tokens', r = 'requests' }
  return '{"id":' .. cjson.encode(id) .. ',"tenant":"","unit":"' .. names[unit] ..
    '","priority":9007199254740991,"expires_at":null,"created_at":0,"models":null,"weights":null}'
end

-- A grant is walked if it has something left or reserved.
local function is_live(balance, held)
  return balance > ZERO or held > ZERO
end

-- What a money grant that is not walked owes.
local function debt_of(unit, balance, held)
  if unit ~= 'm' or balance >= ZERO or is_live(balance, held) then return ZERO end
  return ZERO - balance
end

-- In the order of bytes: the server's locale must not decide.
local function comes_before(a, b)
  for index = 1, math.min(#a, #b) do
    local of_a, of_b = string.byte(a, index), string.byte(b, index)
    if of_a ~= of_b then return of_a < of_b end
  end
  return #a < #b
end

-- Priority, then soonest expiry, then age, then id.
local function burns_before(a, b)
  if a[3] ~= b[3] then return a[3] < b[3] end
  local of_a, of_b = a[4] or math.huge, b[4] or math.huge
  if of_a ~= of_b then return of_a < of_b end
  if a[5] ~= b[5] then return a[5] < b[5] end
  return comes_before(a[1], b[1])
end

local function without(walk, id)
  local left = {}
  for _, entry in ipairs(walk) do
    if entry[1] ~= id then left[#left + 1] = entry end
  end
  return left
end

local function insert_entry(walk, entry)
  local at = #walk + 1
  while at > 1 and burns_before(entry, walk[at - 1]) do at = at - 1 end
  table.insert(walk, at, entry)
end

local UNIT_OF = { nano_cny = 'm', tokens = 't', requests = 'r' }

-- A grant's entry in the walk, from the JSON of its terms.
local function entry_of(json)
  local terms = cjson.decode(json)
  local some = function(value) return value ~= cjson.null and value or false end
  local special = some(terms.models) ~= false or some(terms.weights) ~= false
  return { terms.id, UNIT_OF[terms.unit], terms.priority, some(terms.expires_at), terms.created_at, special }
end

-- The list changes only where a grant begins or ends to have something.
local function update_walk(key, changes)
  local walk = nil
  for _, change in ipairs(changes.order) do
    local was, is = is_live(change.old_balance, change.old_held), is_live(change.new_balance, change.new_held)
    if was ~= is then
      walk = walk or walk_of(redis.call('HGET', key, 'w'))
      walk = without(walk, change.id)
      if is then insert_entry(walk, entry_of(redis.call('HGET', key, 't:' .. change.id))) end
    end
  end
  if walk then write_walk(key, walk) end
end

local function add_field(key, field, amount)
  if amount ~= ZERO then redis.call('HINCRBY', key, field, text_of(amount)) end
end

-- Writes what check_changes has checked. A grant that is not known goes below zero rather than being forgotten.
local function write_changes(key, changes)
  local debt = ZERO
  for _, change in ipairs(changes.order) do
    if not change.known then redis.call('HSET', key, 't:' .. change.id, unknown_terms(change.id, change.unit), 'b:' .. change.id, '0') end
    add_field(key, 'b:' .. change.id, change.balance)
    add_field(key, 'r:' .. change.id, change.held)
    debt = debt + debt_of(change.unit, change.new_balance, change.new_held) - debt_of(change.unit, change.old_balance, change.old_held)
  end
  add_field(key, 'd', debt)
  add_field(key, 'cu', changes.credit_used)
  add_field(key, 'ch', changes.credit_held)
  update_walk(key, changes)
end

-- `extra` is {"models": {model: true…} or null, "weights": {model: millionths…} or null}, or empty for a grant that pays for all alike.
local function write_terms(key, id, json, extra)
  redis.call('HSET', key, 't:' .. id, json)
  redis.call('HSETNX', key, 'b:' .. id, '0')
  if extra == '' then return redis.call('HDEL', key, 'x:' .. id) end
  local special = cjson.decode(extra)
  local some = function(value) return value ~= cjson.null and value or nil end
  redis.call('HSET', key, 'x:' .. id, cmsgpack.pack({ models = some(special.models), weights = some(special.weights) }))
end

-- Puts a grant in its place once more: its terms have changed.
local function place_grant(key, change)
  local walk = without(walk_of(redis.call('HGET', key, 'w')), change.id)
  if is_live(change.new_balance, change.new_held) then insert_entry(walk, entry_of(redis.call('HGET', key, 't:' .. change.id))) end
  write_walk(key, walk)
end
