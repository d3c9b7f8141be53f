#!lua flags=allow-oom
-- include: bucket
--
-- Deletes a slice of a bucket's keys, while it is being wiped in this epoch.
--
-- KEYS  1 bucket, 2… what to delete
-- ARGV  3 epoch
-- Gives {wiped} or {refused}. O(keys); memory is freed in the background.

local found = call('HMGET', KEYS[1], 'state', 'epoch')
if found[1] ~= 'wiping' or found[2] ~= ARGV[3] then return { 'refused' } end
if #KEYS > 1 then call('UNLINK', unpack(KEYS, 2)) end
return { 'wiped' }
