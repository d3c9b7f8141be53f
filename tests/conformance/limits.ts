import { beforeEach, describe, expect, it } from 'vitest'
import type { GrantTerms, Limits } from '../../src/storage/ports.ts'
import { ADMITTED_AT, type TestClock, testClock } from '../support/clock.ts'
import { grantTests } from './limits-grants.ts'
import { grant, holdRequest, reasonOf, receiptOf, rule, settleRequest, type Subject } from './limits-requests.ts'
import { ruleTests } from './limits-rules.ts'

/** Every driver of {@link Limits} passes these. `make` gives empty limits that tell the time by the given clock. */
export function limitsConformance(name: string, make: (clock: TestClock) => Limits | Promise<Limits>): void {
  describe(`limits: ${name}`, () => {
    let subject: Subject
    beforeEach(async () => {
      const clock = testClock()
      const limits = await make(clock)
      let seq = 0
      const credit = async (terms: GrantTerms, delta: bigint): Promise<void> => {
        seq += 1
        expect(await limits.credit({ grant: terms, delta, seq })).toBe('applied')
      }
      subject = { limits, clock, credit }
    })
    moneyTests(() => subject)
    grantTests(() => subject)
    lifeTests(() => subject)
    extensionTests(() => subject)
    ruleTests(() => subject)
  })
}

function moneyTests(the: () => Subject): void {
  it('holds money before and charges it after', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const receipt = receiptOf(await limits.hold(holdRequest('a', { amount_nano: 300n })))
    expect(receipt).toMatchObject({ id: 'a', admitted_at: ADMITTED_AT, amount_nano: 300n })
    expect(receipt.parts).toEqual([{ grant: 'wallet', unit: 'nano_cny', amount: 300n }])
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 700n, held_nano: 300n, open_holds: 1 })
    expect(await limits.settle(settleRequest('a', 120n))).toBe('settled')
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 880n, held_nano: 0n, open_holds: 0 })
    expect(await limits.openHolds()).toBe(0)
  })

  it('gives a charge back that another replaces, once', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    receiptOf(await limits.hold(holdRequest('a', { amount_nano: 300n })))
    const { parts } = settleRequest('a', 120n)
    const nothing = { ...settleRequest('a', 0n), parts: [], replaces: parts }
    expect(await limits.settle(settleRequest('a', 120n))).toBe('settled')
    expect(await limits.settle({ ...nothing, id: 'unknown' })).toBe('duplicate')
    expect([await limits.settle(nothing), await limits.settle(nothing)]).toEqual(['late', 'duplicate'])
    expect(await limits.settle(settleRequest('a', 120n))).toBe('duplicate')
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 1000n, held_nano: 0n, open_holds: 0 })
  })

  it('tells amounts apart that a double cannot', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 9_007_199_254_740_992n)
    expect(reasonOf(await limits.hold(holdRequest('a', { amount_nano: 9_007_199_254_740_993n })))).toBe('balance')
    expect(reasonOf(await limits.hold(holdRequest('b', { amount_nano: 9_007_199_254_740_992n })))).toBe('held')
  })

  it('never lets parallel holds promise the same money twice', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const results = await Promise.all(
      Array.from({ length: 100 }, (_, index) => limits.hold(holdRequest(`p${index}`, { amount_nano: 30n }))),
    )
    expect(results.filter((result) => result.ok)).toHaveLength(33)
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 10n, held_nano: 990n })
  })

  it('a refusal changes nothing and says what is missing', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 100n)
    const rules = [rule('requests_per_minute', 10n), rule('concurrency', 2n), rule('budget', 1000n)]
    const before = await limits.balance('acme')
    const refused = await limits.hold(holdRequest('a', { amount_nano: 101n, rules }))
    expect(refused).toMatchObject({
      ok: false,
      refusal: { reason: 'balance', available: 100n, held: 0n, needed: 101n, frees_at_ms: null },
    })
    expect(await limits.balance('acme')).toEqual(before)
    expect((await limits.hold(holdRequest('b', { rules }))).rates.requests).toMatchObject({ limit: 10, remaining: 9 })
  })

  it('goes below zero only as far as the credit line', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 50n)
    const line = { credit_line_nano: 100n }
    expect(receiptOf(await limits.hold(holdRequest('a', { amount_nano: 120n, ...line }))).parts).toEqual([
      { grant: 'wallet', unit: 'nano_cny', amount: 50n },
      { grant: 'credit', unit: 'nano_cny', amount: 70n },
    ])
    expect(reasonOf(await limits.hold(holdRequest('b', { amount_nano: 31n, ...line })))).toBe('balance')
    expect(reasonOf(await limits.hold(holdRequest('c', { amount_nano: 30n, ...line })))).toBe('held')
    expect((await limits.balance('acme')).available_nano).toBe(-100n)
  })

  it('holds what is there when that is enough for a shorter answer', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 60n)
    expect(receiptOf(await limits.hold(holdRequest('a', { amount_nano: 100n, minimum_nano: 40n }))).amount_nano).toBe(60n)
    expect(reasonOf(await limits.hold(holdRequest('b', { amount_nano: 100n, minimum_nano: 1n })))).toBe('balance')
  })

  it('charges an overrun and lets the next hold pay for it', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a', { amount_nano: 100n }))
    await limits.settle(settleRequest('a', 150n))
    expect((await limits.balance('acme')).available_nano).toBe(-50n)
    await credit(grant('promo', { priority: 1 }), 60n)
    expect(reasonOf(await limits.hold(holdRequest('b', { amount_nano: 11n })))).toBe('balance')
    expect(reasonOf(await limits.hold(holdRequest('c', { amount_nano: 10n })))).toBe('held')
  })

  it('applies credits of a tenant in their order, once', async () => {
    const { limits } = the()
    const wallet = grant('wallet')
    expect(await limits.credit({ grant: wallet, delta: 5n, seq: 2 })).toBe('gap')
    expect(await limits.credit({ grant: wallet, delta: 5n, seq: 1 })).toBe('applied')
    expect(await limits.credit({ grant: wallet, delta: 5n, seq: 1 })).toBe('duplicate')
    expect(await limits.credit({ grant: wallet, delta: -2n, seq: 2 })).toBe('applied')
    expect((await limits.balance('acme')).available_nano).toBe(3n)
  })
}

