-- Counters as readers see them: the text of a rate or of concurrency, or {end, used, held} of a meter; false where nobody has used it.

local function look_at(key)
  local kind = string.match(key, '}:c:(.)')
  if kind == 'r' or kind == 't' or kind == 'c' then return redis.call('GET', key) end
  return redis.call('HMGET', key, 'e', 'u', 'h')
end
