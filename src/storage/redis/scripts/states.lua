#!lua flags=no-writes
-- include: bucket, look
--
-- Where limits stand.
--
-- KEYS  1 bucket, 2… counters
-- Gives {states, now, counter…}, each as text or {end, used, held}; {closed}. O(counters).

local bucket, closed = open_bucket(KEYS[1])
if not bucket then return closed end
local states = { 'states', digits(now_ms()) }
for index = 2, #KEYS do states[index + 1] = look_at(KEYS[index]) end
return states