function lifeTests(the: () => Subject): void {
  it('the same id is the same hold, also after it is settled', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const first = receiptOf(await limits.hold(holdRequest('a')))
    expect(receiptOf(await limits.hold(holdRequest('a', { amount_nano: 500n })))).toEqual(first)
    expect(await limits.settle(settleRequest('a', 60n))).toBe('settled')
    expect(await limits.settle(settleRequest('a', 60n))).toBe('duplicate')
    expect(receiptOf(await limits.hold(holdRequest('a')))).toEqual(first)
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 940n, open_holds: 0 })
  })

  it('release gives everything back, once', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 100n)
    const rules = [rule('requests_per_minute', 5n), rule('tokens_per_minute', 500n), rule('budget', 100n), rule('concurrency', 1n)]
    await limits.hold(holdRequest('a', { rules }))
    await limits.release('a', 'acme')
    await limits.release('a', 'acme')
    const again = await limits.hold(holdRequest('b', { rules }))
    expect(again).toMatchObject({ ok: true, rates: { requests: { remaining: 4 }, tokens: { remaining: 400 } } })
    await limits.settle(settleRequest('b', 10n))
    await limits.release('b', 'acme')
    expect((await limits.balance('acme')).available_nano).toBe(90n)
  })

  it('extends to new totals, and the same extension twice changes nothing more', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a', { amount_nano: 30n }))
    const request = { id: 'a', tenant: 'acme', tokens: 200, amount_nano: 80n, lease_ms: 30_000 }
    const [first] = await limits.extend([request])
    expect(first).toMatchObject({ state: 'extended', receipt: { tokens: 200, amount_nano: 80n, parts: [{ amount: 80n }] } })
    expect(await limits.extend([request])).toEqual([first])
    const [refused] = await limits.extend([{ ...request, amount_nano: 101n }])
    expect(refused).toMatchObject({ state: 'refused', refusal: { reason: 'balance' } })
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 20n, held_nano: 80n })
    await limits.settle(settleRequest('a', 75n))
    expect(await limits.extend([request])).toEqual([{ id: 'a', state: 'lapsed' }])
  })

  it('sweeps a hold whose lease ended, keeps its parts until the sweep is charged, and takes a late settle instead', async () => {
    const { limits, clock, credit } = the()
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a', { rules: [rule('budget', 100n)] }))
    clock.advance(29_000)
    await limits.extend([{ id: 'a', tenant: 'acme', tokens: 100, amount_nano: 100n, lease_ms: 30_000 }])
    clock.advance(2000)
    expect(await limits.sweep(clock.now_ms())).toEqual([])
    clock.advance(30_000)
    expect(await limits.sweep(clock.now_ms())).toMatchObject([{ id: 'a' }])
    expect(await limits.sweep(clock.now_ms())).toEqual([])
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 0n, held_nano: 100n })
    expect(await limits.settle({ ...settleRequest('a', 20n), swept: true })).toBe('settled')
    expect(await limits.settle(settleRequest('a', 20n))).toBe('duplicate')
    expect(await limits.settle(settleRequest('a', 70n))).toBe('late')
    expect(await limits.settle(settleRequest('a', 70n))).toBe('duplicate')
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 30n, held_nano: 0n })
    const next = await limits.hold(holdRequest('b', { amount_nano: 31n, rules: [rule('budget', 100n)] }))
    expect(next).toMatchObject({ ok: false, refusal: { reason: 'budget', available: 30n } })
  })

  it("a settle between the sweep and the sweep's charge wins, and so does a lease that never ended", async () => {
    const { limits, clock, credit } = the()
    await credit(grant('wallet'), 1000n)
    await limits.hold(holdRequest('a', { rules: [rule('budget', 100n)] }))
    await limits.hold(holdRequest('released'))
    clock.advance(31_000)
    await limits.hold(holdRequest('running'))
    await limits.sweep(clock.now_ms())
    expect(await limits.settle(settleRequest('a', 70n))).toBe('settled')
    await limits.release('released', 'acme')
    for (const id of ['a', 'released', 'running']) {
      expect(await limits.settle({ ...settleRequest(id, 20n), swept: true })).toBe('duplicate')
    }
    expect(await limits.settle(settleRequest('a', 70n))).toBe('duplicate')
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 830n, held_nano: 100n, open_holds: 1 })
  })

  it('a swept hold that delivered nothing is released, and a late settle still charges', async () => {
    const { limits, clock, credit } = the()
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a'))
    clock.advance(31_000)
    await limits.sweep(clock.now_ms())
    await limits.release('a', 'acme')
    expect((await limits.balance('acme')).available_nano).toBe(100n)
    expect(await limits.settle(settleRequest('a', 40n))).toBe('late')
    expect((await limits.balance('acme')).available_nano).toBe(60n)
  })

  it('a blocked key or tenant is refused at the next hold', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    await limits.block('key', 'key-1', true)
    expect(reasonOf(await limits.hold(holdRequest('a')))).toBe('key_revoked')
    expect(reasonOf(await limits.hold(holdRequest('b', { key: 'key-2' })))).toBe('held')
    await limits.block('key', 'key-1', false)
    await limits.block('tenant', 'acme', true)
    expect(reasonOf(await limits.hold(holdRequest('c')))).toBe('tenant_suspended')
  })
}

