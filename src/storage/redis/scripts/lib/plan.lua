-- Who pays: walks a tenant's grants in burn order, past those that do not pay for the model. Changes nothing.
-- A part is {grant, unit, amount, weight}; its weight, in millionths of a unit per token, is absent where it is one.

local WEIGHT_ONE = 1000000
-- With weights up to 100, products of tokens and weights stay below 2^53.
local MAX_GRANT_TOKENS = 80000000

local function quotient(dividend, divisor)
  return (dividend - math.fmod(dividend, divisor)) / divisor
end

local function units_for(tokens, weight)
  if weight == WEIGHT_ONE then return tokens end
  return quotient(tokens * weight + 999999, WEIGHT_ONE)
end

local function tokens_covered(units, weight)
  if weight == WEIGHT_ONE then return units end
  return quotient(units * WEIGHT_ONE, weight)
end

local function money_of(parts)
  local sum = ZERO
  for index = 1, #parts do
    if parts[index][2] == 'm' then sum = sum + pair_of(parts[index][3]) end
  end
  return sum
end

local function tokens_of(parts)
  local tokens = 0
  for index = 1, #parts do
    local part = parts[index]
    if part[2] == 't' then tokens = tokens + tokens_covered(tonumber(part[3]), part[4] or WEIGHT_ONE) end
  end
  return tokens
end

local function has_request(parts)
  for index = 1, #parts do
    if parts[index][2] == 'r' then return true end
  end
  return false
end

-- The weight of a part that is held already stays what it was.
local function weight_for(grant, need)
  for _, part in ipairs(need.already) do
    if part[1] == grant.id and part[2] == 't' then return part[4] or WEIGHT_ONE end
  end
  return grant.weights and grant.weights[need.model] or WEIGHT_ONE
end

local function tokens_cover(walk, need)
  return need.tokens > 0 and walk.covered >= need.tokens
end

local function is_covered(walk, need)
  return tokens_cover(walk, need) or walk.money >= need.amount
end

-- What is missing, or all that is free, which may end in a part of a token.
local function take_tokens(walk, need, grant, free)
  local missing = math.min(need.tokens, MAX_GRANT_TOKENS) - walk.covered
  if missing <= 0 then return end
  local weight = weight_for(grant, need)
  local wanted = pair_of_number(units_for(missing, weight))
  local enough = free >= wanted
  walk.covered = walk.covered + (enough and missing or tokens_covered(number_of(free), weight))
  walk.added[#walk.added + 1] = { grant.id, 't', text_of(enough and wanted or free), weight ~= WEIGHT_ONE and weight or nil }
end

-- How much money a hold may have in total: what it has, and what is free for its model, the credit line included.
local function affordable(account, need, now)
  local free = own_money(account, need.model, now) + need.line
  return free > ZERO and free + money_of(need.already) or money_of(need.already)
end

local function target_of(walk, account, need, now)
  walk.target = walk.target or smaller(need.amount, affordable(account, need, now))
  return walk.target
end

local function take_money(walk, grant, free, target)
  local wanted = target - walk.money
  if wanted <= ZERO then return end
  local amount = smaller(free, wanted)
  walk.added[#walk.added + 1] = { grant.id, 'm', text_of(amount) }
  walk.money = walk.money + amount
end

local function token_parts(parts)
  local only = {}
  for _, part in ipairs(parts) do
    if part[2] == 't' then only[#only + 1] = part end
  end
  return only
end

-- Grants do not cover the whole: the credit line, or a capped answer, or nobody.
local function capped(walk, account, need, now)
  local target = target_of(walk, account, need, now)
  local by_tokens = need.minimum_tokens > 0 and walk.covered >= need.minimum_tokens
  if target >= need.minimum then
    if target > walk.money then walk.added[#walk.added + 1] = { CREDIT, 'm', text_of(target - walk.money) } end
    return by_tokens and need.amount or target, walk.added
  end
  if by_tokens then return need.amount, token_parts(walk.added) end
  return nil, affordable(account, need, now) - money_of(need.already)
end

-- `need`: model, tokens, minimum_tokens, amount, minimum, line, already (parts that are held).
-- Gives the amount that budgets hold and the parts to reserve, or nil and what is available.
local function plan(account, need, now)
  local walk = { added = {}, money = money_of(need.already), covered = tokens_of(need.already) }
  if has_request(need.already) or is_covered(walk, need) then return need.amount, {} end
  for index = 1, #account.grants do
    local grant = account.grants[index]
    local free = grant.free
    if free > ZERO and pays_for(grant, need.model) and not is_expired(grant, now) then
      if grant.unit == 'r' then
        if #need.already == 0 then return need.amount, { { grant.id, 'r', '1' } } end
      else
        if grant.unit == 't' then take_tokens(walk, need, grant, free)
        else take_money(walk, grant, free, target_of(walk, account, need, now)) end
        if is_covered(walk, need) then return need.amount, tokens_cover(walk, need) and token_parts(walk.added) or walk.added end
      end
    end
  end
  return capped(walk, account, need, now)
end
