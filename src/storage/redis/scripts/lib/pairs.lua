-- Exact whole numbers of up to 64 bits. Numbers of Lua are doubles, to which 9007199254740993 and 9007199254740992 are the same, so an
-- amount is a pair: {high, low} is high * 10^9 + low, where low is from 0 to 999999999. Pairs add, subtract and compare as numbers do;
-- as text they are decimal. They never change, so that zero can be shared. Lua compares, Redis adds: what is stored changes by HINCRBY.

local BILLION = 1000000000
-- So many characters are a number that a double holds exactly.
local SHORT_CHARACTERS = 15
local Pair = {}

local function new_pair(high, low)
  return setmetatable({ high, low }, Pair)
end

local ZERO = new_pair(0, 0)
local ONE = new_pair(0, 1)

Pair.__add = function(a, b)
  if b[1] == 0 and b[2] == 0 then return a end
  local low = a[2] + b[2]
  if low >= BILLION then return new_pair(a[1] + b[1] + 1, low - BILLION) end
  return new_pair(a[1] + b[1], low)
end

Pair.__sub = function(a, b)
  if b[1] == 0 and b[2] == 0 then return a end
  local low = a[2] - b[2]
  if low < 0 then return new_pair(a[1] - b[1] - 1, low + BILLION) end
  return new_pair(a[1] - b[1], low)
end

Pair.__eq = function(a, b) return a[1] == b[1] and a[2] == b[2] end
Pair.__lt = function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end
Pair.__le = function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] <= b[2]) end

-- The pair of a whole number below 2^53.
local function pair_of_number(number)
  local low = number % BILLION
  return new_pair((number - low) / BILLION, low)
end

-- The number of a pair whose size is below 2^53.
local function number_of(pair)
  return pair[1] * BILLION + pair[2]
end

-- Reads a decimal whole number; what is absent is zero.
local function pair_of(text)
  if not text or text == '0' then return ZERO end
  if #text <= SHORT_CHARACTERS then return pair_of_number(tonumber(text)) end
  if string.byte(text) == 45 then return ZERO - pair_of(string.sub(text, 2)) end
  return new_pair(tonumber(string.sub(text, 1, -10)), tonumber(string.sub(text, -9)))
end

local function text_of(pair)
  local high, low = pair[1], pair[2]
  if high == 0 then return format('%d', low) end
  if high > 0 then return format('%d%09d', high, low) end
  if low > 0 then high, low = high + 1, BILLION - low end
  if high == 0 then return format('-%d', low) end
  return format('%d%09d', high, low)
end

local function smaller(a, b)
  if a < b then return a end
  return b
end
