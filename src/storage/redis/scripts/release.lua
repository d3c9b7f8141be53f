#!lua flags=allow-oom
-- include: pairs, bucket, counters, shares, account, charge, holds
--
-- Gives everything back that a hold reserves: its request reached no upstream.
--
-- KEYS  1 bucket, 2 leases, 3 account, 4 hold, 5… the counter of each rule
-- ARGV  3 id, 4 tenant
-- Gives {released}, or {nothing} where no hold of this tenant is open; {keys, names…} where KEYS are not the counters of the hold; {closed}.
-- States: H → S, X → W. O(rules + parts).

local now = now_ms()
local bucket, closed = open_bucket(KEYS[1])
if not bucket then return closed end
local hold, unreadable = read_hold(KEYS[4], now)
if unreadable then return unreadable end
if not hold or not is_open(hold) or hold.tenant ~= ARGV[4] then return { 'nothing' } end

local keys = {}
for index = 5, #KEYS do keys[#keys + 1] = KEYS[index] end
local missing = missing_keys(hold.shares, keys)
if missing then return missing end
local changes = new_changes()
free_parts(changes, hold.parts)
local refused = check_changes(KEYS[3], changes)
if refused then return refused end

write_changes(KEYS[3], changes)
redis.call('HINCRBY', KEYS[3], 'n', -1)
close_shares(keys, hold, nil, now)
redis.call('ZREM', KEYS[2], lease_of(ARGV[3], ARGV[4]))
local stone = { state = 'S', receipt = hold.receipt, epoch = false, appended = false, replaced = false }
if hold.state == 'X' then
  -- A late settle still charges.
  stone.state, stone.shares, stone.charge = 'W', hold.shares, { 0, '0', {}, true }
end
write_closed(KEYS[4], stone, now, REMEMBERED_MS)
return { 'released' }
