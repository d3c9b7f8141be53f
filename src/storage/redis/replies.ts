import { assert } from '../../base/assert.ts'
import type { HoldReceipt } from '../../money/event.ts'
import type { GrantUnit, HeldPart } from '../../money/grant.ts'

/** Lists within lists of texts and numbers, as scripts reply. */
export type Reply = readonly unknown[]

export function listOf(value: unknown): Reply {
  assert(Array.isArray(value), 'a script replied something else than a list')
  return value
}

export function textOf(value: unknown): string {
  assert(typeof value === 'string', 'a script replied something else than text')
  return value
}

export function textsOf(value: unknown): readonly string[] {
  return listOf(value).map(textOf)
}

/** A number, whether it came as an integer or as its digits. */
export function numberOf(value: unknown): number {
  const number = typeof value === 'string' && value !== '' ? Number(value) : value
  assert(typeof number === 'number' && Number.isFinite(number), 'a script replied something else than a number')
  return number
}

/** An exact integer of up to 64 bits; those always come as their digits. */
export function amountOf(value: unknown): bigint {
  return BigInt(textOf(value))
}

/** Fields and values in turn, as HGETALL gives them. */
export function fieldsOf(value: unknown): ReadonlyMap<string, string> {
  const words = textsOf(value)
  const fields = new Map<string, string>()
  for (let index = 0; index < words.length; index += 2) fields.set(words[index] ?? '', words[index + 1] ?? '')
  return fields
}

const UNITS: Readonly<Record<string, GrantUnit>> = { m: 'nano_cny', t: 'tokens', r: 'requests' }
const UNIT_LETTERS: Readonly<Record<GrantUnit, string>> = { nano_cny: 'm', tokens: 't', requests: 'r' }

/** The letter by which scripts know a unit. */
export function unitLetter(unit: GrantUnit): string {
  return UNIT_LETTERS[unit]
}

/** What never changes of a receipt: scripts keep it as it is, and ask it for nothing but the model. */
export interface FixedReceipt {
  readonly project: string
  readonly key: string
  readonly model: string
  /** Which rules have windows of five hours, by the name that they have in the receipt. */
  readonly begun?: Readonly<Record<string, number>>
}

const FIVE_HOURS_MS = 5 * 3_600_000

/** A receipt as scripts reply it (`scripts/lib/holds.lua`). */
export function receiptOf(id: string, value: unknown): HoldReceipt {
  const [tenant, fixed, admitted_at, expires_at, tokens, amount, parts, ends] = listOf(value)
  const { project, key, model, begun } = JSON.parse(textOf(fixed)) as FixedReceipt
  const receipt: HoldReceipt = {
    v: 1,
    id,
    tenant: textOf(tenant),
    project,
    key,
    model,
    admitted_at: numberOf(admitted_at),
    expires_at: numberOf(expires_at),
    tokens: numberOf(tokens),
    amount_nano: amountOf(amount),
    parts: partsOf(parts),
  }
  return begun === undefined ? receipt : { ...receipt, begun: begunOf(begun, textsOf(ends)) }
}

/** When windows of five hours began, by the names of their limits: that long before they end. */
export function begunOf(begun: Readonly<Record<string, number>>, ends: readonly string[]): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(begun).map(([name, index]) => [name, numberOf(ends[index]) - FIVE_HOURS_MS]))
}

/** Parts of a hold as scripts reply them. */
export function partsOf(value: unknown): readonly HeldPart[] {
  return listOf(value).map(partOf)
}

function partOf(value: unknown): HeldPart {
  const [grant, letter, amount, weight] = listOf(value)
  const unit = UNITS[textOf(letter)]
  assert(unit !== undefined, 'a part of a hold is in no known unit')
  const part = { grant: textOf(grant), unit, amount: amountOf(amount) }
  return weight === undefined || weight === null ? part : { ...part, weight_micro: numberOf(weight) }
}
