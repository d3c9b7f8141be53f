-- What every script asks first: the time, and whether its bucket is in use.
-- ARGV[1] is the time in Unix ms for tests, or empty: then it is the server's. ARGV[2] is the run id of the server that the caller
-- believes to talk to, or empty where it does not know.

local call = redis.call
local format = string.format

local function now_ms()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A whole number below 2^53 as text.
local function digits(number)
  return format('%d', number)
end

local function unknown_version(what, version)
  return redis.error_reply('WEIRVERSION a ' .. what .. ' has version ' .. tostring(version) .. ', which this release does not read')
end

-- The epoch of a bucket that is open, or nil and the reply to give. One that was opened on another run of the server may have lost writes.
local function open_epoch(key)
  local found = call('HMGET', key, 'v', 'state', 'epoch', 'run')
  if found[1] and found[1] ~= '1' then return nil, unknown_version('bucket', found[1]) end
  if found[2] ~= 'open' or (ARGV[2] ~= '' and ARGV[2] ~= found[4]) then return nil, { 'closed' } end
  return tonumber(found[3])
end
