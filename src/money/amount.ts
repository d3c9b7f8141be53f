/**
 * Exact conversions between what people read (decimal CNY) and what the code counts (integers).
 * Amounts are nano-yuan (1e-9 CNY), prices pico-yuan per token (1e-12 CNY), both `bigint`.
 */

const NANO_PER_CNY = 1_000_000_000n
const NANO_PER_FEN = 10_000_000n
/** 1 CNY per million tokens is this many pico-yuan per token. */
const PICO_PER_CNY_PER_MILLION = 1_000_000n
/** Pico-yuan in one nano-yuan. */
export const PICO_PER_NANO = 1_000n

/** Amounts are stored as 64-bit integers, so nothing larger may come in from outside: ±9 223 372 036.854775807 CNY. */
const LARGEST_NANO = 2n ** 63n - 1n

const SIGNED_DECIMAL = /^([+-]?)(\d{1,40})(?:\.(\d{1,9}))?$/
const PRICE_DECIMAL = /^(\d{1,12})(?:\.(\d{1,6}))?$/

/** The smaller of two integers. */
export function minBig(a: bigint, b: bigint): bigint {
  return a < b ? a : b
}

/** The larger of two integers. */
export function maxBig(a: bigint, b: bigint): bigint {
  return a > b ? a : b
}

/**
 * `value / divisor`, a half going away from zero: half up for what is not negative, and a reversal rounds to exactly
 * the negative of what it reverses. `divisor` must be positive.
 */
export function divideHalfUp(value: bigint, divisor: bigint): bigint {
  if (value < 0n) return -divideHalfUp(-value, divisor)
  return (2n * value + divisor) / (2n * divisor)
}

/**
 * Reads an amount of CNY, e.g. `12.345678901` → 12345678901n nano-yuan. At most 9 decimals, a sign is allowed.
 * @throws RangeError for anything else (exponents, separators, spaces, empty text) and for amounts beyond 64-bit nano-yuan
 */
export function nanoFromCny(text: string): bigint {
  const match = SIGNED_DECIMAL.exec(text)
  if (match === null) {
    throw new RangeError(`${quoted(text)} is not an amount in CNY: write digits with at most 9 decimals, such as "12.5"`)
  }
  const [, sign = '', whole = '0', decimals = ''] = match
  const nano = BigInt(whole + decimals.padEnd(9, '0'))
  if (nano > LARGEST_NANO) throw new RangeError(`${quoted(text)} is more than the largest amount, 9223372036.854775807 CNY`)
  return sign === '-' ? -nano : nano
}

/** Nano-yuan as decimal CNY, exact and canonical (no trailing zeros, no `-0`): 1234n → `0.000001234`, 5000000000n → `5`. */
export function cnyFromNano(amount_nano: bigint): string {
  return decimalOf(amount_nano, NANO_PER_CNY, 9)
}

/**
 * Reads a price in CNY per million tokens, e.g. `0.02` → 20000n pico-yuan per token. At most 6 decimals, no sign.
 * @throws RangeError for anything else
 */
export function picoFromCnyPerMillion(text: string): bigint {
  const match = PRICE_DECIMAL.exec(text)
  if (match === null) {
    throw new RangeError(`${quoted(text)} is not a price in CNY per million tokens: write digits with at most 6 decimals, such as "0.02"`)
  }
  const [, whole = '0', decimals = ''] = match
  return BigInt(whole + decimals.padEnd(6, '0'))
}

/** Pico-yuan per token as decimal CNY per million tokens, exact and canonical: 20000n → `0.02`. */
export function cnyPerMillionFromPico(pico_per_token: bigint): string {
  return decimalOf(pico_per_token, PICO_PER_CNY_PER_MILLION, 6)
}

/**
 * Rounds nano-yuan to fen, half up (negatives mirrored), and keeps what rounding left over:
 * `amount_nano = fen × 10 000 000 + carry_nano`, so an invoice that carries the remainder loses nothing.
 */
export function fenFromNano(amount_nano: bigint): { readonly fen: bigint; readonly carry_nano: bigint } {
  const fen = divideHalfUp(amount_nano, NANO_PER_FEN)
  return { fen, carry_nano: amount_nano - fen * NANO_PER_FEN }
}

/** Rounds pico-yuan to nano-yuan, half up (negatives mirrored). */
export function roundPicoToNano(amount_pico: bigint): bigint {
  return divideHalfUp(amount_pico, PICO_PER_NANO)
}

function decimalOf(value: bigint, unit: bigint, places: number): string {
  const magnitude = value < 0n ? -value : value
  const decimals = (magnitude % unit).toString().padStart(places, '0').replace(/0+$/, '')
  const whole = (magnitude / unit).toString()
  return (value < 0n ? '-' : '') + whole + (decimals === '' ? '' : `.${decimals}`)
}

/** The text as it may stand in a message: bounded, and with nothing invisible in it. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)
}
