-- Changes of what grants have and hold: collected first, so that all of them can be checked before the first write.
-- Parts are {grant, unit, amount}. A change is {id, unit, balance, held}, what is added to either; the credit line's is apart.

-- Whether Redis can store it: an integer of 64 bits.
local function is_storable(pair)
  local high, low = pair[1], pair[2]
  if high > 9223372036 or (high == 9223372036 and low > 854775807) then return false end
  return high > -9223372037 or (high == -9223372037 and low >= 145224192)
end

local function new_changes()
  return { credit = { balance = ZERO, held = ZERO } }
end

local function change_of(changes, id, unit)
  if id == CREDIT then return changes.credit end
  for index = 1, #changes do
    if changes[index].id == id then return changes[index] end
  end
  local change = { id = id, unit = unit, balance = ZERO, held = ZERO }
  changes[#changes + 1] = change
  return change
end

-- Takes parts from what grants have (`balance`) or have reserved (`held`), verbatim.
local function take_parts(changes, parts, what)
  for index = 1, #parts do
    local part = parts[index]
    local change = change_of(changes, part[1], part[2])
    change[what] = change[what] - pair_of(part[3])
  end
end

-- Gives parts of a charge back.
local function refund_parts(changes, parts)
  for index = 1, #parts do
    local part = parts[index]
    local change = change_of(changes, part[1], part[2])
    change.balance = change.balance + pair_of(part[3])
  end
end

-- Reads what the changed grants have now. Gives the reply to refuse with if a balance would leave 64 bits.
local function check_changes(key, changes)
  local fields = {}
  for index = 1, #changes do
    fields[index * 2 - 1] = 'b:' .. changes[index].id
    fields[index * 2] = 'r:' .. changes[index].id
  end
  local found = read_fields(key, fields)
  for index = 1, #changes do
    local change = changes[index]
    change.known = found[index * 2 - 1]
    change.old_balance, change.old_held = pair_of(change.known), pair_of(found[index * 2])
    change.new_balance, change.new_held = change.old_balance + change.balance, change.old_held + change.held
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

-- Moves a grant that begins or ends to have something. Gives by how much more is owed by grants that are not walked.
local function move_changed(key, change)
  local was, is = is_live(change.old_balance, change.old_held), is_live(change.new_balance, change.new_held)
  if was and is then return ZERO end
  if was ~= is then move_grant(key, change.id, is) end
  return debt_of(change.unit, change.new_balance, change.new_held) - debt_of(change.unit, change.old_balance, change.old_held)
end

-- Writes what check_changes has checked. A grant that is not known goes below zero rather than being forgotten.
local function write_changes(key, changes)
  for index = 1, #changes do
    local change = changes[index]
    if not change.known then write_unknown(key, change.id, change.unit) end
    add_field(key, 'b:' .. change.id, change.balance)
    add_field(key, 'r:' .. change.id, change.held)
    add_field(key, 'd', move_changed(key, change))
  end
  -- The credit line has no balance but what it has paid.
  add_field(key, 'cu', ZERO - changes.credit.balance)
  add_field(key, 'ch', changes.credit.held)
end
