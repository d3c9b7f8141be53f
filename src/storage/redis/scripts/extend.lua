#!lua flags=allow-oom
-- include: bucket, pairs, kinds, rates, meters, shares, account, reserve, plan, holds
--
-- Renews leases, keeps checkpoints, and raises holds to new totals; each request apart, in their order.
--
-- KEYS  1 bucket, 2 leases; then for each request its account, its hold, and the counter of each of its rules
-- ARGV  3 number of requests; then for each of them its id, tenant, counters, tokens, amount, lease in ms, checkpoint, and context (empty:
--       what was there stays)
-- Gives for each request {extended, receipt}, {lapsed}, {refused, rule number, {used, held, end}, needed, time},
--       {short, available, held, needed}, {keys, counters} where KEYS are not the counters of a hold that grows, or {unreadable, why};
--       {closed} for all of them.
-- States: H → H. Runs when memory is full: it adds nothing but what open holds need. O(requests × (rules + walked grants)).

local REQUEST_FIELDS = 8
-- So often the counters of a long hold are kept alive.
local KEEP_EVERY_MS = 600000
local now = now_ms()

local function read_request(first_key, at)
  local request = {
    account = KEYS[first_key], key = KEYS[first_key + 1], first_counter = first_key + 2, id = ARGV[at], tenant = ARGV[at + 1],
    counters = ARGV[at + 2], tokens = tonumber(ARGV[at + 3]), amount = pair_of(ARGV[at + 4]), lease_ms = tonumber(ARGV[at + 5]),
    checkpoint = ARGV[at + 6], context = ARGV[at + 7],
  }
  return request, first_key + 2 + count_of(request.counters), at + REQUEST_FIELDS
end

-- How much more of a limit the new totals need, in its kind's own measure.
local function more_of(kind, hold, tokens, amount)
  return need_of(kind, tokens, amount) - need_of(kind, hold.tokens, hold.amount)
end

local function window_of_share(key, ends)
  local suffix = suffix_of(key, ends)
  if not suffix then return ZERO, ZERO end
  local found = call('HMGET', key, 'u' .. suffix, 'h' .. suffix)
  return pair_of(found[1]), pair_of(found[2])
end

-- A share counts in the window of its admission. An answer that is running is not cut for a rate, which refills by itself.
local function lack_of(request, hold, tokens, amount)
  local index = 0
  for limit in string.gmatch(hold.limits, '%d+') do
    index = index + 1
    local kind = kind_at(hold.counters, index)
    local more = IS_METER[kind] and more_of(kind, hold, tokens, amount)
    if more and more ~= ZERO then
      local used, held = window_of_share(KEYS[request.first_counter + index - 1], hold.ends[index])
      if used + held + more > pair_of(limit) then
        return { 'refused', index, { text_of(used), text_of(held), hold.ends[index] }, text_of(more), now }
      end
    end
  end
  return nil
end

local function grow_meter(key, ends, had_nothing, more)
  local suffix = suffix_of(key, ends)
  if not suffix then return end
  if had_nothing then unhold_units(key, suffix, ZERO) end
  hold_units(key, suffix, more)
end

local function grow_shares(request, hold, tokens, amount)
  for index = 1, count_of(hold.counters) do
    local key, kind = KEYS[request.first_counter + index - 1], kind_at(hold.counters, index)
    local more = more_of(kind, hold, tokens, amount)
    if IS_RATE[kind] then change_rate(key, more, now)
    elseif IS_METER[kind] and more ~= ZERO then
      grow_meter(key, hold.ends[index], need_of(kind, hold.tokens, hold.amount) == ZERO, more)
    end
  end
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
  if hold.counters ~= request.counters then return { 'keys', hold.counters } end
  local lack = lack_of(request, hold, tokens, amount)
  if lack then return lack end
  local account = read_account(request.account, now)
  local need = {
    model = cjson.decode(hold.fixed).model, tokens = tokens, minimum_tokens = tokens, amount = amount, minimum = amount,
    line = pair_of(hold.line), already = hold.parts,
  }
  local planned, added = plan(account, need, now)
  if not planned then
    return { 'short', text_of(added), text_of(held_money(account)), text_of(amount - money_of(hold.parts)) }
  end
  grow_shares(request, hold, tokens, amount)
  reserve(request.account, added)
  join_parts(hold.parts, added)
  hold.tokens, hold.amount = tokens, amount
  return nil
end

local function renew(request, hold)
  hold.expires_at = math.max(hold.expires_at, now + request.lease_ms)
  call('ZADD', KEYS[2], digits(hold.expires_at), lease_of(request.id, request.tenant))
  if now - hold.at < KEEP_EVERY_MS or hold.counters ~= request.counters then return end
  hold.at = now
  for index = 1, count_of(hold.counters) do
    call('PEXPIRE', KEYS[request.first_counter + index - 1], digits(KEEP_RATE_MS + request.lease_ms), 'GT')
  end
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
  return refused or { 'extended', receipt_of(hold) }
end

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
local results, key_at, arg_at = {}, 3, 4
for index = 1, tonumber(ARGV[3]) do
  local request
  request, key_at, arg_at = read_request(key_at, arg_at)
  results[index] = extend(request)
end
return results
