#!lua
-- include: bucket, pairs, kinds, rates, meters, account, reserve, plan, holds
--
-- Admits one request: every limit at once, or nothing.
--
-- KEYS  1 bucket, 2 blocked ids, 3 leases, 4 tenants, 5 account, 6 hold, 7… the counter of each rule
-- ARGV  3 id, 4 tenant, 5 what never changes of the receipt, 6 key, 7 model, 8 lease in ms, 9 tokens, 10 tokens that grants must cover,
--       11 the fewest of them, 12 amount, 13 the least amount, 14 credit line, 15 counters (see shares.lua), 16 their limits with spaces
--       between them, 17 context; then for each rule its limit, the end of its window (Unix ms; - without one, 5 for five hours, empty for
--       what is no meter) and of the next
-- Gives {held, rates, amount, parts, window ends}, {known, rates, receipt, state} for an id that has a hold,
--       {blocked, rates, 'key' | 'tenant'}, {refused, rates, rule number, figures} or {short, rates, available, held}, each with the time at
--       its end; {closed}. `rates` has {limit, level, time} of each rate in the order of the rules, after now; `figures` is the same of a
--       rate, what concurrency holds, or {used, held, end} of a meter.
-- States: none → H. Not run when memory is full. O(rules + walked grants).

local FIRST_RULE, RULE_FIELDS = 18, 3
local now = now_ms()
local tokens, amount, least = tonumber(ARGV[9]), pair_of(ARGV[12]), pair_of(ARGV[13])

-- `text` is what is stored of what is no meter.
local function read_rule(index, text)
  local at = FIRST_RULE + (index - 1) * RULE_FIELDS
  local rule = { key = KEYS[6 + index], kind = string.sub(ARGV[15], index, index), ends = '' }
  if IS_RATE[rule.kind] then
    rule.rate = rate_of(text)
    rule.limit = math.min(MAX_RATE, tonumber(ARGV[at]))
  elseif rule.kind == 'c' then
    rule.running = tonumber(text or 0)
    rule.limit = tonumber(ARGV[at])
  else
    rule.meter = read_meter(rule.key)
    rule.window = window_at(rule.meter, ARGV[at + 1], ARGV[at + 2], now)
    rule.ends = rule.window.ends
    rule.limit = pair_of(ARGV[at])
  end
  return rule
end

local function read_rules(texts)
  local rules = {}
  for index = 1, #KEYS - 6 do rules[index] = read_rule(index, texts[index + 1]) end
  return rules
end

-- What a rule that has no room has to say, or nil.
local function lack_of(rule)
  local need = need_of(rule.kind, tokens, least)
  local rate, window = rule.rate, rule.window
  if rate then return need * SCALE > level_at(rate, rule.limit, now) and { rate.limit, rate.level, rate.at } end
  if rule.running then return rule.running + need > rule.limit and digits(rule.running) end
  if window.used + window.held + need <= rule.limit then return nil end
  return { text_of(window.used), text_of(window.held), window.ends }
end

-- As much of the amount as every budget and money window has room for.
local function capped_by_budgets(rules)
  local cap = amount
  for index = 1, #rules do
    local rule = rules[index]
    if IS_AMOUNT[rule.kind] then
      local room = rule.limit - rule.window.used - rule.window.held
      cap = smaller(cap, room > ZERO and room or ZERO)
    end
  end
  return cap
end

local function answer(what, rules, ...)
  local rates = {}
  for index = 1, #rules do
    local rate = rules[index].rate
    if rate then rates[#rates + 1] = { rate.limit, rate.level, rate.at } end
  end
  local reply = { what, rates, ... }
  reply[#reply + 1] = now
  return reply
end

local function take(rule, taken)
  local need = need_of(rule.kind, tokens, taken)
  if rule.rate then
    move_rate(rule.rate, need, rule.limit, now)
    write_rate(rule.key, rule.rate, KEEP_RATE_MS + tonumber(ARGV[8]))
  elseif rule.running then call('INCRBY', rule.key, '1')
  else
    if rule.window.fresh then begin_window(rule.key, rule.meter, rule.ends, now) end
    hold_units(rule.key, '', need)
  end
end

local function open(epoch, account, rules, taken, parts)
  local ends = {}
  for index = 1, #rules do
    take(rules[index], taken)
    ends[index] = rules[index].ends
  end
  if not account.known then call('SADD', KEYS[4], ARGV[4]) end
  reserve(KEYS[5], parts)
  call('HINCRBY', KEYS[5], 'n', '1')
  local hold = {
    state = 'H', tenant = ARGV[4], fixed = ARGV[5], admitted_at = now, expires_at = now + tonumber(ARGV[8]), tokens = tokens, amount = taken,
    parts = parts, ends = ends, epoch = epoch, line = ARGV[14], counters = ARGV[15], limits = ARGV[16], at = now, context = ARGV[17],
    checkpoint = '',
  }
  write_open(KEYS[6], hold)
  call('ZADD', KEYS[3], digits(hold.expires_at), lease_of(ARGV[3], ARGV[4]))
  return answer('held', rules, text_of(taken), parts, ends)
end

local function admit(epoch, rules)
  local blocked = call('SMISMEMBER', KEYS[2], 'key:' .. ARGV[6], 'tenant:' .. ARGV[4])
  if blocked[1] == 1 then return answer('blocked', rules, 'key') end
  if blocked[2] == 1 then return answer('blocked', rules, 'tenant') end
  for index = 1, #rules do
    local lack = lack_of(rules[index])
    if lack then return answer('refused', rules, index, lack) end
  end
  local account = read_account(KEYS[5], now)
  local need = {
    model = ARGV[7], tokens = tonumber(ARGV[10]), minimum_tokens = tonumber(ARGV[11]), amount = capped_by_budgets(rules), minimum = least,
    line = pair_of(ARGV[14]), already = {},
  }
  local taken, parts = plan(account, need, now)
  if not taken then return answer('short', rules, text_of(parts), text_of(held_money(account))) end
  return open(epoch, account, rules, taken, parts)
end

local epoch, closed = open_epoch(KEYS[1])
if not epoch then return closed end
-- The hold and the counters in one read; those that are meters are none of these texts.
local texts = call('MGET', unpack(KEYS, 6))
local hold, unreadable = hold_of(texts[1], now)
if unreadable then return unreadable end
local rules = read_rules(texts)
if hold and hold.fixed then return answer('known', rules, receipt_of(hold), hold.state) end
return admit(epoch, rules)
