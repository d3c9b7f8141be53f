import { beforeEach, describe, expect, it } from 'vitest'
import type { PaymentPart } from '../../src/money/grant.ts'
import type {
  GrantTerms,
  HoldRequest,
  HoldResult,
  LimitKind,
  LimitRule,
  Limits,
  SettleRequest,
  WindowBounds,
} from '../../src/storage/ports.ts'
import { ADMITTED_AT, type TestClock, testClock } from '../support/storage.ts'

const HOUR_MS = 3_600_000

export function holdRequest(id: string, overrides: Partial<HoldRequest> = {}): HoldRequest {
  return {
    v: 1,
    id,
    tenant: 'acme',
    project: 'web',
    key: 'key-1',
    model: 'qwen3-max',
    lease_ms: 30_000,
    tokens: 100,
    amount_nano: 100n,
    grant_tokens: overrides.tokens ?? 100,
    minimum_tokens: overrides.tokens ?? 100,
    minimum_nano: overrides.amount_nano ?? 100n,
    rules: [],
    credit_line_nano: 0n,
    ...overrides,
  }
}

export function grant(id: string, overrides: Partial<GrantTerms> = {}): GrantTerms {
  return { id, tenant: 'acme', unit: 'nano_cny', priority: 10, expires_at: null, created_at: 1, models: null, weights: null, ...overrides }
}

function rule(kind: LimitKind, limit: bigint, window: WindowBounds | null = null): LimitRule {
  return { scope: 'key', scope_id: 'key-1', model: null, kind, limit, window }
}

function settleRequest(id: string, amount_nano: bigint, parts?: readonly PaymentPart[], tokens = 50): SettleRequest {
  const wallet = { grant: 'wallet', unit: 'nano_cny', amount: amount_nano } as const
  return { id, tenant: 'acme', admitted_at: ADMITTED_AT, tokens, amount_nano, parts: parts ?? [wallet] }
}

function reasonOf(result: HoldResult): string {
  return result.ok ? 'held' : result.refusal.reason
}

function receiptOf(result: HoldResult) {
  if (!result.ok) throw new Error(`refused: ${result.refusal.reason}`)
  return result.receipt
}

interface Subject {
  readonly limits: Limits
  readonly clock: TestClock
  readonly credit: (terms: GrantTerms, delta: bigint) => Promise<void>
}

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
    rateTests(() => subject)
    windowTests(() => subject)
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

