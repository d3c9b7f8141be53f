#!lua flags=no-writes
--
-- The run id of the server that a bucket is on.
--
-- KEYS  1 bucket
-- Gives the run id. O(1).

return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
