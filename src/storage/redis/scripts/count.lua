#!lua flags=no-writes
--
-- Counts the open holds of buckets that are on one server, whatever their state; those marked swept are open.
--
-- KEYS  1… the leases of each bucket
-- Gives how many there are. O(buckets).

local count = 0
for index = 1, #KEYS do count = count + redis.call('ZCARD', KEYS[index]) end
return count
