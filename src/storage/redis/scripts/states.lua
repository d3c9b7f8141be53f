#!lua flags=no-writes
-- include: bucket, look
--
-- Where limits stand.
--
-- KEYS  1 bucket, 2… counters
-- ARGV  3 the kind of each counter, one letter each
-- Gives {states, now, counter…} as look.lua has them; {closed}. O(counters).

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local states = { 'states', now_ms() }
for index = 2, #KEYS do states[index + 1] = look_at(KEYS[index], string.sub(ARGV[3], index - 1, index - 1)) end
return states
