-- Terms of grants, and their places in the walk.

local UNIT_OF = { nano_cny = 'm', tokens = 't', requests = 'r' }
local UNIT_NAMES = { m = 'nano_cny', t = 'tokens', r = 'requests' }

local function unknown_terms(id, unit)
  return '{"id":' .. cjson.encode(id) .. ',"tenant":"","unit":"' .. UNIT_NAMES[unit] ..
    '","priority":9007199254740991,"expires_at":null,"created_at":0,"models":null,"weights":null}'
end

-- A grant that was charged without ever having been credited here.
local function write_unknown(key, id, unit)
  call('HSET', key, 't:' .. id, unknown_terms(id, unit), 'b:' .. id, '0')
end

local function some(value)
  return value ~= cjson.null and value or false
end

-- `extra` is {"models": {model: true…} or null, "weights": {model: millionths…} or null}, or empty for a grant that pays for all alike.
local function write_terms(key, id, json, extra)
  call('HSET', key, 't:' .. id, json)
  call('HSETNX', key, 'b:' .. id, '0')
  if extra == '' then return call('HDEL', key, 'x:' .. id) end
  local special = cjson.decode(extra)
  call('HSET', key, 'x:' .. id, cmsgpack.pack({ models = some(special.models), weights = some(special.weights) }))
end

-- A grant's entry in the walk, from the JSON of its terms.
local function entry_of(json)
  local terms = cjson.decode(json)
  local special = some(terms.models) ~= false or some(terms.weights) ~= false
  return { terms.id, UNIT_OF[terms.unit], terms.priority, some(terms.expires_at), terms.created_at, special }
end

-- In the order of bytes: the server's locale must not decide.
local function comes_before(a, b)
  for index = 1, math.min(#a, #b) do
    local of_a, of_b = string.byte(a, index), string.byte(b, index)
    if of_a ~= of_b then return of_a < of_b end
  end
  return #a < #b
end

-- Priority, then soonest expiry, then age, then id.
local function burns_before(a, b)
  if a[3] ~= b[3] then return a[3] < b[3] end
  local of_a, of_b = a[4] or math.huge, b[4] or math.huge
  if of_a ~= of_b then return of_a < of_b end
  if a[5] ~= b[5] then return a[5] < b[5] end
  return comes_before(a[1], b[1])
end

local function insert_entry(walk, entry)
  local at = #walk + 1
  while at > 1 and burns_before(entry, walk[at - 1]) do at = at - 1 end
  table.insert(walk, at, entry)
end

-- Takes a grant off the walk or puts it in its place, by its terms of now.
local function move_grant(key, id, is_walked)
  local walk = {}
  for _, entry in ipairs(walk_of(call('HGET', key, 'w'))) do
    if entry[1] ~= id then walk[#walk + 1] = entry end
  end
  if is_walked then insert_entry(walk, entry_of(call('HGET', key, 't:' .. id))) end
  write_walk(key, walk)
end
