import { expect, it } from 'vitest'
import type { HoldRequest } from '../../src/storage/ports.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { grant, holdRequest, reasonOf, receiptOf, settleRequest, type Subject } from './limits-requests.ts'

const HOUR_MS = 3_600_000
const pack = (id: string, overrides: Parameters<typeof grant>[1] = {}) => grant(id, { unit: 'tokens', priority: 1, ...overrides })
const tokens = (id: string, amount: bigint) => ({ grant: id, unit: 'tokens', amount }) as const
const money = (id: string, amount: bigint) => ({ grant: id, unit: 'nano_cny', amount }) as const

/** Who pays: grants of every unit, in burn order, by model and weight (SEMANTICS 10). */
export function grantTests(the: () => Subject): void {
  orderTests(the)
  debtTests(the)
  modelTests(the)
  weightTests(the)
  cappedTests(the)
  extendedTests(the)
  expiryTests(the)
}

function orderTests(the: () => Subject): void {
  it('burns grants by priority, then soonest expiry, then age', async () => {
    const { limits, credit } = the()
    const later = ADMITTED_AT + 9 * HOUR_MS
    await credit(grant('wallet', { priority: 20 }), 10n)
    await credit(grant('young', { created_at: 5 }), 10n)
    await credit(grant('old', { created_at: 2 }), 10n)
    await credit(grant('late', { expires_at: later }), 10n)
    await credit(grant('soon', { expires_at: later - 1 }), 10n)
    await credit(grant('promo', { priority: 1 }), 10n)
    const { parts } = receiptOf(await limits.hold(holdRequest('a', { amount_nano: 55n })))
    expect(parts.map((part) => part.grant)).toEqual(['promo', 'soon', 'late', 'old', 'young', 'wallet'])
    expect(parts.at(-1)?.amount).toBe(5n)
  })

  it('an expired grant pays nothing new, and what it holds survives', async () => {
    const { limits, clock, credit } = the()
    const promo = { grant: 'promo', unit: 'nano_cny', amount: 40n } as const
    await credit(grant('promo', { expires_at: ADMITTED_AT + 1000 }), 100n)
    await limits.hold(holdRequest('a', { amount_nano: 40n }))
    clock.advance(1000)
    expect(reasonOf(await limits.hold(holdRequest('b', { amount_nano: 1n })))).toBe('balance')
    expect(await limits.settle(settleRequest('a', 40n, [promo]))).toBe('settled')
    expect((await limits.balance('acme')).grants).toMatchObject([{ id: 'promo', balance: 60n, held: 0n }])
  })

  it('a token pack pays alone when it covers all tokens', async () => {
    const { limits, credit } = the()
    await credit(grant('pack', { unit: 'tokens', priority: 1 }), 150n)
    const { parts } = receiptOf(await limits.hold(holdRequest('a', { tokens: 100 })))
    expect(parts).toEqual([{ grant: 'pack', unit: 'tokens', amount: 100n }])
    await limits.settle(settleRequest('a', 0n, [{ grant: 'pack', unit: 'tokens', amount: 80n }]))
    expect((await limits.balance('acme')).grants).toMatchObject([{ balance: 70n, held: 0n }])
  })

  it('a token pack that covers a part is reserved beside money for the whole quote', async () => {
    const { limits, credit } = the()
    await credit(grant('pack', { unit: 'tokens', priority: 1 }), 30n)
    expect(reasonOf(await limits.hold(holdRequest('a', { tokens: 100, amount_nano: 100n })))).toBe('balance')
    await credit(grant('wallet'), 100n)
    expect(receiptOf(await limits.hold(holdRequest('b', { tokens: 100, amount_nano: 100n }))).parts).toEqual([
      { grant: 'pack', unit: 'tokens', amount: 30n },
      { grant: 'wallet', unit: 'nano_cny', amount: 100n },
    ])
  })

  it('a request pack pays the whole request or nothing', async () => {
    const { limits, credit } = the()
    await credit(grant('calls', { unit: 'requests', priority: 1 }), 1n)
    await credit(grant('wallet'), 100n)
    expect(receiptOf(await limits.hold(holdRequest('a'))).parts).toEqual([{ grant: 'calls', unit: 'requests', amount: 1n }])
    expect(receiptOf(await limits.hold(holdRequest('b'))).parts).toEqual([{ grant: 'wallet', unit: 'nano_cny', amount: 100n }])
  })

  it('token packs one after the other pay alone, also when money comes before them', async () => {
    const { limits, credit } = the()
    await credit(grant('promo', { priority: 0 }), 60n)
    await credit(pack('first'), 30n)
    await credit(pack('second', { priority: 2 }), 90n)
    const { parts, amount_nano } = receiptOf(await limits.hold(holdRequest('a')))
    expect(parts).toEqual([tokens('first', 30n), tokens('second', 70n)])
    expect(amount_nano).toBe(100n)
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 60n, held_nano: 0n })
  })

  it('money that comes first and covers the price leaves the pack alone', async () => {
    const { limits, credit } = the()
    await credit(grant('promo', { priority: 0 }), 100n)
    await credit(pack('pack'), 100n)
    expect(receiptOf(await limits.hold(holdRequest('a'))).parts).toEqual([money('promo', 100n)])
    expect(receiptOf(await limits.hold(holdRequest('b'))).parts).toEqual([tokens('pack', 100n)])
  })

  it('a request pack that is reached before the tokens are covered pays instead of them', async () => {
    const { limits, credit } = the()
    await credit(pack('little'), 30n)
    await credit(grant('calls', { unit: 'requests', priority: 2 }), 5n)
    const receipt = receiptOf(await limits.hold(holdRequest('a')))
    expect(receipt.parts).toEqual([{ grant: 'calls', unit: 'requests', amount: 1n }])
    const more = { id: 'a', tenant: 'acme', tokens: 900, amount_nano: 900n, lease_ms: 30_000 }
    expect(await limits.extend([more])).toMatchObject([{ state: 'extended', receipt: { tokens: 900, parts: receipt.parts } }])
    await limits.settle(settleRequest('a', 900n, [{ grant: 'calls', unit: 'requests', amount: 1n }], 900))
    expect((await limits.balance('acme')).grants).toMatchObject([
      { balance: 30n, held: 0n },
      { balance: 4n, held: 0n },
    ])
  })

  it('a request that costs nothing takes nothing', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 100n)
    await credit(grant('calls', { unit: 'requests', priority: 0 }), 5n)
    expect(receiptOf(await limits.hold(holdRequest('a', { amount_nano: 0n }))).parts).toEqual([])
  })

  it('a grant that was used up pays again once it has something again, and owes while it is overdrawn', async () => {
    const { limits, credit } = the()
    await credit(grant('promo', { priority: 1 }), 100n)
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a'))
    await limits.settle(settleRequest('a', 130n, [money('promo', 130n)]))
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 70n, grants: [{ id: 'promo', balance: -30n }, { id: 'wallet' }] })
    expect(await limits.hold(holdRequest('b', { amount_nano: 71n }))).toMatchObject({ refusal: { reason: 'balance', available: 70n } })
    await credit(grant('promo', { priority: 1 }), 80n)
    expect((await limits.balance('acme')).available_nano).toBe(150n)
    expect(receiptOf(await limits.hold(holdRequest('c'))).parts).toEqual([money('promo', 50n), money('wallet', 50n)])
  })
}

