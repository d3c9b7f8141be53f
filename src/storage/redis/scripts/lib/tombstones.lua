-- Closed holds are remembered so long; those whose event was not appended for as long as it may take to post it from a journal.
local REMEMBERED_MS = 900000
local REMEMBERED_UNPOSTED_MS = 86400000

-- Writes what is left of a hold once it is closed: its receipt and `stone`, {state, epoch, appended, replaced, ref,
-- counters, charge}.
local function write_closed(key, hold, stone, now, remembered_ms)
  call('SET', key, cmsgpack.pack(
    HOLD_VERSION, stone.state, hold.tenant, hold.fixed, hold.admitted_at, hold.expires_at, hold.tokens, hold.amount and text_of(hold.amount),
    hold.parts, hold.ends, now + remembered_ms, stone.epoch, stone.appended, stone.replaced, stone.ref, stone.counters,
    stone.charge
  ), 'PX', digits(remembered_ms))
end
