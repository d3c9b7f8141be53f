-- Changes of what grants have and hold: collected first, so that all of them can be checked before the first write.
-- Parts are {grant, unit, amount}.

-- Whether Redis can store it: an integer of 64 bits.
local function is_storable(pair)
  local high, low = pair[1], pair[2]
  if high > 9223372036 or (high == 9223372036 and low > 854775807) then return false end
  return high > -9223372037 or (high == -9223372037 and low >= 145224192)
end

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

-- A grant is walked if it has something left or reserved.
local function is_live(balance, held)
  return balance > ZERO or held > ZERO
end

-- What a money grant that is not walked owes.
local function debt_of(unit, balance, held)
  if unit ~= 'm' or balance >= ZERO or is_live(balance, held) then return ZERO end
  return ZERO - balance
end

local function add_field(key, field, amount)
  if amount ~= ZERO then call('HINCRBY', key, field, text_of(amount)) end
end

-- Writes what check_changes has checked. A grant that is not known goes below zero rather than being forgotten.
local function write_changes(key, changes)
  local debt, moved = ZERO, false
  for _, change in ipairs(changes.order) do
    if not change.known then write_unknown(key, change.id, change.unit) end
    add_field(key, 'b:' .. change.id, change.balance)
    add_field(key, 'r:' .. change.id, change.held)
    local was, is = is_live(change.old_balance, change.old_held), is_live(change.new_balance, change.new_held)
    if was ~= is then moved = move_grant(key, change.id, is) end
    if not (was and is) then
      debt = debt + debt_of(change.unit, change.new_balance, change.new_held) - debt_of(change.unit, change.old_balance, change.old_held)
    end
  end
  add_field(key, 'd', debt)
  add_field(key, 'cu', changes.credit_used)
  add_field(key, 'ch', changes.credit_held)
  return moved
end