function debtTests(the: () => Subject): void {
  it('what is charged to an empty wallet is owed, more each time, until it is paid', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 1000n)
    await credit(grant('wallet'), 0n)
    for (const [id, owed] of [
      ['a', -30n],
      ['b', -60n],
    ] as const) {
      await limits.hold(holdRequest(id))
      await limits.settle(settleRequest(id, 130n, [tokens('pack', 100n), money('wallet', 30n)]))
      expect((await limits.balance('acme')).available_nano).toBe(owed)
    }
    // A debt in money does not keep a pack from paying.
    expect(reasonOf(await limits.hold(holdRequest('c')))).toBe('held')
    await credit(grant('promo', { models: ['qwen3-max'] }), 100n)
    expect(await limits.hold(holdRequest('d', { grant_tokens: 0 }))).toMatchObject({ refusal: { available: 40n } })
    await credit(grant('wallet'), 70n)
    expect((await limits.balance('acme')).available_nano).toBe(110n)
    expect(receiptOf(await limits.hold(holdRequest('e', { grant_tokens: 0, amount_nano: 110n }))).parts).toEqual([
      money('promo', 100n),
      money('wallet', 10n),
    ])
  })
}

function modelTests(the: () => Subject): void {
  const mine = { models: ['qwen3-max', 'deepseek-chat'] }
  const others = { models: ['deepseek-chat'] }

  it('a grant for other models pays nothing here, whatever its unit', async () => {
    const { limits, credit } = the()
    await credit(grant('calls', { unit: 'requests', priority: 0, ...others }), 5n)
    await credit(pack('pack', others), 500n)
    await credit(grant('promo', { priority: 2, ...others }), 500n)
    await credit(grant('wallet'), 60n)
    const refused = await limits.hold(holdRequest('a'))
    expect(refused).toMatchObject({ refusal: { reason: 'balance', available: 60n, needed: 100n } })
    expect((await limits.balance('acme')).available_nano).toBe(560n)
    expect(receiptOf(await limits.hold(holdRequest('b', { amount_nano: 60n }))).parts).toEqual([money('wallet', 60n)])
    expect(receiptOf(await limits.hold(holdRequest('c', { model: 'deepseek-chat' }))).parts).toMatchObject([{ grant: 'calls' }])
  })

  it('a grant that names the model pays', async () => {
    const { limits, credit } = the()
    await credit(pack('pack', mine), 100n)
    expect(receiptOf(await limits.hold(holdRequest('a'))).parts).toEqual([tokens('pack', 100n)])
  })

  it('what a grant for other models is overdrawn by is owed here too', async () => {
    const { limits, credit } = the()
    await credit(grant('promo', others), 10n)
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a', { model: 'deepseek-chat', amount_nano: 10n }))
    await limits.settle(settleRequest('a', 40n, [money('promo', 40n)]))
    expect(await limits.hold(holdRequest('b'))).toMatchObject({ refusal: { available: 70n } })
    expect(await limits.hold(holdRequest('c', { amount_nano: 171n, credit_line_nano: 100n }))).toMatchObject({
      refusal: { available: 170n },
    })
    expect(receiptOf(await limits.hold(holdRequest('d', { amount_nano: 70n }))).parts).toEqual([money('wallet', 70n)])
  })

  it('changed models count from the next hold on', async () => {
    const { limits, credit } = the()
    await credit(pack('pack', others), 100n)
    expect(reasonOf(await limits.hold(holdRequest('a')))).toBe('balance')
    await credit(pack('pack', mine), 0n)
    expect(reasonOf(await limits.hold(holdRequest('b')))).toBe('held')
  })
}

