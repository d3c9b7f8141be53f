#!lua flags=no-writes
-- include: bucket
--
-- Finds leases of a bucket that are due: ended, or of holds swept and not closed since.
--
-- KEYS  1 bucket, 2 leases
-- ARGV  3 Unix ms that they must have ended before, or empty: now; 4 how many to skip, 5 the most to give
-- Gives {due, `id, line feed, tenant`…}, the longest due first; {closed}.
-- States: none change. O(log leases + given).

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local before = math.min(now_ms(), tonumber(ARGV[3]) or math.huge)
local due = call('ZRANGE', KEYS[2], '-inf', '(' .. digits(before), 'BYSCORE', 'LIMIT', ARGV[4], ARGV[5])
table.insert(due, 1, 'due')
return due
