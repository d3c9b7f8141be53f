#!lua flags=allow-oom
-- include: pairs, bucket, counters, account, charge, holds
--
-- Registers a slice of a node's open holds in a bucket that is being filled, with what they reserve; the last slice names the node.
--
-- KEYS  1 bucket, 2 leases, 3 tenants; then for each hold its account, the hold, and the counter of each of its rules
-- ARGV  3 epoch, 4 node, or empty before the last slice, 5 number of holds; then for each of them
--       its id, tenant, project, key, model, time of admission, end of its lease, tokens, amount, credit line, lease in ms, context, checkpoint;
--       the number of its parts, then their grant, unit, amount and weight or empty;
--       the number of words in `begun`, then those; the number of its counters, then their name, limit and window's end
-- Gives {reported} or {refused}. What is registered already stays as it is.
-- States: none → H. O(holds × rules).

local now = now_ms()
local key_at, arg_at = 4, 6

local function next_key()
  key_at = key_at + 1
  return KEYS[key_at - 1]
end

local function next_arg()
  arg_at = arg_at + 1
  return ARGV[arg_at - 1]
end

local function next_list(width)
  local list = {}
  for index = 1, tonumber(next_arg()) do
    local item = {}
    for field = 1, width do item[field] = next_arg() end
    list[index] = width == 1 and item[1] or item
  end
  return list
end

local function read_report()
  local hold = { state = 'H', account = next_key(), key = next_key(), id = next_arg(), at = now, keys = {} }
  local receipt = { next_arg(), next_arg(), next_arg(), next_arg(), tonumber(next_arg()), tonumber(next_arg()), tonumber(next_arg()), next_arg() }
  hold.line = next_arg()
  -- Its node is alive: the time that the bucket was closed does not count against the lease.
  receipt[6] = math.max(receipt[6], now + tonumber(next_arg()))
  hold.context, hold.checkpoint = next_arg(), next_arg()
  receipt[9] = next_list(4)
  for _, part in ipairs(receipt[9]) do part[4] = tonumber(part[4]) end
  local begun = next_list(1)
  for index = 2, #begun, 2 do begun[index] = tonumber(begun[index]) end
  receipt[10] = #begun > 0 and begun
  hold.shares = next_list(3)
  for index = 1, #hold.shares do hold.keys[index] = next_key() end
  hold.receipt = receipt
  return hold
end

-- Gives the suffix of the share's window, which becomes the meter's own if it is the latest.
local function place_window(key, ends)
  local meter = read_meter(key)
  if not meter.ends or (meter.ends ~= '-' and tonumber(meter.ends) < tonumber(ends)) then
    begin_window(key, meter, ends, now)
    return ''
  end
  if meter.ends == ends then return '' end
  if redis.call('HEXISTS', key, 'u' .. ends) == 0 then redis.call('HSET', key, 'u' .. ends, '0', 'h' .. ends, '0', 'z' .. ends, '0') end
  return ends
end

local function reserve_share(key, share, hold)
  local kind = kind_of(share[1])
  if kind == 'c' then return redis.call('INCRBY', key, 1) end
  if IS_RATE[kind] then return end
  hold_units(key, place_window(key, share[3]), need_of(kind, hold.receipt[7], pair_of(hold.receipt[8])))
end

local function register(hold)
  if redis.call('EXISTS', hold.key) == 1 then return end
  redis.call('SADD', KEYS[3], hold.receipt[1])
  for _, part in ipairs(hold.receipt[9]) do
    if part[1] ~= CREDIT then redis.call('HSETNX', hold.account, 't:' .. part[1], unknown_terms(part[1], part[2])) end
  end
  reserve(hold.account, hold.receipt[9])
  redis.call('HINCRBY', hold.account, 'n', 1)
  for index, share in ipairs(hold.shares) do reserve_share(hold.keys[index], share, hold) end
  write_open(hold.key, hold)
  redis.call('ZADD', KEYS[2], digits(hold.receipt[6]), lease_of(hold.id, hold.receipt[1]))
end

local filling, refused = filling_bucket(KEYS[1], ARGV[3])
if not filling then return refused end
local holds = {}
for index = 1, tonumber(ARGV[5]) do holds[index] = read_report() end
for _, hold in ipairs(holds) do
  -- The open hold as it will be stored has an epoch of its own: the one that charges it.
  hold.epoch = tonumber(ARGV[3])
  register(hold)
end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'n:' .. ARGV[4], '1') end
return { 'reported' }
