import { createCipheriv, createDecipheriv, createHash } from 'node:crypto'
import type { RandomBytes } from './ids.ts'

const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
const VERSION = 'v1'

/** What wraps the data keys of sealed secrets. Never stored beside them, never logged. */
export interface MasterKey {
  /** Tells which key it was, and nothing of it. */
  readonly id: string
  readonly bytes: Buffer
}

/** The key in force, and those that may still have wrapped something. */
export interface MasterKeys {
  readonly current: MasterKey
  readonly all: readonly MasterKey[]
}

/** A sealed secret that cannot be opened. Says why, and nothing of what it holds. */
export class SealBroken extends Error {
  override name = 'SealBroken'
}

/** @param text 32 bytes in hex or base64, white space around them left out @throws Error when it is something else */
export function masterKeyFrom(text: string): MasterKey {
  const written = text.trim()
  const bytes = /^[0-9a-fA-F]{64}$/.test(written) ? Buffer.from(written, 'hex') : Buffer.from(written, 'base64')
  const is_base64 = /^[A-Za-z0-9+/_-]{43}=?$/.test(written)
  if (bytes.length !== KEY_BYTES || !(is_base64 || written.length === 2 * KEY_BYTES)) {
    throw new Error('is not a master key: write 32 random bytes in base64 or hex, such as from "openssl rand -base64 32"')
  }
  return { id: createHash('sha256').update('weir master key\n').update(bytes).digest('hex').slice(0, 16), bytes }
}

/**
 * Seals a secret with AES-256-GCM under a data key of its own, which the master key wraps in the same way: another master key needs only
 * to wrap the data key again.
 *
 * @param bound what the secret belongs to; it opens for nothing else
 * @returns `v1.<master key>.<wrapped data key>.<sealed secret>`
 */
export function sealSecret(secret: string, bound: readonly string[], master: MasterKey, random: RandomBytes): string {
  const data_key = Buffer.from(random(KEY_BYTES))
  const wrapped = encrypt(data_key, master.bytes, wrapContext(master.id, bound), random)
  const sealed = encrypt(Buffer.from(secret), data_key, secretContext(bound), random)
  data_key.fill(0)
  return [VERSION, master.id, wrapped, sealed].join('.')
}

/** @throws SealBroken when the master key is not at hand, or the text was changed or belongs to something else */
export function openSecret(text: string, bound: readonly string[], masters: MasterKeys): string {
  const { data_key, sealed } = unwrap(text, bound, masters)
  const secret = decrypt(sealed, data_key, secretContext(bound)).toString()
  data_key.fill(0)
  return secret
}

/** The same secret wrapped by the current master key; null if it is already. @throws SealBroken as {@link openSecret} */
export function rewrapSecret(text: string, bound: readonly string[], masters: MasterKeys, random: RandomBytes): string | null {
  const { current } = masters
  if (partsOf(text).master === current.id) return null
  const { data_key, sealed } = unwrap(text, bound, masters)
  const wrapped = encrypt(data_key, current.bytes, wrapContext(current.id, bound), random)
  data_key.fill(0)
  return [VERSION, current.id, wrapped, sealed].join('.')
}

function unwrap(text: string, bound: readonly string[], { all }: MasterKeys): { readonly data_key: Buffer; readonly sealed: string } {
  const { master: id, wrapped, sealed } = partsOf(text)
  const master = all.find((known) => known.id === id)
  if (master === undefined) throw new SealBroken(`is sealed under the master key ${id}, which is not at hand`)
  return { data_key: decrypt(wrapped, master.bytes, wrapContext(id, bound)), sealed }
}

function partsOf(text: string): { readonly master: string; readonly wrapped: string; readonly sealed: string } {
  const [version, master, wrapped, sealed, ...more] = text.split('.')
  const whole = version === VERSION && more.length === 0 && master !== undefined && wrapped !== undefined && sealed !== undefined
  if (!whole) throw new SealBroken('is not sealed in a form that this release knows')
  return { master, wrapped, sealed }
}

const wrapContext = (master: string, bound: readonly string[]): Buffer =>
  Buffer.from(JSON.stringify(['weir data key v1', master, ...bound]))
const secretContext = (bound: readonly string[]): Buffer => Buffer.from(JSON.stringify(['weir secret v1', ...bound]))

/** Nonce, tag and text, base64url. */
function encrypt(plain: Buffer, key: Buffer, context: Buffer, random: RandomBytes): string {
  const nonce = Buffer.from(random(NONCE_BYTES))
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES }).setAAD(context)
  const text = Buffer.concat([cipher.update(plain), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), text]).toString('base64url')
}

function decrypt(packed: string, key: Buffer, context: Buffer): Buffer {
  const bytes = Buffer.from(packed, 'base64url')
  if (bytes.length < NONCE_BYTES + TAG_BYTES) throw new SealBroken('is cut short')
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
  decipher.setAAD(context).setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES))
  try {
    return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()])
  } catch (cause) {
    throw new SealBroken('was changed, or belongs to something else', { cause })
  }
}
