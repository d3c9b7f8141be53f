#!lua flags=allow-oom
-- include: bucket
--
-- Closes a bucket of an older epoch, to be wiped.
--
-- KEYS  1 bucket
-- ARGV  3 epoch
-- Gives {wipe} where its keys are to be deleted now, {done} where that has happened in this epoch or a newer one has begun. O(1).
-- Bucket: absent, filling, open, wiping → wiping.

local found = call('HMGET', KEYS[1], 'v', 'state', 'epoch')
if found[1] and found[1] ~= '1' then return unknown_version('bucket', found[1]) end
local epoch = tonumber(found[3] or 0)
if epoch > tonumber(ARGV[3]) then return { 'done' } end
if epoch == tonumber(ARGV[3]) and found[2] ~= 'wiping' then return { 'done' } end
call('DEL', KEYS[1])
call('HSET', KEYS[1], 'v', '1', 'state', 'wiping', 'epoch', ARGV[3])
return { 'wipe' }
