#!lua flags=allow-oom
-- include: bucket, pairs, kinds, rates, shares, closing, account, grants, changes, holds, tombstones
--
-- Gives everything back that a hold reserves: its request reached no upstream.
--
-- KEYS  1 bucket, 2 leases, 3 account, 4 hold, 5… the counter of each rule
-- ARGV  3 id, 4 tenant, 5 counters, or empty where they are not known
-- Gives {released}, or {nothing} where no hold of this tenant is open; {keys, counters} where KEYS are not the counters of the hold; {closed}.
-- States: H → S, X → W. O(rules + parts).

local now = now_ms()
local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local hold, unreadable = read_hold(KEYS[4], now)
if unreadable then return unreadable end
if not hold or not is_open(hold) or hold.tenant ~= ARGV[4] then return { 'nothing' } end
if hold.counters ~= ARGV[5] then return { 'keys', hold.counters } end
local changes = new_changes()
take_parts(changes, hold.parts, 'held')
local refused = check_changes(KEYS[3], changes)
if refused then return refused end

write_changes(KEYS[3], changes)
call('HINCRBY', KEYS[3], 'n', '-1')
close_shares(5, hold, nil, now)
call('ZREM', KEYS[2], lease_of(ARGV[3], ARGV[4]))
local stone = { state = 'S', epoch = false, appended = false, replaced = false, ref = false }
-- After a sweep a late settle still charges.
if hold.state == 'X' then stone.state, stone.counters, stone.charge = 'W', hold.counters, { 0, '0', {}, true } end
write_closed(KEYS[4], hold, stone, now, REMEMBERED_MS)
return { 'released' }
