#!lua flags=allow-oom
--
-- Blocks a key or tenant, or lets it in again, whatever the state of its bucket: a revocation must not fail.
--
-- KEYS  1 blocked ids
-- ARGV  3 `key:` or `tenant:` and the id, 4 '1' to block
-- Gives {blocked} or {free}. Runs when memory is full. O(1).

local call = redis.call
if ARGV[4] == '1' then
  call('SADD', KEYS[1], ARGV[3])
  return { 'blocked' }
end
call('SREM', KEYS[1], ARGV[3])
return { 'free' }