function weightTests(the: () => Subject): void {
  it.each([
    ['0.5', 50n, 500_000],
    ['1.5', 150n, 1_500_000],
    ['0.333333', 34n, 333_333],
    ['0.000001', 1n, 1],
    ['100', 10_000n, 100_000_000],
  ])('a token of weight %s takes so many units, rounded up once', async (weight, units, weight_micro) => {
    const { limits, credit } = the()
    await credit(pack('pack', { weights: { 'qwen3-max': weight, other: '7' } }), units)
    const { parts } = receiptOf(await limits.hold(holdRequest('a')))
    expect(parts).toEqual([{ ...tokens('pack', units), weight_micro }])
    expect(reasonOf(await limits.hold(holdRequest('b')))).toBe('balance')
    await limits.settle(settleRequest('a', 0n, [tokens('pack', units - 1n)], 99))
    expect((await limits.balance('acme')).grants).toMatchObject([{ balance: 1n, held: 0n }])
  })

  it('a model that has no weight, or weight one, takes one unit, and the receipt says nothing of it', async () => {
    const { limits, credit } = the()
    await credit(pack('pack', { weights: { other: '7', plain: '1.000000' } }), 200n)
    expect(receiptOf(await limits.hold(holdRequest('a'))).parts).toEqual([tokens('pack', 100n)])
    expect(receiptOf(await limits.hold(holdRequest('b', { model: 'plain' }))).parts).toEqual([tokens('pack', 100n)])
  })

  it('a pack that is too small covers whole tokens, and the next grant the rest', async () => {
    const { limits, credit } = the()
    await credit(pack('dear', { weights: { 'qwen3-max': '3' } }), 100n)
    await credit(pack('cheap', { priority: 2, weights: { 'qwen3-max': '0.5' } }), 100n)
    // 100 units are 33 tokens of weight 3; the other 67 take 33.5 units.
    expect(receiptOf(await limits.hold(holdRequest('a'))).parts).toEqual([
      { ...tokens('dear', 100n), weight_micro: 3_000_000 },
      { ...tokens('cheap', 34n), weight_micro: 500_000 },
    ])
  })
}

