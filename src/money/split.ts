import { assert } from '../base/assert.ts'
import { divideHalfUp, minBig } from './amount.ts'
import type { HoldReceipt } from './event.ts'
import { type GrantUnit, type PaymentPart, tokensCovered, unitsFor, WEIGHT_ONE_MICRO } from './grant.ts'

/** What an answer turned out to use. `tokens` is every class once, `requests` is 1, or 0 when nothing was delivered. */
export interface ActualUse {
  readonly amount_nano: bigint
  readonly tokens: number
  readonly requests: number
}

export interface Split {
  /** Who pays how much: at most one part per grant and unit, none of them zero. */
  readonly parts: readonly PaymentPart[]
  /** What `wallet` is charged beyond everything that was reserved: by so much an answer may pass the account's balance. */
  readonly overrun_nano: bigint
}

/**
 * Decides who pays for an answer: a pure function of the hold's receipt and the use, recorded on the event and applied
 * verbatim everywhere (SEMANTICS 10).
 *
 * - A `requests` part pays all or nothing: where there is one it pays the request, and nothing else is charged.
 * - `tokens` parts pay in the receipt's order, up to what each reserved; a token takes the part's weight in units, and each part's
 *   units are rounded up once. They cover that fraction of the price.
 * - The rest of the price, rounded half up to nano-yuan, is money: `nano_cny` parts in the receipt's order, each up to what it
 *   reserved. What is left goes to `wallet` (a grant id, or `credit`), joined to its part if it has one, and is the overrun.
 *
 * The money parts sum to the money due exactly, and no grant but `wallet` pays more than it reserved.
 * @throws InvariantError if an amount is negative or a count is not a non-negative safe integer
 */
export function splitPayment(receipt: HoldReceipt, actual: ActualUse, wallet: string): Split {
  assert(actual.amount_nano >= 0n, 'an amount to split must not be negative')
  assert(Number.isSafeInteger(actual.tokens) && actual.tokens >= 0, 'tokens to split must be a non-negative safe integer')
  assert(actual.requests === 0 || actual.requests === 1, 'one event is at most one request')
  for (const part of receipt.parts) assert(part.amount >= 0n, `grant ${part.grant} has a negative reservation`)
  const by_request = receipt.parts.find((part) => part.unit === 'requests' && part.amount > 0n)
  if (by_request !== undefined) return { parts: payByRequest(by_request, actual.requests), overrun_nano: 0n }

  const payment = new Payment()
  const tokens = BigInt(actual.tokens)
  const uncovered = payment.drawTokens(receipt, tokens)
  const money_due = tokens === 0n ? actual.amount_nano : divideHalfUp(actual.amount_nano * uncovered, tokens)
  const overrun_nano = payment.drawMoney(receipt, money_due)
  payment.add(wallet, 'nano_cny', overrun_nano)
  return { parts: payment.parts(), overrun_nano }
}

function payByRequest(part: PaymentPart, requests: number): readonly PaymentPart[] {
  return requests === 0 ? [] : [{ grant: part.grant, unit: 'requests', amount: 1n }]
}

/** Parts as they come together, joined per unit and grant, in the order of their first payment. */
class Payment {
  readonly #parts: { readonly grant: string; readonly unit: GrantUnit; amount: bigint }[] = []

  /** Takes tokens from the receipt's parts, in order, each up to its reservation; returns those that they do not cover. */
  drawTokens(receipt: HoldReceipt, tokens: bigint): bigint {
    let left = tokens
    for (const { grant, unit, amount, weight_micro = WEIGHT_ONE_MICRO } of receipt.parts) {
      if (unit !== 'tokens') continue
      const covered = minBig(left, tokensCovered(amount, weight_micro))
      this.add(grant, unit, unitsFor(covered, weight_micro))
      left -= covered
    }
    return left
  }

  /** Takes `due` nano-yuan likewise; returns what the parts could not pay. */
  drawMoney(receipt: HoldReceipt, due: bigint): bigint {
    let left = due
    for (const { grant, unit, amount } of receipt.parts) {
      if (unit !== 'nano_cny') continue
      const paid = minBig(amount, left)
      this.add(grant, unit, paid)
      left -= paid
    }
    return left
  }

  add(grant: string, unit: GrantUnit, amount: bigint): void {
    if (amount === 0n) return
    const known = this.#parts.find((part) => part.grant === grant && part.unit === unit)
    if (known === undefined) this.#parts.push({ grant, unit, amount })
    else known.amount += amount
  }

  parts(): readonly PaymentPart[] {
    return this.#parts
  }
}
