-- Counters as readers see them: {limit, level, time} of a rate, the text of concurrency, {end, used, held} of a meter; false where nobody has
-- used it.

local function look_at(key, kind)
  if kind == 'c' then return call('GET', key) end
  if kind ~= 'r' and kind ~= 't' then return call('HMGET', key, 'e', 'u', 'h') end
  local text = call('GET', key)
  return text and { cmsgpack.unpack(text) }
end
