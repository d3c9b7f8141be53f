#!lua flags=no-writes
-- include: bucket, look
--
-- One moment of a bucket: balances and open holds of some tenants, where some limits stand, and how far the usage stream has come.
--
-- KEYS  1 bucket, 2 leases, 3 usage stream; then the account of each tenant; then counters
-- ARGV  3 the kind of each counter, one letter each, 4 number of tenants, then their ids
-- Gives {cut, now, epoch, id of the stream's last entry or empty, {ids of holds}, {{field, value…} of each account}, {counters}}; {closed}.
-- O(holds of the bucket + grants of the tenants + counters).

local function last_entry()
  if call('EXISTS', KEYS[3]) == 0 then return '' end
  local info = call('XINFO', 'STREAM', KEYS[3])
  for index = 1, #info, 2 do
    if info[index] == 'last-generated-id' then return info[index + 1] end
  end
  return ''
end

local function holds_of(tenants)
  local ids = {}
  for _, lease in ipairs(call('ZRANGE', KEYS[2], '0', '-1')) do
    local id, tenant = string.match(lease, '^(.-)\n(.*)$')
    if tenants[tenant] then ids[#ids + 1] = id end
  end
  return ids
end

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local count = tonumber(ARGV[4])
local tenants, accounts, counters = {}, {}, {}
for index = 1, count do
  tenants[ARGV[4 + index]] = true
  accounts[index] = call('HGETALL', KEYS[3 + index])
end
for index = 4 + count, #KEYS do
  local at = index - 3 - count
  counters[at] = look_at(KEYS[index], string.sub(ARGV[3], at, at))
end
return { 'cut', now_ms(), epoch, last_entry(), holds_of(tenants), accounts, counters }
