import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { HoldReceipt } from '../../src/money/event.ts'
import { type GrantUnit, type HeldPart, type PaymentPart, tokensCovered, tokensOfParts, unitsFor } from '../../src/money/grant.ts'
import { splitPayment } from '../../src/money/split.ts'
import type { ActualUse } from '../../src/money/split.ts'
import { propertySeed } from '../support/seed.ts'

const PARAMETERS = { seed: propertySeed(), numRuns: 1000 }

const amount = fc.oneof(fc.bigInt({ min: 0n, max: 20n }), fc.bigInt({ min: 0n, max: 2n ** 60n }))
const grant = fc.constantFrom('promo', 'pack', 'contract', 'wallet', 'credit')
const weight = fc.oneof(fc.constantFrom(1, 500_000, 1_000_000, 1_000_001, 100_000_000), fc.integer({ min: 1, max: 100_000_000 }))
const weightedTokens = fc.record({ grant, unit: fc.constant<GrantUnit>('tokens'), amount, weight_micro: weight })
const partIn = (...units: readonly GrantUnit[]): fc.Arbitrary<HeldPart> =>
  fc.oneof(fc.record({ grant, unit: fc.constantFrom(...units), amount }), weightedTokens)
const moneyOrTokens = partIn('nano_cny', 'nano_cny', 'tokens')
const anyPart = partIn('nano_cny', 'tokens', 'requests')
const wallet = fc.constantFrom('wallet', 'credit')
const actual: fc.Arbitrary<ActualUse> = fc.record({
  amount_nano: amount,
  tokens: fc.oneof(fc.nat(30), fc.maxSafeNat()),
  requests: fc.constantFrom(0, 1),
})

function receiptOf(part: fc.Arbitrary<HeldPart>): fc.Arbitrary<HoldReceipt> {
  return receiptWith(fc.array(part, { maxLength: 6 }))
}

function receiptWith(some: fc.Arbitrary<readonly HeldPart[]>): fc.Arbitrary<HoldReceipt> {
  return fc.tuple(some, amount).map(([parts, amount_nano]) => ({
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
        const { parts, overrun_nano } = splitPayment(receipt, used, to)
        const tokens = BigInt(used.tokens)
        const reserved = tokensOfParts(receipt.parts)
        const covered = reserved < tokens ? reserved : tokens
        const money = total(parts, 'nano_cny')
        expect(covered > 0n || money === used.amount_nano).toBe(true)
        // Half up, by its definition: money − ½ ≤ exact < money + ½, all times 2 × tokens.
        const exact = 2n * used.amount_nano * (tokens - covered)
        const rounded = 2n * money * tokens
        expect(tokens === 0n || (rounded - tokens <= exact && exact < rounded + tokens)).toBe(true)
        const held = total(receipt.parts, 'nano_cny')
        expect(overrun_nano).toBe(money > held ? money - held : 0n)
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

  test('takes units for the tokens that a part covers, rounded up once per part', () => {
    const once_each = fc.uniqueArray(weightedTokens, { selector: (part) => part.grant })
    fc.assert(
      fc.property(receiptWith(once_each), actual, (receipt, used) => {
        const { parts } = splitPayment(receipt, used, 'wallet')
        let left = BigInt(used.tokens)
        for (const { grant: id, amount: reserved, weight_micro = 1_000_000 } of receipt.parts) {
          const most = tokensCovered(reserved, weight_micro)
          const covered = most < left ? most : left
          expect(total(parts, 'tokens', id)).toBe(unitsFor(covered, weight_micro))
          left -= covered
        }
      }),
      PARAMETERS,
    )
  })

  test('never lets anybody pay less for more: more tokens at one price, or a higher price for the same tokens', () => {
    const more = fc.nat(1000)
    fc.assert(
      fc.property(receiptOf(anyPart), actual, wallet, more, more, (receipt, used, to, more_tokens, more_nano) => {
        const { parts } = splitPayment(receipt, used, to)
        const longer = { ...used, tokens: Math.min(Number.MAX_SAFE_INTEGER, used.tokens + more_tokens) }
        const dearer = { ...used, amount_nano: used.amount_nano + BigInt(more_nano) }
        for (const changed of used.tokens === 0 ? [dearer] : [longer, dearer]) {
          const after = splitPayment(receipt, changed, to).parts
          for (const part of parts) expect(total(after, part.unit, part.grant) >= part.amount).toBe(true)
        }
      }),
      PARAMETERS,
    )
  })

  test('is the same every time, and leaves the receipt alone', () => {
    fc.assert(
      fc.property(receiptOf(anyPart), actual, wallet, (receipt, used, to) => {
        const before = structuredClone(receipt)
        const split = splitPayment(receipt, used, to)
        expect(splitPayment(structuredClone(receipt), { ...used }, to)).toEqual(split)
        expect(receipt).toEqual(before)
      }),
      PARAMETERS,
    )
  })
})
