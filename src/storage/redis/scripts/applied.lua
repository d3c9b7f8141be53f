#!lua flags=no-writes
-- include: bucket
--
-- The number of the last credit applied to a tenant.
--
-- KEYS  1 bucket, 2 account
-- Gives {applied, number}; {closed}. O(1).

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
return { 'applied', call('HGET', KEYS[2], 'seq') or '0' }