function extensionTests(the: () => Subject): void {
  const window = { name: 'day', start_ms: ADMITTED_AT, end_ms: ADMITTED_AT + 3_600_000, next_end_ms: ADMITTED_AT + 7_200_000 } as const

  it.each([
    ['budget', 'budget', 119n],
    ['money window', 'amount_window', 119n],
    ['token window', 'tokens_window', 199n],
  ] as const)('an extension that a %s refuses leaves the hold as it was', async (_, kind, limit) => {
    const { limits, clock, credit } = the()
    await credit(grant('wallet'), 1000n)
    const rules = [rule(kind, limit, kind === 'budget' ? null : window), rule('tokens_per_minute', 1000n), rule('concurrency', 2n)]
    const before = receiptOf(await limits.hold(holdRequest('a', { rules })))
    const [balance, states] = [await limits.balance('acme'), await limits.states(rules)]
    const more = { id: 'a', tenant: 'acme', tokens: 200, amount_nano: 120n, lease_ms: 60_000 }
    const needed = kind === 'tokens_window' ? 100n : 20n
    expect(await limits.extend([more])).toMatchObject([
      { id: 'a', state: 'refused', refusal: { reason: kind === 'budget' ? 'budget' : 'window', rule: { kind }, held: 100n, needed } },
    ])
    expect([await limits.balance('acme'), await limits.states(rules)]).toEqual([balance, states])
    const same = { id: 'a', tenant: 'acme', tokens: before.tokens, amount_nano: before.amount_nano, lease_ms: 1 }
    expect(await limits.extend([same])).toEqual([{ id: 'a', state: 'extended', receipt: before }])
    // Its lease was not renewed either.
    clock.advance(30_001)
    expect(await limits.sweep(clock.now_ms())).toEqual([before])
  })

  it('an extension that money refuses leaves the hold as it was', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 110n)
    const before = receiptOf(await limits.hold(holdRequest('a')))
    const [refused] = await limits.extend([{ id: 'a', tenant: 'acme', tokens: 200, amount_nano: 120n, lease_ms: 60_000 }])
    expect(refused).toMatchObject({ state: 'refused', refusal: { reason: 'balance', rule: null, available: 10n, held: 100n, needed: 20n } })
    const same = { id: 'a', tenant: 'acme', tokens: 100, amount_nano: 100n, lease_ms: 1 }
    expect(await limits.extend([same])).toEqual([{ id: 'a', state: 'extended', receipt: before }])
  })

  it('a renewal changes nothing but the lease, and nothing refuses it', async () => {
    const { limits, clock, credit } = the()
    await credit(grant('pack', { unit: 'tokens', priority: 1, expires_at: ADMITTED_AT + 1000 }), 40n)
    await credit(grant('wallet'), 9n)
    const rules = [rule('budget', 60n), rule('tokens_window', 100n, window), rule('tokens_per_minute', 100n)]
    const capped = receiptOf(await limits.hold(holdRequest('a', { rules, minimum_tokens: 10, minimum_nano: 10n })))
    expect(capped).toMatchObject({ amount_nano: 60n, parts: [{ grant: 'pack', amount: 40n }] })
    const states = await limits.states(rules)
    clock.advance(20_000)
    const renewal = { id: 'a', tenant: 'acme', tokens: capped.tokens, amount_nano: capped.amount_nano, lease_ms: 30_000 }
    const receipt = { ...capped, expires_at: ADMITTED_AT + 50_000 }
    expect(await limits.extend([renewal])).toEqual([{ id: 'a', state: 'extended', receipt }])
    expect(await limits.extend([renewal])).toEqual([{ id: 'a', state: 'extended', receipt }])
    expect((await limits.states(rules)).slice(0, 2)).toEqual(states.slice(0, 2))
    clock.advance(29_000)
    expect(await limits.sweep(clock.now_ms())).toEqual([])
  })

  it('a release after the sweep was charged changes nothing', async () => {
    const { limits, clock, credit } = the()
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a'))
    clock.advance(31_000)
    await limits.sweep(clock.now_ms())
    await limits.settle({ ...settleRequest('a', 20n), swept: true })
    await limits.release('a', 'acme')
    expect(await limits.balance('acme')).toMatchObject({ available_nano: 80n, held_nano: 0n, open_holds: 0 })
    expect(await limits.settle(settleRequest('a', 30n))).toBe('late')
    await limits.release('a', 'acme')
    expect((await limits.balance('acme')).available_nano).toBe(70n)
  })

  it('another tenant extends, releases and settles nothing', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 100n)
    await limits.hold(holdRequest('a'))
    const other = { id: 'a', tenant: 'other', tokens: 100, amount_nano: 100n, lease_ms: 30_000 }
    expect(await limits.extend([other])).toEqual([{ id: 'a', state: 'lapsed' }])
    await limits.release('a', 'other')
    expect(await limits.balance('acme')).toMatchObject({ held_nano: 100n, open_holds: 1 })
  })
}
