#!lua
-- include: pairs, bucket, counters, account, plan, holds
--
-- Admits one request: every limit at once, or nothing.
--
-- KEYS  1 bucket, 2 blocked ids, 3 leases, 4 tenants, 5 account, 6 hold, 7… the counter of each rule
-- ARGV  3 id, 4 tenant, 5 project, 6 key, 7 model, 8 lease in ms, 9 tokens, 10 tokens that grants must cover, 11 the fewest of them,
--       12 amount, 13 the least amount, 14 credit line, 15 context; then for each rule its counter's name, its limit, the end of its window
--       and of the next (Unix ms, or empty), and the name it has in `begun` (empty unless it is of five hours)
-- Gives {held, rates, receipt, window ends}, {known, rates, receipt, window ends, state} for an id that has a hold,
--       {blocked, rates, 'key' | 'tenant'}, {refused, rates, rule number, now, figures} or {short, rates, available, held}; {closed}.
--       `rates` has the text of each rate's counter in the order of the rules, after now; `figures` is a rate's text, what concurrency holds,
--       or {used, held, end} of a meter. The time comes last, whatever the answer.
-- States: none → H. Not run when memory is full. O(rules + walked grants).

local FIRST_RULE, RULE_FIELDS = 16, 5
local now = now_ms()
local tokens, amount, least = tonumber(ARGV[9]), pair_of(ARGV[12]), pair_of(ARGV[13])

local function read_rule(index)
  local at = FIRST_RULE + (index - 1) * RULE_FIELDS
  local rule = { key = KEYS[6 + index], name = ARGV[at], limit = ARGV[at + 1], ends = ARGV[at + 2], next_ends = ARGV[at + 3], begun = ARGV[at + 4] }
  rule.kind = kind_of(rule.name)
  if IS_RATE[rule.kind] then
    rule.rate = rate_of(redis.call('GET', rule.key))
    rule.limit = math.min(MAX_RATE, tonumber(rule.limit))
  elseif rule.kind == 'c' then
    rule.running = tonumber(redis.call('GET', rule.key) or 0)
    rule.limit = tonumber(rule.limit)
  else
    rule.meter = read_meter(rule.key)
    rule.window = window_at(rule.meter, rule, now)
    rule.limit = pair_of(rule.limit)
  end
  return rule
end

local function read_rules()
  local rules = {}
  for index = 1, #KEYS - 6 do rules[index] = read_rule(index) end
  return rules
end

-- What a rule that has no room has to say, or nil.
local function lack_of(rule)
  local need = need_of(rule.kind, tokens, least)
  if rule.rate then return need * SCALE > level_at(rule.rate, rule.limit, now) and rate_text(rule.rate) end
  if rule.running then return rule.running + need > rule.limit and digits(rule.running) end
  local window = rule.window
  if window.used + window.held + need <= rule.limit then return nil end
  return { text_of(window.used), text_of(window.held), window.ends }
end

-- As much of the amount as every budget and money window has room for.
local function capped_by_budgets(rules)
  local cap = amount
  for _, rule in ipairs(rules) do
    if IS_AMOUNT[rule.kind] then
      local room = rule.limit - rule.window.used - rule.window.held
      cap = smaller(cap, room > ZERO and room or ZERO)
    end
  end
  return cap
end

local function rates_of(rules)
  local rates = {}
  for _, rule in ipairs(rules) do
    if rule.rate then rates[#rates + 1] = rate_text(rule.rate) end
  end
  return rates
end

local function take(rule, taken)
  local need = need_of(rule.kind, tokens, taken)
  if rule.rate then
    move_rate(rule.rate, need, rule.limit, now)
    write_rate(rule.key, rule.rate, KEEP_MS + tonumber(ARGV[8]))
  elseif rule.running then redis.call('INCRBY', rule.key, need)
  else
    if rule.window.fresh then begin_window(rule.key, rule.meter, rule.window.ends, now) end
    hold_units(rule.key, '', need)
  end
end

local function begun_of(rules)
  local begun = {}
  for _, rule in ipairs(rules) do
    if rule.begun ~= '' then
      begun[#begun + 1] = rule.begun
      begun[#begun + 1] = tonumber(rule.window.ends) - FIVE_HOURS_MS
    end
  end
  return #begun > 0 and begun
end

local function shares_of(rules)
  local shares = {}
  for index, rule in ipairs(rules) do
    shares[index] = { rule.name, ARGV[FIRST_RULE + (index - 1) * RULE_FIELDS + 1], rule.window and rule.window.ends or '' }
  end
  return shares
end

local function ends_of(shares)
  local ends = {}
  for index, share in ipairs(shares) do ends[index] = share[3] end
  return ends
end

local function open(bucket, account, rules, taken, parts)
  for _, rule in ipairs(rules) do take(rule, taken) end
  if not account.known then redis.call('SADD', KEYS[4], ARGV[4]) end
  reserve(KEYS[5], parts)
  redis.call('HINCRBY', KEYS[5], 'n', 1)
  local expires_at = now + tonumber(ARGV[8])
  local receipt = { ARGV[4], ARGV[5], ARGV[6], ARGV[7], now, expires_at, tokens, text_of(taken), parts, begun_of(rules) }
  local shares = shares_of(rules)
  write_open(KEYS[6], {
    state = 'H', receipt = receipt, epoch = bucket.epoch, line = ARGV[14], shares = shares, at = now, context = ARGV[15], checkpoint = '',
  })
  redis.call('ZADD', KEYS[3], digits(expires_at), lease_of(ARGV[3], ARGV[4]))
  return { 'held', rates_of(rules), receipt, ends_of(shares), digits(now) }
end

local function admit(bucket, rules)
  local blocked = redis.call('SMISMEMBER', KEYS[2], 'key:' .. ARGV[6], 'tenant:' .. ARGV[4])
  if blocked[1] == 1 then return { 'blocked', rates_of(rules), 'key', digits(now) } end
  if blocked[2] == 1 then return { 'blocked', rates_of(rules), 'tenant', digits(now) } end
  for index, rule in ipairs(rules) do
    local lack = lack_of(rule)
    if lack then return { 'refused', rates_of(rules), index, lack, digits(now) } end
  end
  local account = read_account(KEYS[5], now)
  local taken, parts = plan(account, {
    model = ARGV[7], tokens = tonumber(ARGV[10]), minimum_tokens = tonumber(ARGV[11]), amount = capped_by_budgets(rules), minimum = least,
    line = pair_of(ARGV[14]), already = {},
  }, now)
  if not taken then return { 'short', rates_of(rules), text_of(parts), text_of(held_money(account)), digits(now) } end
  return open(bucket, account, rules, taken, parts)
end

local bucket, closed = open_bucket(KEYS[1])
if not bucket then return closed end
local hold, unreadable = read_hold(KEYS[6], now)
if unreadable then return unreadable end
local rules = read_rules()
if hold and hold.receipt then
  return { 'known', rates_of(rules), hold.receipt, ends_of(hold.shares or {}), hold.state, digits(now) }
end
return admit(bucket, rules)
