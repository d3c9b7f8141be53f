import { assert } from '../base/assert.ts'

/** What a grant is counted in. */
export type GrantUnit = 'nano_cny' | 'tokens' | 'requests'

/** A part of one payment: so much of this grant. `grant` is a grant id, or `credit` for the tenant's credit line. */
export interface PaymentPart {
  readonly grant: string
  readonly unit: GrantUnit
  readonly amount: bigint
}

/** A part of a hold. What it can pay for is fixed here, so that the final split needs nothing but the receipt. */
export interface HeldPart extends PaymentPart {
  /** Millionths of the grant's unit that one token of the held model takes, for a `tokens` grant with weights; absent means 1 000 000. */
  readonly weight_micro?: number
}

/** The weight of a model that a grant does not name: one unit per token. */
export const WEIGHT_ONE_MICRO = 1_000_000
const MAX_WEIGHT_MICRO = 100 * WEIGHT_ONE_MICRO
/**
 * Tokens of one request that `tokens` grants can cover; what is beyond is for money. With weights up to 100 every product here
 * is at most 8e15 < 2^53, so that a driver whose numbers are doubles (Lua) comes to the same results.
 */
export const MAX_GRANT_TOKENS = 80_000_000

const WEIGHT_DECIMAL = /^(\d{1,3})(?:\.(\d{1,6}))?$/

/**
 * Reads a weight, the units that one token takes, e.g. `0.5` → 500 000 micro.
 * @throws RangeError unless it is a decimal above 0 and at most 100 with at most 6 decimals
 */
export function weightMicroOf(text: string): number {
  const [, whole = '', decimals = ''] = WEIGHT_DECIMAL.exec(text) ?? []
  const weight_micro = whole === '' ? 0 : Number(whole + decimals.padEnd(6, '0'))
  if (weight_micro >= 1 && weight_micro <= MAX_WEIGHT_MICRO) return weight_micro
  const shown = JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)
  throw new RangeError(`${shown} is not a weight: write a decimal above 0 and at most 100, with at most 6 decimals, such as "0.5"`)
}

/** Units that so many tokens take: tokens × weight, rounded up once. One part is one rounding: sum its tokens first. */
export function unitsFor(tokens: bigint, weight_micro: number): bigint {
  const weight = checkedWeight(weight_micro)
  assert(tokens >= 0n, 'tokens of a grant must not be negative')
  if (weight_micro === WEIGHT_ONE_MICRO) return tokens
  return (tokens * weight + 999_999n) / 1_000_000n
}

/** Tokens that so many units cover, rounded down: `unitsFor(tokensCovered(units, w), w)` is never more than `units`. */
export function tokensCovered(units: bigint, weight_micro: number): bigint {
  const weight = checkedWeight(weight_micro)
  assert(units >= 0n, 'units of a grant must not be negative')
  if (weight_micro === WEIGHT_ONE_MICRO) return units
  return (units * 1_000_000n) / weight
}

/** Tokens that the `tokens` parts of a hold cover together. */
export function tokensOfParts(parts: readonly HeldPart[]): bigint {
  let tokens = 0n
  for (const part of parts) if (part.unit === 'tokens') tokens += tokensCovered(part.amount, part.weight_micro ?? WEIGHT_ONE_MICRO)
  return tokens
}

/** Nano-yuan that the money parts of a payment come to. */
export function moneyOfParts(parts: readonly PaymentPart[]): bigint {
  let sum = 0n
  for (const part of parts) if (part.unit === 'nano_cny') sum += part.amount
  return sum
}

function checkedWeight(weight_micro: number): bigint {
  assert(Number.isInteger(weight_micro) && weight_micro >= 1 && weight_micro <= MAX_WEIGHT_MICRO, 'a weight outside its bounds')
  return BigInt(weight_micro)
}

/** The id of a tenant's wallet: one each, the grant that pays what no other grant covers. */
export function walletOf(tenant: string): string {
  return `wallet:${tenant}`
}
