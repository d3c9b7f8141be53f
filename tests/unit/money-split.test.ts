import { describe, expect, test } from 'vitest'
import { InvariantError } from '../../src/base/assert.ts'
import type { HoldReceipt } from '../../src/money/event.ts'
import type { GrantUnit, HeldPart, PaymentPart } from '../../src/money/grant.ts'
import { splitPayment } from '../../src/money/split.ts'

const WALLET = 'wallet:acme'

function part(grant: string, unit: GrantUnit, amount: bigint): PaymentPart {
  return { grant, unit, amount }
}

function weighted(grant: string, amount: bigint, weight_micro: number): HeldPart {
  return { grant, unit: 'tokens', amount, weight_micro }
}

function receipt(amount_nano: bigint, parts: readonly HeldPart[]): HoldReceipt {
  return {
    v: 1,
    id: '0199a1b2-1111-7abc-8abc-0123456789ab',
    tenant: 'acme',
    project: 'default',
    key: 'key_1',
    model: 'deepseek-chat',
    admitted_at: 1_790_000_000_000,
    expires_at: 1_790_000_030_000,
    tokens: 1000,
    amount_nano,
    parts,
  }
}

describe('who pays', () => {
  test('the wallet, no more than the price', () => {
    const hold = receipt(100n, [part(WALLET, 'nano_cny', 100n)])
    expect(splitPayment(hold, { amount_nano: 30n, tokens: 10, requests: 1 }, WALLET)).toEqual({
      parts: [part(WALLET, 'nano_cny', 30n)],
      overrun_nano: 0n,
    })
  })

  test('grants in the order of the receipt, each up to what it reserved', () => {
    const hold = receipt(100n, [part('promo', 'nano_cny', 20n), part('pack', 'nano_cny', 50n), part(WALLET, 'nano_cny', 30n)])
    const paid = (amount_nano: bigint): readonly PaymentPart[] => splitPayment(hold, { amount_nano, tokens: 10, requests: 1 }, WALLET).parts
    expect(paid(20n)).toEqual([part('promo', 'nano_cny', 20n)])
    expect(paid(21n)).toEqual([part('promo', 'nano_cny', 20n), part('pack', 'nano_cny', 1n)])
    expect(paid(100n)).toEqual(hold.parts)
  })

  test('the wallet takes what exceeds the hold, in the part it has', () => {
    const hold = receipt(50n, [part(WALLET, 'nano_cny', 30n), part('late', 'nano_cny', 20n)])
    expect(splitPayment(hold, { amount_nano: 75n, tokens: 10, requests: 1 }, WALLET)).toEqual({
      parts: [part(WALLET, 'nano_cny', 55n), part('late', 'nano_cny', 20n)],
      overrun_nano: 25n,
    })
  })

  test('the wallet takes what exceeds the hold even if it had no part', () => {
    const hold = receipt(20n, [part('promo', 'nano_cny', 20n)])
    expect(splitPayment(hold, { amount_nano: 21n, tokens: 10, requests: 1 }, 'credit')).toEqual({
      parts: [part('promo', 'nano_cny', 20n), part('credit', 'nano_cny', 1n)],
      overrun_nano: 1n,
    })
  })

  test('a requests grant pays the whole request and nothing else is charged', () => {
    const hold = receipt(100n, [part('tokens', 'tokens', 5n), part('monthly', 'requests', 1n), part(WALLET, 'nano_cny', 100n)])
    expect(splitPayment(hold, { amount_nano: 130n, tokens: 10, requests: 1 }, WALLET)).toEqual({
      parts: [part('monthly', 'requests', 1n)],
      overrun_nano: 0n,
    })
    expect(splitPayment(hold, { amount_nano: 0n, tokens: 0, requests: 0 }, WALLET)).toEqual({ parts: [], overrun_nano: 0n })
  })

  test('a tokens grant that covers everything leaves nothing to money', () => {
    const hold = receipt(100n, [part('pack', 'tokens', 1000n), part(WALLET, 'nano_cny', 100n)])
    expect(splitPayment(hold, { amount_nano: 90n, tokens: 400, requests: 1 }, WALLET).parts).toEqual([part('pack', 'tokens', 400n)])
  })

  test('tokens grants that cover a part leave that part of the price to money, half up', () => {
    const hold = receipt(100n, [part('a', 'tokens', 1n), part('b', 'tokens', 1n), part(WALLET, 'nano_cny', 100n)])
    const paid = (amount_nano: bigint, tokens: number): readonly PaymentPart[] =>
      splitPayment(hold, { amount_nano, tokens, requests: 1 }, WALLET).parts
    expect(paid(10n, 3)).toEqual([part('a', 'tokens', 1n), part('b', 'tokens', 1n), part(WALLET, 'nano_cny', 3n)])
    expect(paid(11n, 4)).toEqual([part('a', 'tokens', 1n), part('b', 'tokens', 1n), part(WALLET, 'nano_cny', 6n)])
    expect(paid(11n, 1)).toEqual([part('a', 'tokens', 1n)])
  })

  test('a token takes its weight in units, rounded up once per part, and no more than the part reserved', () => {
    const hold = receipt(100n, [weighted('half', 2n, 500_000), weighted('triple', 7n, 3_000_000), part(WALLET, 'nano_cny', 100n)])
    const paid = (tokens: number): readonly PaymentPart[] => splitPayment(hold, { amount_nano: 100n, tokens, requests: 1 }, WALLET).parts
    expect(paid(1)).toEqual([part('half', 'tokens', 1n)])
    expect(paid(3)).toEqual([part('half', 'tokens', 2n)])
    expect(paid(5)).toEqual([part('half', 'tokens', 2n), part('triple', 'tokens', 3n)])
    // 4 and 2 tokens are covered: the seventh unit of `triple` is not a whole token.
    expect(paid(8)).toEqual([part('half', 'tokens', 2n), part('triple', 'tokens', 6n), part(WALLET, 'nano_cny', 25n)])
  })

  test('only what nobody reserved is an overrun', () => {
    const overrun = (parts: readonly HeldPart[], amount_nano: bigint, tokens: number): bigint =>
      splitPayment(receipt(100n, parts), { amount_nano, tokens, requests: 1 }, WALLET).overrun_nano
    // Beyond the held amount, and yet paid by the pack.
    expect(overrun([part('pack', 'tokens', 10n)], 150n, 10)).toBe(0n)
    expect(overrun([part('pack', 'tokens', 10n)], 150n, 15)).toBe(50n)
    expect(overrun([part('pack', 'tokens', 10n), part(WALLET, 'nano_cny', 100n)], 150n, 15)).toBe(0n)
    // Within the held amount, and yet nobody reserved it.
    expect(overrun([part('pack', 'tokens', 10n)], 90n, 15)).toBe(30n)
  })

  test('a price without tokens is all money', () => {
    const hold = receipt(100n, [part('pack', 'tokens', 10n), part(WALLET, 'nano_cny', 100n)])
    expect(splitPayment(hold, { amount_nano: 7n, tokens: 0, requests: 1 }, WALLET).parts).toEqual([part(WALLET, 'nano_cny', 7n)])
  })

  test('one grant that reserved twice pays in one part', () => {
    const hold = receipt(30n, [part('promo', 'nano_cny', 10n), part(WALLET, 'nano_cny', 10n), part('promo', 'nano_cny', 10n)])
    expect(splitPayment(hold, { amount_nano: 25n, tokens: 1, requests: 1 }, WALLET).parts).toEqual([
      part('promo', 'nano_cny', 15n),
      part(WALLET, 'nano_cny', 10n),
    ])
  })

  test('nobody, for nothing', () => {
    const hold = receipt(0n, [part(WALLET, 'nano_cny', 0n), part('monthly', 'requests', 0n)])
    expect(splitPayment(hold, { amount_nano: 0n, tokens: 0, requests: 1 }, WALLET)).toEqual({ parts: [], overrun_nano: 0n })
  })

  test.each([
    { amount_nano: -1n, tokens: 1, requests: 1 },
    { amount_nano: 1n, tokens: -1, requests: 1 },
    { amount_nano: 1n, tokens: 1.5, requests: 1 },
    { amount_nano: 1n, tokens: 1, requests: 2 },
  ])('nothing that cannot be is split: %o', (actual) => {
    expect(() => splitPayment(receipt(1n, []), actual, WALLET)).toThrow(InvariantError)
  })

  test('a negative reservation is a broken invariant', () => {
    expect(() => splitPayment(receipt(1n, [part('x', 'tokens', -1n)]), { amount_nano: 1n, tokens: 1, requests: 1 }, WALLET)).toThrow(
      InvariantError,
    )
  })
})
