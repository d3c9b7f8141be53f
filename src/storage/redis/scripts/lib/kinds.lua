-- Kinds of limits, one letter each: r requests and t tokens per minute (rates), c concurrency, R requests, T tokens and A amount in a window,
-- B budget (meters).

local IS_RATE = { r = true, t = true }
local IS_METER = { R = true, T = true, A = true, B = true }
local IS_AMOUNT = { A = true, B = true }

-- What a request needs of a limit: a number for rates and concurrency, a pair for meters.
local function need_of(kind, tokens, amount)
  if kind == 't' then return tokens end
  if IS_AMOUNT[kind] then return amount end
  if kind == 'T' then return pair_of_number(tokens) end
  if kind == 'R' then return ONE end
  return 1
end
