#!lua flags=allow-oom
-- include: bucket
--
-- A node says that it lives, or leaves; who has not for too long is forgotten.
--
-- KEYS  1 nodes
-- ARGV  3 node, or empty: only ask, 4 for how long it counts as alive, in ms; 0: it leaves
-- Gives the nodes that live, by name. O(nodes).

local now = now_ms()
if ARGV[3] ~= '' and ARGV[4] == '0' then call('ZREM', KEYS[1], ARGV[3])
elseif ARGV[3] ~= '' then call('ZADD', KEYS[1], digits(now + tonumber(ARGV[4])), ARGV[3]) end
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', digits(now))
local nodes = call('ZRANGE', KEYS[1], 0, -1)
table.sort(nodes)
return nodes
