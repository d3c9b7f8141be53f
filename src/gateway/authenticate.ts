import type { IncomingHttpHeaders } from 'node:http'
import { WeirError } from '../base/errors.ts'
import { hashKey } from '../base/ids.ts'
import type { Caller } from './call.ts'
import type { KeyTable } from './keys.ts'

/** Longest key accepted, so that a flood of junk is not hashed. */
const MAX_KEY_LENGTH = 512

/**
 * Who calls, from `Authorization: Bearer` or `x-api-key`. The key itself is hashed and forgotten.
 *
 * @throws WeirError `invalid_api_key`, `key_revoked`, `key_expired`, `tenant_suspended`
 */
export function authenticate(headers: IncomingHttpHeaders, keys: KeyTable, now_ms: number): Caller {
  const secret = presentedKey(headers)
  if (secret === null) throw new WeirError('invalid_api_key')
  const caller = keys.find(hashKey(secret))
  if (caller === null) throw new WeirError('invalid_api_key')
  if (caller.key.revoked_at !== null) throw new WeirError('key_revoked')
  if (caller.key.expires_at !== null && caller.key.expires_at <= now_ms) throw new WeirError('key_expired')
  if (caller.tenant.status === 'suspended') throw new WeirError('tenant_suspended')
  return caller
}

function presentedKey(headers: IncomingHttpHeaders): string | null {
  const bearer = /^Bearer\s+(\S+)\s*$/i.exec(headers.authorization ?? '')?.[1]
  const header = headers['x-api-key']
  const key = bearer ?? (typeof header === 'string' ? header.trim() : undefined)
  return key === undefined || key === '' || key.length > MAX_KEY_LENGTH ? null : key
}
