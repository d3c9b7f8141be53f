-- Holds: one string per request, in MessagePack. All of them begin with version, state, tenant, fixed, time of admission, end of the lease,
-- tokens, amount, parts and window ends: the receipt. `fixed` is the caller's own text for what never changes. Then comes, by the state,
--   H held     epoch, credit line, counters, their limits, when they were last kept alive, context, checkpoint
--   X swept    the same, but for the time at which it was marked: its lease has ended, and its charge is awaited
--   S settled  time to forget it, epoch or false where nothing was charged, appended, replaced, ref of the event whose charge stands or false
--   W settled by a sweep  the same, counters, and the charge {tokens, amount, parts, released}: a late settle may still replace it
--   F foreign  as S, without a receipt: it was admitted elsewhere
-- Leases are one sorted set per bucket: `id, line feed, tenant` by the time at which a sweep is due.

local HOLD_VERSION = 1

local function open_hold(hold, epoch, line, counters, limits, at, context, checkpoint)
  hold.epoch, hold.line, hold.counters, hold.limits = epoch, line, counters, limits
  hold.at, hold.context, hold.checkpoint = at, context, checkpoint
  return hold
end

local function closed_hold(hold, forget_at, epoch, appended, replaced, ref, counters, charge)
  hold.forget_at, hold.epoch, hold.appended, hold.replaced, hold.ref, hold.counters = forget_at, epoch, appended, replaced, ref, counters
  if charge then hold.charge = { tokens = charge[1], amount = pair_of(charge[2]), parts = charge[3], released = charge[4] } end
  return hold
end

local function is_open(hold)
  return hold.state == 'H' or hold.state == 'X'
end

local function hold_from(version, state, tenant, fixed, admitted_at, expires_at, tokens, amount, parts, ends, ...)
  if version ~= HOLD_VERSION then return nil, unknown_version('hold', version) end
  local hold = {
    state = state, tenant = tenant, fixed = fixed, admitted_at = admitted_at, expires_at = expires_at, tokens = tokens,
    amount = pair_of(amount), parts = parts, ends = ends,
  }
  return is_open(hold) and open_hold(hold, ...) or closed_hold(hold, ...)
end

-- The hold, or nil where there is none; then perhaps the reply to refuse with.
local function hold_of(text, now)
  if not text then return nil end
  local hold, unreadable = hold_from(cmsgpack.unpack(text))
  if hold and hold.forget_at and hold.forget_at <= now then return nil end
  return hold, unreadable
end

local function read_hold(key, now)
  return hold_of(call('GET', key), now)
end

-- A receipt as callers read it.
local function receipt_of(hold)
  return { hold.tenant, hold.fixed, hold.admitted_at, hold.expires_at, hold.tokens, text_of(hold.amount), hold.parts, hold.ends }
end

local function write_open(key, hold)
  call('SET', key, cmsgpack.pack(
    HOLD_VERSION, hold.state, hold.tenant, hold.fixed, hold.admitted_at, hold.expires_at, hold.tokens, text_of(hold.amount), hold.parts,
    hold.ends, hold.epoch, hold.line, hold.counters, hold.limits, hold.at, hold.context, hold.checkpoint
  ))
end

local function lease_of(id, tenant)
  return id .. '\n' .. tenant
end
