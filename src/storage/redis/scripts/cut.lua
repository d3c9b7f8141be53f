#!lua flags=no-writes
-- include: bucket, look
--
-- One moment of a bucket: balances and open holds of some tenants, where some limits stand, and how far the usage stream has come.
--
-- KEYS  1 bucket, 2 leases, 3 usage stream; then the account of each tenant; then counters
-- ARGV  3 number of tenants, then their ids
-- Gives {cut, now, epoch, id of the stream's last entry or nothing, {ids of holds}, {{field, value…} of each account}, {counters}}; {closed}.
-- O(holds of the bucket + grants of the tenants + counters).

local bucket, closed = open_bucket(KEYS[1])
if not bucket then return closed end

local function last_entry()
  if redis.call('EXISTS', KEYS[3]) == 0 then return '' end
  local info = redis.call('XINFO', 'STREAM', KEYS[3])
  for index = 1, #info, 2 do
    if info[index] == 'last-generated-id' then return info[index + 1] end
  end
  return ''
end

local function holds_of(tenants)
  local ids = {}
  for _, lease in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local id, tenant = string.match(lease, '^(.-)\n(.*)$')
    if tenants[tenant] then ids[#ids + 1] = id end
  end
  return ids
end

local count = tonumber(ARGV[3])
local tenants, accounts, counters = {}, {}, {}
for index = 1, count do
  tenants[ARGV[3 + index]] = true
  accounts[index] = redis.call('HGETALL', KEYS[3 + index])
end
for index = 4 + count, #KEYS do counters[#counters + 1] = look_at(KEYS[index]) end
return { 'cut', digits(now_ms()), digits(bucket.epoch), last_entry(), holds_of(tenants), accounts, counters }