function grantTests(the: () => Subject): void {
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

function rateTests(the: () => Subject): void {
  it('refuses above requests per minute and says when to come back', async () => {
    const { limits, clock } = the()
    const rules = [rule('requests_per_minute', 2n)]
    const free = { amount_nano: 0n, rules }
    await limits.hold(holdRequest('a', free))
    await limits.hold(holdRequest('b', free))
    const refused = await limits.hold(holdRequest('c', free))
    expect(refused).toMatchObject({ ok: false, refusal: { reason: 'rate', available: 0n, needed: 1n, frees_at_ms: ADMITTED_AT + 30_000 } })
    expect(refused.rates.requests).toEqual({ limit: 2, remaining: 0, reset_ms: 60_000 })
    clock.advance(29_999)
    expect(reasonOf(await limits.hold(holdRequest('d', free)))).toBe('rate')
    clock.advance(1)
    expect(reasonOf(await limits.hold(holdRequest('e', free)))).toBe('held')
  })

  it('a settle gives back unused tokens, or leaves a debt that time pays', async () => {
    const { limits, clock } = the()
    const free = { amount_nano: 0n, rules: [rule('tokens_per_minute', 600n)], tokens: 600 }
    await limits.hold(holdRequest('a', free))
    await limits.settle(settleRequest('a', 0n, [], 100))
    expect((await limits.hold(holdRequest('b', { ...free, tokens: 500 }))).ok).toBe(true)
    await limits.settle(settleRequest('b', 0n, [], 800))
    expect(await limits.hold(holdRequest('c', { ...free, tokens: 10 }))).toMatchObject({
      refusal: { reason: 'rate', frees_at_ms: ADMITTED_AT + 31_000 },
    })
    clock.advance(31_000)
    expect((await limits.hold(holdRequest('d', { ...free, tokens: 10 }))).ok).toBe(true)
  })

  it('a request larger than the whole rate is refused at once, without a time to come back', async () => {
    const { limits } = the()
    const rules = [rule('tokens_per_minute', 50n)]
    const refused = await limits.hold(holdRequest('a', { amount_nano: 0n, rules }))
    expect(refused).toMatchObject({ refusal: { reason: 'rate', available: 50n, needed: 100n, frees_at_ms: null } })
    expect(refused.rates.tokens).toMatchObject({ remaining: 50 })
  })

  it('a changed rate keeps what was used', async () => {
    const { limits } = the()
    const held = (id: string, limit: bigint) =>
      limits.hold(holdRequest(id, { amount_nano: 0n, rules: [rule('requests_per_minute', limit)] }))
    await held('a', 3n)
    await held('b', 3n)
    expect((await held('c', 10n)).rates.requests?.remaining).toBe(7)
    expect(reasonOf(await held('d', 3n))).toBe('rate')
  })

  it('counts what runs at once', async () => {
    const { limits } = the()
    const free = { amount_nano: 0n, rules: [rule('concurrency', 1n)] }
    await limits.hold(holdRequest('a', free))
    expect(await limits.hold(holdRequest('b', free))).toMatchObject({ refusal: { reason: 'concurrency', available: 1n, held: 1n } })
    await limits.settle(settleRequest('a', 0n, []))
    expect(reasonOf(await limits.hold(holdRequest('c', free)))).toBe('held')
  })
}

function windowTests(the: () => Subject): void {
  const day: WindowBounds = {
    name: 'day',
    start_ms: ADMITTED_AT - HOUR_MS,
    end_ms: ADMITTED_AT + HOUR_MS,
    next_end_ms: ADMITTED_AT + 25 * HOUR_MS,
  }

  it('a budget holds, then counts what was spent', async () => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const rules = [rule('budget', 150n)]
    await limits.hold(holdRequest('a', { rules }))
    expect(await limits.hold(holdRequest('b', { amount_nano: 51n, rules }))).toMatchObject({
      refusal: { reason: 'budget', available: 50n, held: 100n, needed: 51n, frees_at_ms: null },
    })
    await limits.settle(settleRequest('a', 30n))
    expect(reasonOf(await limits.hold(holdRequest('c', { amount_nano: 120n, rules })))).toBe('held')
  })

  it('a window is refused with its end, and starts anew there; a settle belongs to the window of its admission', async () => {
    const { limits, clock } = the()
    const free = { amount_nano: 0n, rules: [rule('tokens_window', 150n, day)] }
    await limits.hold(holdRequest('a', free))
    expect(await limits.hold(holdRequest('b', free))).toMatchObject({
      refusal: { reason: 'window', available: 50n, frees_at_ms: day.end_ms },
    })
    clock.advance(HOUR_MS)
    expect(reasonOf(await limits.hold(holdRequest('c', free)))).toBe('held')
    await limits.settle(settleRequest('a', 0n, [], 140))
    expect(await limits.hold(holdRequest('d', free))).toMatchObject({
      refusal: { reason: 'window', available: 50n, frees_at_ms: day.next_end_ms },
    })
  })

  it('a five-hour window starts at its first use', async () => {
    const { limits, clock } = the()
    const window = { ...day, name: '5h' } as const
    const free = { amount_nano: 0n, rules: [rule('requests_window', 1n, window)] }
    clock.advance(HOUR_MS)
    await limits.hold(holdRequest('a', free))
    expect(await limits.hold(holdRequest('b', free))).toMatchObject({
      refusal: { reason: 'window', frees_at_ms: ADMITTED_AT + 6 * HOUR_MS },
    })
    clock.advance(5 * HOUR_MS)
    expect(reasonOf(await limits.hold(holdRequest('c', free)))).toBe('held')
  })

  it('limits of one key leave another alone', async () => {
    const { limits } = the()
    const free = { amount_nano: 0n }
    await limits.hold(holdRequest('a', { ...free, rules: [rule('concurrency', 1n)] }))
    const other = { ...rule('concurrency', 1n), scope_id: 'key-2' }
    expect(reasonOf(await limits.hold(holdRequest('b', { ...free, rules: [other] })))).toBe('held')
    const per_model = { ...rule('concurrency', 1n), model: 'qwen3-max' }
    expect(reasonOf(await limits.hold(holdRequest('c', { ...free, rules: [per_model] })))).toBe('held')
  })
}
