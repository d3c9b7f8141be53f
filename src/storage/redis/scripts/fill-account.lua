#!lua flags=allow-oom
-- include: bucket, pairs, filling, account, grants, changes
--
-- Sets what a tenant has, as the ledger says, in a bucket that is being filled. What reports have reserved stays reserved.
--
-- KEYS  1 bucket, 2 tenants, 3 account
-- ARGV  3 epoch, 4 tenant, 5 number of the last credit applied, 6 what the credit line has paid; then for each grant, best in burn order,
--       its id, unit, balance, terms (JSON), models and weights (JSON) or empty
-- Gives {filled} or {refused}. O(grants).

local GRANT_FIELDS = 5
local walk, debt = {}, ZERO

-- What reports have reserved, with the terms that they know.
local function read_reserved(key)
  local found = call('HGETALL', key)
  local reserved = { held = {}, terms = {}, n = '0', ch = '0' }
  for index = 1, #found, 2 do
    local field, value = found[index], found[index + 1]
    local kind, id = string.sub(field, 1, 2), string.sub(field, 3)
    if kind == 'r:' then reserved.held[id] = value
    elseif kind == 't:' then reserved.terms[id] = value
    elseif field == 'n' or field == 'ch' then reserved[field] = value end
  end
  return reserved
end

local function put(reserved, id, unit, balance, json, extra)
  local of_balance, held = pair_of(balance), pair_of(reserved.held[id])
  write_terms(KEYS[3], id, json, extra)
  call('HSET', KEYS[3], 'b:' .. id, balance, 'r:' .. id, text_of(held))
  if is_live(of_balance, held) then insert_entry(walk, entry_of(json)) end
  debt = debt + debt_of(unit, of_balance, held)
  reserved.held[id] = nil
end

local filling, refused = filling_bucket(KEYS[1], ARGV[3])
if not filling then return refused end
local reserved = read_reserved(KEYS[3])
call('SADD', KEYS[2], ARGV[4])
call('DEL', KEYS[3])
call('HSET', KEYS[3], 'seq', ARGV[5], 'cu', ARGV[6], 'n', reserved.n, 'ch', reserved.ch)
for at = 7, #ARGV, GRANT_FIELDS do put(reserved, ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]) end
local unknown = {}
for id, held in pairs(reserved.held) do
  if held ~= '0' then unknown[#unknown + 1] = id end
end
for _, id in ipairs(unknown) do put(reserved, id, entry_of(reserved.terms[id])[2], '0', reserved.terms[id], '') end
write_walk(KEYS[3], walk)
if debt ~= ZERO then call('HSET', KEYS[3], 'd', text_of(debt)) end
return { 'filled' }
