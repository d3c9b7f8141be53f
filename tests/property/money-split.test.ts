import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { HoldReceipt } from '../../src/money/event.ts'
import type { GrantUnit, PaymentPart } from '../../src/money/grant.ts'
import { splitPayment } from '../../src/money/split.ts'
import type { ActualUse } from '../../src/money/split.ts'
import { propertySeed } from '../support/seed.ts'

const PARAMETERS = { seed: propertySeed(), numRuns: 1000 }

const amount = fc.oneof(fc.bigInt({ min: 0n, max: 20n }), fc.bigInt({ min: 0n, max: 2n ** 60n }))
const grant = fc.constantFrom('promo', 'pack', 'contract', 'wallet', 'credit')
const moneyOrTokens = fc.record({ grant, unit: fc.constantFrom<GrantUnit>('nano_cny', 'nano_cny', 'tokens'), amount })
const anyPart = fc.record({ grant, unit: fc.constantFrom<GrantUnit>('nano_cny', 'tokens', 'requests'), amount })
const wallet = fc.constantFrom('wallet', 'credit')
const actual: fc.Arbitrary<ActualUse> = fc.record({
  amount_nano: amount,
  tokens: fc.oneof(fc.nat(30), fc.maxSafeNat()),
  requests: fc.constantFrom(0, 1),
})

function receiptOf(part: fc.Arbitrary<PaymentPart>): fc.Arbitrary<HoldReceipt> {
  return fc.tuple(fc.array(part, { maxLength: 6 }), amount).map(([parts, amount_nano]) => ({
    v: 1,
    id: 'r',
    tenant: 't',
    project: 'p',
    key: 'k',
    model: 'm',
    admitted_at: 0,
    expires_at: 1,
    tokens: 0,
    amount_nano,
    parts,
  }))
}

function total(parts: readonly PaymentPart[], unit: GrantUnit, of?: string): bigint {
  return parts.filter((part) => part.unit === unit && (of === undefined || part.grant === of)).reduce((sum, part) => sum + part.amount, 0n)
}

describe('a split', () => {
  test('pays in money exactly the fraction of the price that tokens grants leave open', () => {
    fc.assert(
      fc.property(receiptOf(moneyOrTokens), actual, wallet, (receipt, used, to) => {
        const { parts } = splitPayment(receipt, used, to)
        const covered = total(parts, 'tokens')
        const tokens = BigInt(used.tokens)
        const reserved = total(receipt.parts, 'tokens')
        expect(covered).toBe(reserved < tokens ? reserved : tokens)
        const money = total(parts, 'nano_cny')
        expect(covered > 0n || money === used.amount_nano).toBe(true)
        // Half up, by its definition: money − ½ ≤ exact < money + ½, all times 2 × tokens.
        const exact = 2n * used.amount_nano * (tokens - covered)
        const rounded = 2n * money * tokens
        expect(tokens === 0n || (rounded - tokens <= exact && exact < rounded + tokens)).toBe(true)
      }),
      PARAMETERS,
    )
  })

  test('takes from no grant but the wallet more than it reserved, and from the wallet only when the others are used up', () => {
    fc.assert(
      fc.property(receiptOf(anyPart), actual, wallet, (receipt, used, to) => {
        const { parts } = splitPayment(receipt, used, to)
        for (const part of parts) {
          if (part.unit === 'nano_cny' && part.grant === to) continue
          expect(part.amount <= total(receipt.parts, part.unit, part.grant)).toBe(true)
        }
        const excess = total(parts, 'nano_cny', to) > total(receipt.parts, 'nano_cny', to)
        const others = receipt.parts.filter((part) => part.unit === 'nano_cny' && part.grant !== to)
        const used_up = others.every(({ grant: id }) => total(parts, 'nano_cny', id) === total(receipt.parts, 'nano_cny', id))
        expect(!excess || used_up).toBe(true)
      }),
      PARAMETERS,
    )
  })

  test('has at most one part per grant and unit, and none of zero', () => {
    fc.assert(
      fc.property(receiptOf(anyPart), actual, wallet, (receipt, used, to) => {
        const { parts } = splitPayment(receipt, used, to)
        expect(parts.every((part) => part.amount > 0n)).toBe(true)
        expect(new Set(parts.map((part) => `${part.unit} ${part.grant}`)).size).toBe(parts.length)
      }),
      PARAMETERS,
    )
  })

  test('lets a requests grant pay all or nothing', () => {
    fc.assert(
      fc.property(receiptOf(anyPart), actual, wallet, (receipt, used, to) => {
        const { parts } = splitPayment(receipt, used, to)
        const paid = total(parts, 'requests')
        const reserved = total(receipt.parts, 'requests') > 0n
        expect(paid).toBe(reserved ? BigInt(used.requests) : 0n)
        expect(!reserved || parts.length === used.requests).toBe(true)
      }),
      PARAMETERS,
    )
  })

  test('is the same every time, counts the overrun, and leaves the receipt alone', () => {
    fc.assert(
      fc.property(receiptOf(anyPart), actual, wallet, (receipt, used, to) => {
        const before = structuredClone(receipt)
        const split = splitPayment(receipt, used, to)
        expect(splitPayment(structuredClone(receipt), { ...used }, to)).toEqual(split)
        expect(receipt).toEqual(before)
        const beyond = used.amount_nano - receipt.amount_nano
        expect(split.overrun_nano).toBe(beyond > 0n ? beyond : 0n)
      }),
      PARAMETERS,
    )
  })
})
