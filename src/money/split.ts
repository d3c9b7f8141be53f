import { assert } from '../base/assert.ts'
import { divideHalfUp, maxBig, minBig } from './amount.ts'
import type { HoldReceipt } from './event.ts'
import type { GrantUnit, PaymentPart } from './grant.ts'

/** What an answer turned out to use. `tokens` is every class once, `requests` is 1, or 0 when nothing was delivered. */
export interface ActualUse {
  readonly amount_nano: bigint
  readonly tokens: number
  readonly requests: number
}

export interface Split {
  /** Who pays how much: at most one part per grant and unit, none of them zero. */
  readonly parts: readonly PaymentPart[]
  /** Price beyond what the hold had reserved. */
  readonly overrun_nano: bigint
}

/**
 * Decides who pays for an answer: a pure function of the hold's receipt and the use, recorded on the event and applied
 * verbatim everywhere (SEMANTICS 10).
 *
 * - A `requests` part pays all or nothing: where there is one it pays the request, and nothing else is charged.
 * - `tokens` parts pay in the receipt's order, up to what each reserved, one token for one token. They cover that fraction of the price.
 * - The rest of the price, rounded half up to nano-yuan, is money: `nano_cny` parts in the receipt's order, each up to what it
 *   reserved, and what is left goes to `wallet` (a grant id, or `credit`), joined to its part if it has one.
 *
 * The money parts sum to the money due exactly, and no grant but `wallet` pays more than it reserved.
 * @throws InvariantError if an amount is negative or a count is not a non-negative safe integer
 */
export function splitPayment(receipt: HoldReceipt, actual: ActualUse, wallet: string): Split {
  assert(actual.amount_nano >= 0n, 'an amount to split must not be negative')
  assert(Number.isSafeInteger(actual.tokens) && actual.tokens >= 0, 'tokens to split must be a non-negative safe integer')
  assert(actual.requests === 0 || actual.requests === 1, 'one event is at most one request')
  for (const part of receipt.parts) assert(part.amount >= 0n, `grant ${part.grant} has a negative reservation`)
  const overrun_nano = maxBig(0n, actual.amount_nano - receipt.amount_nano)
  const by_request = receipt.parts.find((part) => part.unit === 'requests' && part.amount > 0n)
  if (by_request !== undefined) return { parts: payByRequest(by_request, actual.requests), overrun_nano }

  const payment = new Payment()
  const tokens = BigInt(actual.tokens)
  const uncovered = payment.draw(receipt, 'tokens', tokens)
  const money_due = tokens === 0n ? actual.amount_nano : divideHalfUp(actual.amount_nano * uncovered, tokens)
  const excess = payment.draw(receipt, 'nano_cny', money_due)
  payment.add(wallet, 'nano_cny', excess)
  return { parts: payment.parts(), overrun_nano }
}

function payByRequest(part: PaymentPart, requests: number): readonly PaymentPart[] {
  return requests === 0 ? [] : [{ grant: part.grant, unit: 'requests', amount: 1n }]
}

/** Parts as they come together, joined per unit and grant, in the order of their first payment. */
class Payment {
  readonly #parts: { readonly grant: string; readonly unit: GrantUnit; amount: bigint }[] = []

  /** Takes `due` from the receipt's parts of a unit, in order, each up to its reservation; returns what they could not pay. */
  draw(receipt: HoldReceipt, unit: GrantUnit, due: bigint): bigint {
    let left = due
    for (const part of receipt.parts) {
      if (part.unit !== unit) continue
      const paid = minBig(part.amount, left)
      this.add(part.grant, unit, paid)
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