function cappedTests(the: () => Subject): void {
  const capped = (id: string, overrides: Partial<HoldRequest> = {}) =>
    holdRequest(id, { minimum_tokens: 20, minimum_nano: 20n, ...overrides })

  it('a part of the tokens and a part of the money are reserved together, and budgets hold the whole', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 30n)
    await credit(grant('wallet'), 50n)
    const receipt = receiptOf(await limits.hold(capped('a')))
    expect(receipt).toMatchObject({ amount_nano: 100n, parts: [tokens('pack', 30n), money('wallet', 50n)] })
  })

  it('tokens alone are reserved where money covers less than the minimum, and budgets hold the whole', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 30n)
    await credit(grant('wallet'), 19n)
    const receipt = receiptOf(await limits.hold(capped('a')))
    expect(receipt).toMatchObject({ amount_nano: 100n, parts: [tokens('pack', 30n)] })
    expect((await limits.balance('acme')).available_nano).toBe(19n)
  })

  it('neither covering its minimum is refused, and nothing of either is reserved', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 19n)
    await credit(grant('wallet'), 19n)
    const before = await limits.balance('acme')
    expect(await limits.hold(capped('a'))).toMatchObject({ refusal: { reason: 'balance', available: 19n, needed: 100n } })
    expect(await limits.balance('acme')).toEqual(before)
    await credit(pack('pack'), 1n)
    expect(receiptOf(await limits.hold(capped('b'))).parts).toEqual([tokens('pack', 20n)])
  })

  it('no minimum of tokens means that tokens alone never do', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 99n)
    expect(reasonOf(await limits.hold(capped('a', { minimum_tokens: 0 })))).toBe('balance')
    expect(reasonOf(await limits.hold(capped('b', { grant_tokens: 0, minimum_tokens: 0 })))).toBe('balance')
  })

  it('what rates count and what packs must cover are two figures', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 250n)
    const receipt = receiptOf(await limits.hold(holdRequest('a', { tokens: 10, grant_tokens: 250, minimum_tokens: 250 })))
    expect(receipt).toMatchObject({ tokens: 10, parts: [tokens('pack', 250n)] })
  })

  it('tokens beyond 80 million are for money alone', async () => {
    const { limits, credit } = the()
    await credit(pack('pack', { weights: { 'qwen3-max': '100' } }), 20_000_000_000n)
    const most = { grant_tokens: 80_000_000, minimum_tokens: 80_000_000 }
    const whole = { ...tokens('pack', 8_000_000_000n), weight_micro: 100_000_000 }
    expect(receiptOf(await limits.hold(holdRequest('a', most))).parts).toEqual([whole])
    expect(reasonOf(await limits.hold(holdRequest('b', { ...most, grant_tokens: 80_000_001, minimum_tokens: 80_000_001 })))).toBe('balance')
    expect(receiptOf(await limits.hold(holdRequest('c', { ...most, grant_tokens: 80_000_001 }))).parts).toEqual([whole])
  })
}

