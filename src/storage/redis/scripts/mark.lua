#!lua flags=allow-oom
-- include: bucket
--
-- Remembers by which marks the books of this bucket are known.
--
-- KEYS  1 bucket
-- ARGV  3 epoch, 4 the mark that they have, 5 the one that they get next
-- Gives {marked}, or {refused} where the bucket is not open in this epoch. O(1).

local found = call('HMGET', KEYS[1], 'v', 'state', 'epoch')
if found[1] and found[1] ~= '1' then return unknown_version('bucket', found[1]) end
if found[2] ~= 'open' or found[3] ~= ARGV[3] then return { 'refused' } end
call('HSET', KEYS[1], 'mark', ARGV[4], 'next_mark', ARGV[5])
return { 'marked' }
