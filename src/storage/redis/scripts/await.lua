#!lua flags=allow-oom
-- include: bucket
--
-- A wiped bucket takes reports and books from now on.
--
-- KEYS  1 bucket
-- ARGV  3 epoch
-- Gives {filling}, or {refused} where the bucket is not of this epoch. O(1).
-- Bucket: wiping → filling.

local found = call('HMGET', KEYS[1], 'state', 'epoch')
if found[2] ~= ARGV[3] then return { 'refused' } end
if found[1] == 'wiping' then call('HSET', KEYS[1], 'state', 'filling') end
return { 'filling' }
