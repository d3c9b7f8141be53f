-- A tenant's money and quota: one hash. seq is the number of the last credit applied, cu and ch what the credit line has paid and holds,
-- d what used-up money grants are overdrawn by, n the open holds. A grant has b:<id> its balance, r:<id> what of it is reserved, t:<id> its
-- terms (JSON, for readers), and, if it is for some models or has weights, x:<id>.
-- w lists the grants that an admission walks, in burn order, each {id, unit, priority, expires_at, created_at, special}: those that have
-- something left or reserved. One that is used up leaves the list with the charge that empties it, one that has expired with the first
-- admission after its expiry. Units are m nano-yuan, t tokens, r requests.

local CREDIT = 'credit'
-- More fields are read in several steps: Lua's stack has room for some thousands.
local FIELDS_PER_READ = 1000

local function read_fields(key, fields)
  if #fields == 0 then return {} end
  if #fields <= FIELDS_PER_READ then return call('HMGET', key, unpack(fields)) end
  local found = {}
  for first = 1, #fields, FIELDS_PER_READ do
    local slice = call('HMGET', key, unpack(fields, first, math.min(#fields, first + FIELDS_PER_READ - 1)))
    for index = 1, #slice do found[first + index - 1] = slice[index] end
  end
  return found
end

local function walk_of(text)
  return text and cmsgpack.unpack(text) or {}
end

local function write_walk(key, walk)
  if #walk == 0 then call('HDEL', key, 'w') else call('HSET', key, 'w', cmsgpack.pack(walk)) end
end
