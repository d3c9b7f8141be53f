#!lua flags=allow-oom
-- include: bucket, pairs, kinds, rates, shares, closing, account, grants, changes, holds, tombstones
--
-- Closes a hold with what its request used, once, and appends the event to the bucket's stream in the same step.
--
-- KEYS  1 bucket, 2 leases, 3 tenants, 4 account, 5 hold, 6 usage stream, 7… the counter of each rule
-- ARGV  3 id, 4 tenant, 5 counters, or empty where they are not known, 6 time of admission, 7 tokens, 8 amount, 9 who closes: empty, swept (the
--       sweeper, a hold that is marked) or orphan (whoever closes it for a process that has died, an open hold, marked or not),
--       10 event or empty, 11 its ref or empty, 12 the stream's cap, 13 number of parts, then their grant, unit and amount; then the number
--       of parts that this charge replaces, or -1, and those
-- Gives {state, epoch, appended, ref, replaced}: settled, late, duplicate or expired; the epoch of the charge or empty; 1 where the event is
--       in the stream; the ref of the event whose charge stands or empty; 1 where that charge replaced another.
--       {keys, counters} where KEYS are not the counters of the hold; {closed}.
-- States: H X → S, X → W by a sweep, H X → W of an orphan, W S F → S F by a charge that replaces another, none → F. O(rules + parts).

-- A settle of an unknown hold changes nothing when it is older: its tombstone may be gone.
local MAX_SETTLE_AGE_MS = 600000
local FIRST_COUNTER = 7
local now = now_ms()
-- Not by the process that had the hold: its own settle may come late, and then takes the place of this one.
local for_another = ARGV[9] ~= ''
local ref = ARGV[11] ~= '' and ARGV[11]

local function read_parts(at)
  local parts, count = {}, tonumber(ARGV[at])
  for index = 1, count do
    local first = at + (index - 1) * 3
    parts[index] = { ARGV[first + 1], ARGV[first + 2], ARGV[first + 3] }
  end
  return parts, at + 1 + #parts * 3
end

local parts, next_at = read_parts(13)
local used = { tokens = tonumber(ARGV[7]), amount = pair_of(ARGV[8]) }

local function same_payment(before)
  if before.tokens ~= used.tokens or before.amount ~= used.amount or #before.parts ~= #parts then return false end
  for index = 1, #parts do
    local part, other = parts[index], before.parts[index]
    if other[1] ~= part[1] or other[2] ~= part[2] or other[3] ~= part[3] then return false end
  end
  return true
end

-- Above its cap the stream takes no more events, but for some of those that nobody else would post.
local function append(epoch)
  if ARGV[10] == '' then return false end
  local cap = tonumber(ARGV[12]) * (for_another and 2 or 1)
  if call('XLEN', KEYS[6]) >= cap then return false end
  call('XADD', KEYS[6], '*', 'v', '1', 'event', ARGV[10], 'epoch', digits(epoch))
  return true
end

local function remembered_ms(appended)
  return ARGV[10] ~= '' and not appended and REMEMBERED_UNPOSTED_MS or REMEMBERED_MS
end

-- What is said of a charge: {epoch, appended, ref, replaced}, or of none.
local function outcome(state, of)
  return { state, of.epoch and digits(of.epoch) or '', of.appended and 1 or 0, of.ref or '', of.replaced and 1 or 0 }
end

local NONE = {}

local function close_open(epoch, hold)
  if hold.counters ~= ARGV[5] then return { 'keys', hold.counters } end
  local changes = new_changes()
  take_parts(changes, hold.parts, 'held')
  take_parts(changes, parts, 'balance')
  local refused = check_changes(KEYS[4], changes)
  if refused then return refused end
  write_changes(KEYS[4], changes)
  call('HINCRBY', KEYS[4], 'n', '-1')
  close_shares(FIRST_COUNTER, hold, used, now)
  call('ZREM', KEYS[2], lease_of(ARGV[3], ARGV[4]))
  local appended = append(epoch)
  local stone = { state = 'S', epoch = epoch, appended = appended, replaced = false, ref = ref }
  if for_another then stone.state, stone.counters, stone.charge = 'W', hold.counters, { used.tokens, ARGV[8], parts, false } end
  write_closed(KEYS[5], hold, stone, now, remembered_ms(appended))
  return outcome('settled', stone)
end

-- Another charge takes the place of one that was made: from here on no other may. Gives what is said of it, or nil and the reply to refuse with.
local function replace_charge(epoch, hold, before)
  local changes = new_changes()
  refund_parts(changes, before)
  take_parts(changes, parts, 'balance')
  local refused = check_changes(KEYS[4], changes)
  if refused then return nil, refused end
  write_changes(KEYS[4], changes)
  local stone = { state = hold.state == 'F' and 'F' or 'S', epoch = epoch, appended = false, replaced = true, ref = ref }
  write_closed(KEYS[5], hold, stone, now, remembered_ms(false))
  return stone
end

local function close_late(epoch, hold)
  if hold.counters ~= ARGV[5] then return { 'keys', hold.counters } end
  local stone, refused = replace_charge(epoch, hold, hold.charge.parts)
  if refused then return refused end
  recount_shares(FIRST_COUNTER, hold, hold.charge, used, now)
  return outcome('late', stone)
end

-- The bucket forgets no hold that was admitted since it was opened, so one of those that it does not know has been closed, or was lost
-- with its server.
local function charge_foreign(epoch)
  local admitted_at = tonumber(ARGV[6])
  if now - admitted_at > MAX_SETTLE_AGE_MS or admitted_at >= tonumber(call('HGET', KEYS[1], 'opened_at')) then
    return outcome('expired', NONE)
  end
  local changes = new_changes()
  take_parts(changes, parts, 'balance')
  local refused = check_changes(KEYS[4], changes)
  if refused then return refused end
  call('SADD', KEYS[3], ARGV[4])
  write_changes(KEYS[4], changes)
  local appended = append(epoch)
  local stone = { state = 'F', epoch = epoch, appended = appended, replaced = false, ref = ref }
  write_closed(KEYS[5], {}, stone, now, remembered_ms(appended))
  return outcome('settled', stone)
end

local function settle_closed(epoch, hold)
  if tonumber(ARGV[next_at]) >= 0 then
    if not hold or hold.state == 'W' or hold.replaced then return outcome('duplicate', hold or NONE) end
    local stone, refused = replace_charge(epoch, hold, read_parts(next_at))
    return refused or outcome('late', stone)
  end
  if not hold then return charge_foreign(epoch) end
  if hold.state == 'W' and not for_another and not same_payment(hold.charge) then return close_late(epoch, hold) end
  return outcome('duplicate', hold)
end

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local hold, unreadable = read_hold(KEYS[5], now)
if unreadable then return unreadable end
if hold and hold.tenant and hold.tenant ~= ARGV[4] then
  return redis.error_reply('WEIRTENANT a settle names another tenant than its hold')
end
if ARGV[9] == 'swept' and not (hold and hold.state == 'X') then
  -- An open hold has an epoch too: the one that it was made in.
  return outcome('duplicate', hold and not is_open(hold) and hold or NONE)
end
if hold and is_open(hold) then return close_open(epoch, hold) end
return settle_closed(epoch, hold)
