#!lua flags=allow-oom
-- include: bucket, pairs, meters, changes
--
-- Corrects what is believed to be used of a window or budget.
--
-- KEYS  1 bucket, 2 counter
-- ARGV  3 end of the rule's window (Unix ms; - without one, 5 for five hours) and 4 of the next, 5 end of the window that is meant, 6 what to add
-- Gives {shifted}, or {over} where now is in another window; {closed}. O(1).

local now = now_ms()
local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local meter = read_meter(KEYS[2])
local window = window_at(meter, ARGV[3], ARGV[4], now)
if window.ends ~= ARGV[5] then return { 'over' } end
if not is_storable(window.used + pair_of(ARGV[6])) then return redis.error_reply('WEIRRANGE what is used would leave 64 bits') end
if window.fresh then begin_window(KEYS[2], meter, window.ends, now) end
call('HINCRBY', KEYS[2], 'u', ARGV[6])
return { 'shifted' }
