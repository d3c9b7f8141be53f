#!lua flags=no-writes
-- include: bucket
--
-- Everything that is known of a tenant's money and quota.
--
-- KEYS  1 bucket, 2 account
-- Gives {account, now, {field, value…}} (see account.lua); {closed}. O(grants).

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
return { 'account', now_ms(), call('HGETALL', KEYS[2]) }
