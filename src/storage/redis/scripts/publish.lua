#!lua flags=allow-oom
--
-- Stores the version of records and configuration, which only grows, and tells who listens.
--
-- KEYS  1 version
-- ARGV  3 version, 4 channel or empty: tell nobody, 5 message
-- Gives the version that is stored now. O(listeners).

local call = redis.call
local version = tonumber(call('GET', KEYS[1]) or 0)
if tonumber(ARGV[3]) > version then
  version = tonumber(ARGV[3])
  call('SET', KEYS[1], ARGV[3])
end
if ARGV[4] ~= '' then call('PUBLISH', ARGV[4], ARGV[5]) end
return string.format('%.0f', version)
