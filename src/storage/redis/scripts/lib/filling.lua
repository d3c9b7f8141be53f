-- Whether a bucket is being filled in this epoch, or nil and the reply to give.
local function filling_bucket(key, epoch)
  local found = call('HMGET', key, 'v', 'state', 'epoch')
  if found[1] and found[1] ~= '1' then return nil, unknown_version('bucket', found[1]) end
  if found[2] ~= 'filling' or found[3] ~= epoch then return nil, { 'refused' } end
  return true
end
