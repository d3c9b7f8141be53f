-- What every script asks first: the time, and whether its bucket is in use.
-- ARGV[1] is the time in Unix ms for tests, or empty: then it is the server's. ARGV[2] is the run id of the server that the caller
-- believes to talk to, or empty where it does not know.

local function now_ms()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whole milliseconds and other numbers below 2^53 as text.
local function digits(number)
  return string.format('%.0f', number)
end

local function unknown_version(what, version)
  return redis.error_reply('WEIRVERSION a ' .. what .. ' has version ' .. tostring(version) .. ', which this release does not read')
end

-- The bucket's state, or nil and the reply to give. A bucket that was opened on another run of the server may have lost writes since.
local function open_bucket(key)
  local found = redis.call('HMGET', key, 'v', 'state', 'epoch', 'opened_at', 'run')
  if found[1] and found[1] ~= '1' then return nil, unknown_version('bucket', found[1]) end
  if found[2] ~= 'open' then return nil, { 'closed' } end
  if ARGV[2] ~= '' and ARGV[2] ~= found[5] then return nil, { 'closed' } end
  return { epoch = tonumber(found[3]), opened_at = tonumber(found[4]) }
end

-- Whether the bucket is being filled in this epoch, or nil and the reply to give.
local function filling_bucket(key, epoch)
  local found = redis.call('HMGET', key, 'v', 'state', 'epoch')
  if found[1] and found[1] ~= '1' then return nil, unknown_version('bucket', found[1]) end
  if found[2] ~= 'filling' or found[3] ~= epoch then return nil, { 'refused' } end
  return true
end
