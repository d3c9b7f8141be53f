-- Holds: one string per request, in MessagePack, beginning with the version and the state:
--   H held      {receipt, epoch, line, shares, kept_at, context, checkpoint}: open; kept_at is when its counters were last kept alive
--   X swept     the same, but marked_at in the place of kept_at: its lease has ended, and its charge is awaited
--   S settled   {receipt, until, epoch, appended, replaced}: closed; epoch is absent where nothing was charged
--   W settled by a sweep  the same, and {shares, charge}: a late settle may still replace the charge, {tokens, amount, parts, released}
--   F foreign   {until, epoch, appended, replaced}: settled, but admitted elsewhere, so that there is no receipt
-- S, W and F are tombstones: they are forgotten at `until`. A receipt is {tenant, project, key, model, admitted_at, expires_at, tokens,
-- amount, parts, begun}, where begun is {limit, time, limit, time ...} or false.
-- Leases are one sorted set per bucket: `id, line feed, tenant` by the time at which a sweep is due.

local HOLD_VERSION = 1
-- Closed holds are remembered so long; those whose event was not appended for as long as it may take to post it from a journal.
local REMEMBERED_MS = 900000
local REMEMBERED_UNPOSTED_MS = 86400000

local function open_hold(state, receipt, epoch, line, shares, at, context, checkpoint)
  return {
    state = state, receipt = receipt, tenant = receipt[1], model = receipt[4], expires_at = receipt[6], tokens = receipt[7],
    amount = pair_of(receipt[8]), parts = receipt[9], epoch = epoch, line = line, shares = shares, at = at, context = context,
    checkpoint = checkpoint,
  }
end

local function closed_hold(state, receipt, forget_at, epoch, appended, replaced, shares, charge)
  return {
    state = state, receipt = receipt, tenant = receipt and receipt[1], until_ms = forget_at, epoch = epoch, appended = appended,
    replaced = replaced, shares = shares,
    charge = charge and { tokens = charge[1], amount = pair_of(charge[2]), parts = charge[3], released = charge[4] },
  }
end

-- The hold, or nil where there is none; then perhaps the reply to refuse with.
local function read_hold(key, now)
  local text = redis.call('GET', key)
  if not text then return nil end
  local version, state, receipt, a, b, c, d, e, f = cmsgpack.unpack(text)
  if version ~= HOLD_VERSION then return nil, unknown_version('hold', version) end
  if state == 'H' or state == 'X' then return open_hold(state, receipt, a, b, c, d, e, f) end
  local hold = closed_hold(state, receipt, a, b, c, d, e, f)
  if hold.until_ms <= now then return nil end
  return hold
end

local function is_open(hold)
  return hold.state == 'H' or hold.state == 'X'
end

local function write_open(key, hold)
  redis.call('SET', key, cmsgpack.pack(
    HOLD_VERSION, hold.state, hold.receipt, hold.epoch, hold.line, hold.shares, hold.at, hold.context, hold.checkpoint
  ))
end

-- Writes a tombstone. What it does not need any more is forgotten with the open hold. `stone`: state, receipt, epoch (false: nothing was
-- charged), appended, replaced, and of a sweep's shares and charge.
local function write_closed(key, stone, now, remembered_ms)
  redis.call('SET', key, cmsgpack.pack(
    HOLD_VERSION, stone.state, stone.receipt, now + remembered_ms, stone.epoch, stone.appended, stone.replaced, stone.shares, stone.charge
  ), 'PX', digits(remembered_ms))
end

local function lease_of(id, tenant)
  return id .. '\n' .. tenant
end
