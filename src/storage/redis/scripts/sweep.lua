#!lua flags=allow-oom
-- include: bucket, pairs, holds
--
-- Marks holds whose lease has ended, so that they can be closed by whoever gets them.
--
-- KEYS  1 bucket, 2 leases, 3… holds
-- ARGV  3 Unix ms that leases must have ended before, or empty: now; 4 '1' to give marked ones again that nobody has closed in 60 s;
--       then the lease of each hold (`id, line feed, tenant`)
-- Gives for each hold that is swept {lease, receipt, context, checkpoint, counters}; {closed}.
-- States: H → X. O(holds).

local OFFER_AGAIN_MS = 60000
local now = now_ms()
local before = math.min(now, tonumber(ARGV[3]) or math.huge)

local function is_due(hold)
  if hold.state == 'H' then return hold.expires_at < before end
  return ARGV[4] == '1' and hold.at + OFFER_AGAIN_MS <= now
end

local function mark(key, lease, hold)
  hold.state, hold.at = 'X', now
  write_open(key, hold)
  call('ZADD', KEYS[2], digits(now + OFFER_AGAIN_MS), lease)
  return { lease, receipt_of(hold), hold.context, hold.checkpoint, hold.counters }
end

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local swept = {}
for index = 3, #KEYS do
  local lease = ARGV[index + 2]
  local hold, unreadable = read_hold(KEYS[index], now)
  if unreadable then return unreadable end
  if not hold or not is_open(hold) then call('ZREM', KEYS[2], lease)
  elseif is_due(hold) then swept[#swept + 1] = mark(KEYS[index], lease, hold) end
end
return swept
