import { hash, randomBytes } from 'node:crypto'

/** Source of random bytes; `node:crypto` in production, a seeded one in tests. */
export type RandomBytes = (size: number) => Uint8Array

const POOL_BYTES = 4096

/** The same source, asked for many bytes at a time: a call to the system's costs more than everything else about an id. */
export function pooledRandom(random: RandomBytes): RandomBytes {
  let pool: Uint8Array = new Uint8Array(0)
  let used = 0
  return (size) => {
    if (size > POOL_BYTES) return random(size)
    if (used + size > pool.length) {
      pool = random(POOL_BYTES)
      used = 0
    }
    used += size
    return pool.subarray(used - size, used)
  }
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/**
 * A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then randomness, so that ids sort by time of creation.
 */
export function uuidv7(now_ms: number, random: RandomBytes = randomBytes): string {
  const tail = random(10)
  const time = now_ms.toString(16).padStart(12, '0')
  const hex = (index: number): string => HEX[tail[index] ?? 0] ?? '00'
  const version = HEX[0x70 | ((tail[0] ?? 0) & 0x0f)] ?? '70'
  const variant = HEX[0x80 | ((tail[2] ?? 0) & 0x3f)] ?? '80'
  return (
    `${time.slice(0, 8)}-${time.slice(8)}-${version}${hex(1)}-${variant}${hex(3)}-` + hex(4) + hex(5) + hex(6) + hex(7) + hex(8) + hex(9)
  )
}

/** When a UUIDv7 was made, Unix ms (RFC 9562: its first 48 bits); null for any other text. */
export function madeAt(id: string): number | null {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-7/.test(id) ? Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : null
}

/** Prefix of every key that Weir makes. Imported keys may have another form. */
export const KEY_PREFIX = 'sk-weir-'

/** A number in [0, 1), with 32 random bits. */
export function randomUnit(random: RandomBytes): number {
  const bytes = random(4)
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0) / 2 ** 32
}

/** A new API key: the prefix and 32 random bytes in base64url. Shown once, stored only as its hash. */
export function newKeySecret(random: RandomBytes = randomBytes): string {
  return KEY_PREFIX + Buffer.from(random(32)).toString('base64url')
}

/** SHA-256 of a key as lower-case hex: the only form in which a key is stored or looked up. */
export function hashKey(secret: string): string {
  return hash('sha256', secret, 'hex')
}
