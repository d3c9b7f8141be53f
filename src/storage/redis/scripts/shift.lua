#!lua flags=allow-oom
-- include: pairs, bucket, counters
--
-- Corrects what is believed to be used of a window or budget.
--
-- KEYS  1 bucket, 2 counter
-- ARGV  3 counter's name, 4 end of the rule's window, 5 end of the next (empty where there is none), 6 end of the window that is meant
--       (- where there is none), 7 what to add
-- Gives {shifted}, or {over} where now is in another window; {closed}. O(1).

local now = now_ms()
local bucket, closed = open_bucket(KEYS[1])
if not bucket then return closed end
local meter = read_meter(KEYS[2])
local window = window_at(meter, { name = ARGV[3], ends = ARGV[4], next_ends = ARGV[5] }, now)
if window.ends ~= ARGV[6] then return { 'over' } end
if not is_storable(window.used + pair_of(ARGV[7])) then return redis.error_reply('WEIRRANGE what is used would leave 64 bits') end
if window.fresh then begin_window(KEYS[2], meter, window.ends, now) end
redis.call('HINCRBY', KEYS[2], 'u', ARGV[7])
return { 'shifted' }
