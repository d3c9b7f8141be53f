#!lua flags=allow-oom
-- include: bucket, pairs, filling, kinds, meters, shares, account, reserve, grants, holds
--
-- Registers a slice of a node's open holds in a bucket that is being filled, with what they reserve; the last slice names the node.
--
-- KEYS  1 bucket, 2 leases, 3 tenants; then for each hold its account, the hold, and the counter of each of its rules
-- ARGV  3 epoch, 4 node, or empty before the last slice, 5 number of holds; then for each of them
--       its id, tenant, what never changes of its receipt, time of admission, end of its lease, tokens, amount, credit line, lease in ms,
--       counters, their limits, context, checkpoint; the number of its parts, then their grant, unit, amount and weight (empty: none); the
--       number of its counters, then each one's window end
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

local function next_number()
  return tonumber(next_arg())
end

local function read_report()
  local hold = {
    state = 'H', account = next_key(), key = next_key(), at = now, epoch = tonumber(ARGV[3]), id = next_arg(), tenant = next_arg(),
    fixed = next_arg(), admitted_at = next_number(), expires_at = next_number(), tokens = next_number(), amount = pair_of(next_arg()),
    line = next_arg(), parts = {}, ends = {},
  }
  -- Its node is alive: the time that the bucket was closed does not count against the lease.
  hold.expires_at = math.max(hold.expires_at, now + next_number())
  hold.counters, hold.limits, hold.context, hold.checkpoint = next_arg(), next_arg(), next_arg(), next_arg()
  for index = 1, next_number() do hold.parts[index] = { next_arg(), next_arg(), next_arg(), next_number() } end
  for index = 1, next_number() do hold.ends[index] = next_arg() end
  hold.first_counter = key_at
  key_at = key_at + #hold.ends
  return hold
end

-- Gives the suffix of a window, which becomes the meter's own if it is the latest.
local function place_window(key, ends)
  local meter = read_meter(key)
  if meter.ends == ends then return '' end
  if not meter.ends or tonumber(meter.ends) < tonumber(ends) then
    begin_window(key, meter, ends, now)
    return ''
  end
  if call('HEXISTS', key, 'u' .. ends) == 0 then call('HSET', key, 'u' .. ends, '0', 'h' .. ends, '0', 'z' .. ends, '0') end
  return ends
end

-- Rates begin full.
local function reserve_shares(hold)
  for index, ends in ipairs(hold.ends) do
    local key, kind = KEYS[hold.first_counter + index - 1], kind_at(hold.counters, index)
    if kind == 'c' then call('INCRBY', key, '1')
    elseif IS_METER[kind] then hold_units(key, place_window(key, ends), need_of(kind, hold.tokens, hold.amount)) end
  end
end

local function register(hold)
  if call('EXISTS', hold.key) == 1 then return end
  call('SADD', KEYS[3], hold.tenant)
  for _, part in ipairs(hold.parts) do
    if part[1] ~= CREDIT then call('HSETNX', hold.account, 't:' .. part[1], unknown_terms(part[1], part[2])) end
  end
  reserve(hold.account, hold.parts)
  call('HINCRBY', hold.account, 'n', '1')
  reserve_shares(hold)
  write_open(hold.key, hold)
  call('ZADD', KEYS[2], digits(hold.expires_at), lease_of(hold.id, hold.tenant))
end

local filling, refused = filling_bucket(KEYS[1], ARGV[3])
if not filling then return refused end
local holds = {}
for index = 1, tonumber(ARGV[5]) do holds[index] = read_report() end
for _, hold in ipairs(holds) do register(hold) end
if ARGV[4] ~= '' then call('HSET', KEYS[1], 'n:' .. ARGV[4], '1') end
return { 'reported' }
