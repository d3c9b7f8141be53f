#!lua flags=no-writes
-- include: bucket
--
-- Everything that is known of a tenant's money and quota.
--
-- KEYS  1 bucket, 2 account
-- Gives {account, now, field, value…}; {closed}. O(grants).

local bucket, closed = open_bucket(KEYS[1])
if not bucket then return closed end
return { 'account', digits(now_ms()), redis.call('HGETALL', KEYS[2]) }
