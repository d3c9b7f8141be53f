#!lua flags=allow-oom
-- include: pairs, bucket, counters, shares, account, plan, holds
--
-- Renews leases, keeps checkpoints, and raises holds to new totals; each request apart, in their order.
--
-- KEYS  1 bucket, 2 leases; then for each request its account, its hold, and the counter of each of its rules
-- ARGV  3 number of requests; then for each of them its id, tenant, tokens, amount, lease in ms, checkpoint, context (both may be empty:
--       what was there stays), and its number of counters
-- Gives for each request {extended, receipt}, {lapsed}, {refused, rule number, {used, held, end}, needed, now},
--       {short, available, held, needed}, {keys, names…} where KEYS are not the counters of a hold that grows, or {unreadable, why};
--       {closed} for all of them.
-- States: H → H. Runs when memory is full: it adds nothing but what open holds need. O(requests × (rules + walked grants)).

local REQUEST_FIELDS = 8
-- So often the counters of a long hold are kept alive.
local KEEP_EVERY_MS = 600000
local now = now_ms()

local function read_request(key_at, arg_at)
  local request = {
    account = KEYS[key_at], key = KEYS[key_at + 1], id = ARGV[arg_at], tenant = ARGV[arg_at + 1], tokens = tonumber(ARGV[arg_at + 2]),
    amount = pair_of(ARGV[arg_at + 3]), lease_ms = tonumber(ARGV[arg_at + 4]), checkpoint = ARGV[arg_at + 5], context = ARGV[arg_at + 6],
    counters = {},
  }
  local count = tonumber(ARGV[arg_at + 7])
  for index = 1, count do request.counters[index] = KEYS[key_at + 1 + index] end
  return request, key_at + 2 + count, arg_at + REQUEST_FIELDS
end

-- How much more of a share's limit the new totals need, in its kind's own measure.
local function more_of(share, hold, tokens, amount)
  local kind = kind_of(share[1])
  return need_of(kind, tokens, amount) - need_of(kind, hold.tokens, hold.amount)
end

local function window_of_share(key, share)
  local suffix = suffix_of(key, share[3])
  if not suffix then return { used = ZERO, held = ZERO } end
  local found = redis.call('HMGET', key, 'u' .. suffix, 'h' .. suffix)
  return { used = pair_of(found[1]), held = pair_of(found[2]) }
end

-- A share counts in the window of its admission. An answer that is running is not cut for a rate, which refills by itself.
local function lack_of(request, hold, tokens, amount)
  for index, share in ipairs(hold.shares) do
    if is_meter(kind_of(share[1])) then
      local more = more_of(share, hold, tokens, amount)
      local window = more ~= ZERO and window_of_share(request.counters[index], share)
      if window and window.used + window.held + more > pair_of(share[2]) then
        return { 'refused', index, { text_of(window.used), text_of(window.held), share[3] }, text_of(more), digits(now) }
      end
    end
  end
  return nil
end

local function grow_share(key, share, hold, tokens, amount)
  local kind = kind_of(share[1])
  local more = more_of(share, hold, tokens, amount)
  if IS_RATE[kind] then return change_rate(key, more, now) end
  if kind == 'c' or more == ZERO then return end
  local suffix = suffix_of(key, share[3])
  if not suffix then return end
  if need_of(kind, hold.tokens, hold.amount) == ZERO then unhold_units(key, suffix, ZERO) end
  hold_units(key, suffix, more)
end

-- What a grant reserves more joins the part that it has.
local function join_parts(parts, added)
  for _, more in ipairs(added) do
    local joined = false
    for _, part in ipairs(parts) do
      if part[1] == more[1] and part[2] == more[2] then
        part[3] = text_of(pair_of(part[3]) + pair_of(more[3]))
        joined = true
      end
    end
    if not joined then parts[#parts + 1] = more end
  end
end

-- Nothing, or the reply to refuse with.
local function grow(request, hold, tokens, amount)
  local refused = missing_keys(hold.shares, request.counters) or lack_of(request, hold, tokens, amount)
  if refused then return refused end
  local account = read_account(request.account, now)
  local need = {
    model = hold.model, tokens = tokens, minimum_tokens = tokens, amount = amount, minimum = amount, line = pair_of(hold.line),
    already = hold.parts,
  }
  local planned, added = plan(account, need, now)
  if not planned then
    return { 'short', text_of(added), text_of(held_money(account)), text_of(amount - money_of(hold.parts)) }
  end
  for index, share in ipairs(hold.shares) do grow_share(request.counters[index], share, hold, tokens, amount) end
  reserve(request.account, added)
  join_parts(hold.parts, added)
  hold.receipt[7], hold.receipt[8] = tokens, text_of(amount)
  return nil
end

local function renew(request, hold)
  local expires_at = math.max(hold.expires_at, now + request.lease_ms)
  hold.receipt[6] = expires_at
  redis.call('ZADD', KEYS[2], digits(expires_at), lease_of(request.id, request.tenant))
  if now - hold.at < KEEP_EVERY_MS or missing_keys(hold.shares, request.counters) then return end
  hold.at = now
  for _, key in ipairs(request.counters) do redis.call('PEXPIRE', key, digits(KEEP_MS + request.lease_ms), 'GT') end
end

local function keep(request, hold)
  if request.checkpoint ~= '' then hold.checkpoint = request.checkpoint end
  if request.context ~= '' then hold.context = request.context end
  write_open(request.key, hold)
end

local function extend(request)
  local hold, unreadable = read_hold(request.key, now)
  if unreadable then return { 'unreadable', unreadable.err } end
  if not hold or hold.state ~= 'H' or hold.tenant ~= request.tenant then return { 'lapsed' } end
  local tokens = math.max(hold.tokens, request.tokens)
  local amount = request.amount > hold.amount and request.amount or hold.amount
  -- A renewal asks for nothing, so nothing can refuse it: a capped hold covers less than its totals, and may go on with that.
  local grows = tokens > hold.tokens or amount > hold.amount
  local refused = grows and grow(request, hold, tokens, amount)
  if refused and refused[1] == 'keys' then return refused end
  if not refused then renew(request, hold) end
  keep(request, hold)
  return refused or { 'extended', hold.receipt }
end

local bucket, closed = open_bucket(KEYS[1])
if not bucket then return closed end
local results, key_at, arg_at = {}, 3, 4
for index = 1, tonumber(ARGV[3]) do
  local request
  request, key_at, arg_at = read_request(key_at, arg_at)
  results[index] = extend(request)
end
return results