function extendedTests(the: () => Subject): void {
  const more = (total: number) => ({ id: 'a', tenant: 'acme', tokens: total, amount_nano: BigInt(total), lease_ms: 30_000 })

  it('an extension takes the tokens that are missing from the same pack, in one part', async () => {
    const { limits, credit } = the()
    await credit(pack('pack', { weights: { 'qwen3-max': '0.5' } }), 100n)
    await limits.hold(holdRequest('a', { tokens: 101 }))
    const parts = [{ ...tokens('pack', 76n), weight_micro: 500_000 }]
    // 101 tokens held 51 units, which are 102 tokens; the other 50 take 25 more.
    expect(await limits.extend([more(152)])).toMatchObject([{ state: 'extended', receipt: { tokens: 152, amount_nano: 152n, parts } }])
    expect(await limits.extend([more(152)])).toMatchObject([{ state: 'extended', receipt: { parts } }])
    expect(await limits.balance('acme')).toMatchObject({ held_nano: 0n, grants: [{ balance: 100n, held: 76n }] })
  })

  it('an extension beyond the pack needs money for the whole, or is refused and leaves the pack alone', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 150n)
    await limits.hold(holdRequest('a'))
    const before = await limits.balance('acme')
    expect(await limits.extend([more(200)])).toMatchObject([
      { state: 'refused', refusal: { reason: 'balance', available: 0n, needed: 200n } },
    ])
    expect(await limits.balance('acme')).toEqual(before)
    await credit(grant('wallet'), 199n)
    // What is needed is more than what is there, as a refusal must have it.
    expect(await limits.extend([more(200)])).toMatchObject([
      { state: 'refused', refusal: { reason: 'balance', available: 199n, needed: 200n } },
    ])
    await credit(grant('wallet'), 1n)
    const parts = [tokens('pack', 150n), money('wallet', 200n)]
    expect(await limits.extend([more(200)])).toMatchObject([{ state: 'extended', receipt: { parts } }])
  })

  it('a request pack does not join a request that something else pays for', async () => {
    const { limits, credit } = the()
    await credit(pack('pack'), 150n)
    await credit(grant('calls', { unit: 'requests', priority: 2 }), 5n)
    await limits.hold(holdRequest('a'))
    expect(await limits.extend([more(200)])).toMatchObject([{ state: 'refused', refusal: { reason: 'balance' } }])
    expect(await limits.extend([more(150)])).toMatchObject([{ state: 'extended', receipt: { parts: [tokens('pack', 150n)] } }])
  })

  it('a held part keeps its weight when the grant gets another', async () => {
    const { limits, credit } = the()
    await credit(pack('pack', { weights: { 'qwen3-max': '2' } }), 1000n)
    await limits.hold(holdRequest('a'))
    await credit(pack('pack', { weights: { 'qwen3-max': '3' } }), 0n)
    expect(await limits.extend([more(150)])).toMatchObject([{ receipt: { parts: [{ amount: 300n, weight_micro: 2_000_000 }] } }])
    expect(receiptOf(await limits.hold(holdRequest('b'))).parts).toMatchObject([{ amount: 300n, weight_micro: 3_000_000 }])
  })
}

function expiryTests(the: () => Subject): void {
  const soon = { expires_at: ADMITTED_AT + 1000 }

  it.each([
    ['tokens', 'tokens', 40n],
    ['requests', 'requests', 1n],
    ['money', 'nano_cny', 40n],
  ] as const)(
    'a grant of %s that expires with a hold open pays what was held, and what is not used is not there again',
    async (_, unit, held) => {
      const { limits, clock, credit } = the()
      await credit(grant('old', { unit, priority: 1, ...soon }), 100n)
      const part = { grant: 'old', unit, amount: held }
      expect(receiptOf(await limits.hold(holdRequest('a', { tokens: 40, amount_nano: 40n }))).parts).toEqual([part])
      clock.advance(1000)
      expect(reasonOf(await limits.hold(holdRequest('b', { tokens: 1, amount_nano: 1n })))).toBe('balance')
      expect((await limits.balance('acme')).grants).toMatchObject([{ balance: 100n, held }])
      await limits.settle(settleRequest('a', 0n, [{ ...part, amount: 1n }], 1))
      expect(await limits.balance('acme')).toMatchObject({ available_nano: 0n, held_nano: 0n, grants: [{ balance: 99n, held: 0n }] })
      expect(reasonOf(await limits.hold(holdRequest('c', { tokens: 1, amount_nano: 1n })))).toBe('balance')
    },
  )

  it('an extension takes nothing from a grant that has expired meanwhile', async () => {
    const { limits, clock, credit } = the()
    await credit(pack('old', soon), 500n)
    await credit(pack('new', { priority: 2 }), 500n)
    await limits.hold(holdRequest('a'))
    clock.advance(1000)
    const [extended] = await limits.extend([{ id: 'a', tenant: 'acme', tokens: 150, amount_nano: 150n, lease_ms: 30_000 }])
    expect(extended).toMatchObject({ state: 'extended', receipt: { parts: [tokens('old', 100n), tokens('new', 50n)] } })
  })

  it('a later expiry makes an expired grant pay again', async () => {
    const { limits, clock, credit } = the()
    await credit(grant('promo', soon), 100n)
    clock.advance(1000)
    expect(reasonOf(await limits.hold(holdRequest('a')))).toBe('balance')
    await credit(grant('promo', { expires_at: ADMITTED_AT + 2000 }), 0n)
    expect(reasonOf(await limits.hold(holdRequest('b')))).toBe('held')
    clock.advance(1000)
    expect((await limits.balance('acme')).available_nano).toBe(0n)
  })
}
