#!lua flags=allow-oom
-- include: pairs, bucket, account, charge
--
-- Sets what a tenant has, as the ledger says, in a bucket that is being filled. What reports have reserved stays reserved.
--
-- KEYS  1 bucket, 2 tenants, 3 account
-- ARGV  3 epoch, 4 tenant, 5 number of the last credit applied, 6 what the credit line has paid; then for each grant
--       its id, unit, balance, terms (JSON), models and weights (JSON) or empty
-- Gives {filled} or {refused}. O(grants).

local filling, refused = filling_bucket(KEYS[1], ARGV[3])
if not filling then return refused end

local GRANT_FIELDS = 5

-- What is reserved, and terms of grants that the ledger does not know.
local function reserved_of(key)
  local found = redis.call('HGETALL', key)
  local held, terms, kept = {}, {}, {}
  for index = 1, #found, 2 do
    local field, value = found[index], found[index + 1]
    local id = string.sub(field, 3)
    if string.sub(field, 1, 2) == 'r:' then held[id] = value
    elseif string.sub(field, 1, 2) == 't:' then terms[id] = value
    elseif field == 'n' or field == 'ch' then kept[field] = value end
  end
  return held, terms, kept
end

local held, terms, kept = reserved_of(KEYS[3])
redis.call('SADD', KEYS[2], ARGV[4])
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'seq', ARGV[5], 'cu', ARGV[6], 'n', kept.n or '0', 'ch', kept.ch or '0')

local walk, debt = {}, ZERO
local function put(id, unit, balance, json, extra)
  local reserved = pair_of(held[id])
  redis.call('HSET', KEYS[3], 'b:' .. id, balance, 'r:' .. id, text_of(reserved))
  write_terms(KEYS[3], id, json, extra)
  if is_live(pair_of(balance), reserved) then insert_entry(walk, entry_of(json)) end
  debt = debt + debt_of(unit, pair_of(balance), reserved)
  held[id] = nil
end

for at = 7, #ARGV, GRANT_FIELDS do put(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]) end
for id in pairs(held) do put(id, entry_of(terms[id])[2], '0', terms[id], '') end
write_walk(KEYS[3], walk)
if debt ~= ZERO then redis.call('HSET', KEYS[3], 'd', text_of(debt)) end
return { 'filled' }
