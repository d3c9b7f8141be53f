#!lua flags=allow-oom
-- include: bucket
--
-- Opens a bucket that has been filled, on this run of this server.
--
-- KEYS  1 bucket
-- ARGV  3 epoch
-- Gives {open} or {refused}. O(1).
-- Bucket: filling → open.

local found = call('HMGET', KEYS[1], 'v', 'state', 'epoch')
if found[1] and found[1] ~= '1' then return unknown_version('bucket', found[1]) end
if found[3] ~= ARGV[3] then return { 'refused' } end
if found[2] == 'open' then return { 'open' } end
if found[2] ~= 'filling' then return { 'refused' } end
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')
call('HSET', KEYS[1], 'state', 'open', 'run', run, 'opened_at', digits(now_ms()))
return { 'open' }
