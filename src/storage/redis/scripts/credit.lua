#!lua flags=allow-oom
-- include: bucket, pairs, account, grants, changes
--
-- Applies a credit to a grant, once, in the order of the tenant's numbers; its terms become those given.
--
-- KEYS  1 bucket, 2 tenants, 3 account
-- ARGV  3 tenant, 4 number, 5 grant, 6 amount, 7 unit, 8 terms (JSON), 9 models and weights (JSON) or empty
-- Gives {applied}, {duplicate} or {gap}; {closed}. Runs when memory is full. O(walked grants).

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local seq = tonumber(ARGV[4])
local applied = tonumber(call('HGET', KEYS[3], 'seq') or 0)
if seq <= applied then return { 'duplicate' } end
if seq > applied + 1 then return { 'gap' } end

local changes = new_changes()
change_of(changes, ARGV[5], ARGV[7]).balance = pair_of(ARGV[6])
local refused = check_changes(KEYS[3], changes)
if refused then return refused end

if applied == 0 then call('SADD', KEYS[2], ARGV[3]) end
local change = changes[1]
if change then
  write_terms(KEYS[3], change.id, ARGV[8], ARGV[9])
  change.known = true
end
write_changes(KEYS[3], changes)
if change then move_grant(KEYS[3], change.id, is_live(change.new_balance, change.new_held)) end
call('HSET', KEYS[3], 'seq', ARGV[4])
return { 'applied' }
