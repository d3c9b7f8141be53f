import { expect, it } from 'vitest'
import { windowAround } from '../../src/money/window.ts'
import type { LimitKind, LimitRule, LimitScope, WindowBounds } from '../../src/storage/ports.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { grant, holdRequest, reasonOf, rule, settleRequest, type Subject } from './limits-requests.ts'

const HOUR_MS = 3_600_000
const DAY: WindowBounds = {
  name: 'day',
  start_ms: ADMITTED_AT - HOUR_MS,
  end_ms: ADMITTED_AT + HOUR_MS,
  next_end_ms: ADMITTED_AT + 25 * HOUR_MS,
}

/** Rates, concurrency, windows and budgets: every kind at every scope, for all models or one. */
export function ruleTests(the: () => Subject): void {
  everyKindTests(the)
  rateTests(the)
  windowTests(the)
  calendarTests(the)
  usedTests(the)
}

/** What two holds of 100 tokens and 100 nano-yuan leave of a limit that has no room for a third. */
interface Full {
  readonly kind: LimitKind
  readonly limit: bigint
  readonly window: WindowBounds | null
  readonly reason: string
  readonly available: bigint
  readonly held: bigint
  readonly needed: bigint
  readonly frees_at_ms: number | null
}
const FULL: readonly Full[] = [
  {
    kind: 'requests_per_minute',
    limit: 2n,
    window: null,
    reason: 'rate',
    available: 0n,
    held: 0n,
    needed: 1n,
    frees_at_ms: ADMITTED_AT + 30_000,
  },
  {
    kind: 'tokens_per_minute',
    limit: 250n,
    window: null,
    reason: 'rate',
    available: 50n,
    held: 0n,
    needed: 100n,
    frees_at_ms: ADMITTED_AT + 12_000,
  },
  {
    kind: 'concurrency',
    limit: 2n,
    window: null,
    reason: 'concurrency',
    available: 2n,
    held: 2n,
    needed: 1n,
    frees_at_ms: ADMITTED_AT + 1000,
  },
  { kind: 'requests_window', limit: 2n, window: DAY, reason: 'window', available: 0n, held: 2n, needed: 1n, frees_at_ms: DAY.end_ms },
  { kind: 'tokens_window', limit: 250n, window: DAY, reason: 'window', available: 50n, held: 200n, needed: 100n, frees_at_ms: DAY.end_ms },
  { kind: 'amount_window', limit: 250n, window: DAY, reason: 'window', available: 50n, held: 200n, needed: 100n, frees_at_ms: DAY.end_ms },
  { kind: 'budget', limit: 250n, window: null, reason: 'budget', available: 50n, held: 200n, needed: 100n, frees_at_ms: null },
  { kind: 'budget', limit: 250n, window: DAY, reason: 'budget', available: 50n, held: 200n, needed: 100n, frees_at_ms: DAY.end_ms },
]
const SCOPES: readonly (readonly [LimitScope, string])[] = [
  ['key', 'key-1'],
  ['project', 'web'],
  ['tenant', 'acme'],
]
const CASES = FULL.flatMap((full) =>
  SCOPES.flatMap(([scope, scope_id]) =>
    [null, 'qwen3-max'].map((model) => {
      const { kind, limit, window } = full
      const name = `${kind}${window === null ? '' : ` per ${window.name}`} of a ${scope}, ${model === null ? 'all models' : 'one model'}`
      const limited: LimitRule = { scope, scope_id, model, kind, limit, window }
      return { ...full, name, limited }
    }),
  ),
)

function everyKindTests(the: () => Subject): void {
  it.each(CASES)('$name: a third that does not fit is refused, changes nothing, and fits when one is given back', async (full) => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const wide = CASES.map(({ limited }) => ({ ...limited, limit: 100_000n })).filter((other) => other.kind !== full.kind)
    const rules = [...wide, full.limited]
    await limits.hold(holdRequest('a', { rules }))
    await limits.hold(holdRequest('b', { rules }))
    const [balance, states] = [await limits.balance('acme'), await limits.states(rules)]
    const refused = await limits.hold(holdRequest('c', { rules }))
    const { reason, available, held, needed, frees_at_ms } = full
    expect(refused).toMatchObject({ ok: false, refusal: { reason, rule: full.limited, available, held, needed, frees_at_ms } })
    expect([await limits.balance('acme'), await limits.states(rules)]).toEqual([balance, states])
    await limits.release('a', 'acme')
    expect(reasonOf(await limits.hold(holdRequest('d', { rules })))).toBe('held')
    expect(reasonOf(await limits.hold(holdRequest('e', { rules })))).toBe(reason)
  })

  it.each(CASES)('$name: another scope, another of the same scope, and another model have their own', async (full) => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const { limited, reason } = full
    const held = async (id: string, one: LimitRule) => reasonOf(await limits.hold(holdRequest(id, { rules: [one] })))
    for (const id of ['a', 'b']) expect(await held(id, limited)).toBe('held')
    expect(await held('c', limited)).toBe(reason)
    expect(await held('d', { ...limited, scope_id: 'other' })).toBe('held')
    expect(await held('e', { ...limited, scope: limited.scope === 'key' ? 'project' : 'key' })).toBe('held')
    expect(await held('f', { ...limited, model: 'another' })).toBe('held')
  })

  it('the tightest of several rates is the one that is told', async () => {
    const { limits } = the()
    const wide = { ...rule('requests_per_minute', 100n), scope: 'tenant', scope_id: 'acme' } as const
    const { rates } = await limits.hold(holdRequest('a', { amount_nano: 0n, rules: [wide, rule('requests_per_minute', 10n)] }))
    expect(rates).toEqual({ requests: { limit: 10, remaining: 9, reset_ms: 6000 }, tokens: null })
  })

  it('the rates are told with a refusal for whatever else', async () => {
    const { limits } = the()
    const rules = [rule('requests_per_minute', 10n), rule('tokens_per_minute', 600n)]
    const refused = await limits.hold(holdRequest('a', { rules }))
    expect(refused).toMatchObject({ ok: false, refusal: { reason: 'balance' } })
    expect(refused.rates).toEqual({
      requests: { limit: 10, remaining: 10, reset_ms: 0 },
      tokens: { limit: 600, remaining: 600, reset_ms: 0 },
    })
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
    const free = { amount_nano: 0n, rules: [rule('tokens_window', 150n, DAY)] }
    await limits.hold(holdRequest('a', free))
    expect(await limits.hold(holdRequest('b', free))).toMatchObject({
      refusal: { reason: 'window', available: 50n, frees_at_ms: DAY.end_ms },
    })
    clock.advance(HOUR_MS)
    expect(reasonOf(await limits.hold(holdRequest('c', free)))).toBe('held')
    await limits.settle(settleRequest('a', 0n, [], 140))
    expect(await limits.hold(holdRequest('d', free))).toMatchObject({
      refusal: { reason: 'window', available: 50n, frees_at_ms: DAY.next_end_ms },
    })
  })

  it('a five-hour window starts at its first use', async () => {
    const { limits, clock } = the()
    const window = { ...DAY, name: '5h' } as const
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

function calendarTests(the: () => Subject): void {
  // Berlin puts its clocks forward on Sunday 2027-03-28 at 02:00: that day has 23 hours, its week 167, its month 743.
  it.each([
    ['day', '2027-03-27T23:00:00Z', '2027-03-28T22:00:00Z', '2027-03-29T22:00:00Z'],
    ['week', '2027-03-21T23:00:00Z', '2027-03-28T22:00:00Z', '2027-04-04T22:00:00Z'],
    ['month', '2027-02-28T23:00:00Z', '2027-03-31T22:00:00Z', '2027-04-30T22:00:00Z'],
  ] as const)('a %s in a zone that changes its clocks meanwhile begins and ends at local midnight', async (name, ...boundaries) => {
    const { limits, clock } = the()
    const [start_ms = 0, end_ms = 0, next_end_ms = 0] = boundaries.map((text) => Date.parse(text))
    const go = (to_ms: number): void => clock.advance(to_ms - clock.now_ms())
    const limited = (): LimitRule => rule('requests_window', 1n, windowAround(name, 'Europe/Berlin', clock.now_ms()))
    const held = (id: string, one = limited()) => limits.hold(holdRequest(id, { amount_nano: 0n, rules: [one] }))
    go(start_ms - 1)
    expect(reasonOf(await held('before'))).toBe('held')
    expect(await held('before-2')).toMatchObject({ refusal: { reason: 'window', frees_at_ms: start_ms } })
    go(start_ms)
    const stale = limited()
    expect(reasonOf(await held('first'))).toBe('held')
    expect(await held('first-2')).toMatchObject({ refusal: { reason: 'window', frees_at_ms: end_ms } })
    go(end_ms - 1)
    expect(await held('last', stale)).toMatchObject({ refusal: { reason: 'window', frees_at_ms: end_ms } })
    go(end_ms)
    // Asked with the boundaries of a moment ago: the driver's clock selects the next window.
    expect(reasonOf(await held('next', stale))).toBe('held')
    expect(await held('next-2', stale)).toMatchObject({ refusal: { reason: 'window', frees_at_ms: next_end_ms } })
    expect(await held('next-3')).toMatchObject({ refusal: { reason: 'window', frees_at_ms: next_end_ms } })
    go(next_end_ms)
    expect(reasonOf(await held('after'))).toBe('held')
  })

  it('a five-hour window lasts from its first use to the millisecond, and the next begins with the next use', async () => {
    const { limits, clock } = the()
    const limited = (): LimitRule => rule('requests_window', 1n, windowAround('5h', 'Asia/Shanghai', clock.now_ms()))
    const held = (id: string) => limits.hold(holdRequest(id, { amount_nano: 0n, rules: [limited()] }))
    await held('a')
    clock.advance(5 * HOUR_MS - 1)
    expect(await held('b')).toMatchObject({ refusal: { frees_at_ms: ADMITTED_AT + 5 * HOUR_MS } })
    clock.advance(1 + 2 * HOUR_MS)
    await held('c')
    clock.advance(HOUR_MS)
    expect(await held('d')).toMatchObject({ refusal: { frees_at_ms: ADMITTED_AT + 12 * HOUR_MS } })
  })
}

function usedTests(the: () => Subject): void {
  it.each([
    ['tokens_window', DAY, 'window'],
    ['amount_window', DAY, 'window'],
    ['budget', null, 'budget'],
    ['budget', DAY, 'budget'],
  ] as const)('%s: a settle beyond the limit counts as it is, and only a later window forgets it', async (kind, window, reason) => {
    const { limits, clock, credit } = the()
    await credit(grant('wallet'), 1000n)
    const rules = [rule(kind, 150n, window)]
    const small = { rules, tokens: 1, amount_nano: 1n }
    await limits.hold(holdRequest('a', { rules }))
    await limits.hold(holdRequest('running', { ...small, tokens: 50, amount_nano: 50n }))
    await limits.settle(settleRequest('a', 400n, undefined, 400))
    expect(await limits.hold(holdRequest('b', small))).toMatchObject({ refusal: { reason, available: 0n, held: 50n, needed: 1n } })
    await limits.settle(settleRequest('running', 10n, undefined, 10))
    expect((await limits.states(rules))[0]).toMatchObject({ used: 410n, held: 0n, available: 0n })
    clock.advance(HOUR_MS)
    expect(reasonOf(await limits.hold(holdRequest('c', small)))).toBe(window === null ? reason : 'held')
  })

  it.each(FULL)('$kind: a limit that is changed keeps what was used', async ({ kind, limit, window, reason }) => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const held = async (id: string, of: bigint) => reasonOf(await limits.hold(holdRequest(id, { rules: [rule(kind, of, window)] })))
    for (const id of ['a', 'b']) expect(await held(id, limit)).toBe('held')
    expect(await held('c', limit)).toBe(reason)
    const one = limit > 2n ? 100n : 1n
    expect(await held('d', limit + one)).toBe('held')
    expect(await held('e', limit + one)).toBe(reason)
    expect(await held('f', limit)).toBe(reason)
    expect(await held('g', one)).toBe(reason)
  })

  it.each([
    ['budget', null, 'budget'],
    ['amount_window', DAY, 'window'],
  ] as const)('%s: caps an answer as money does, down to its minimum', async (kind, window, reason) => {
    const { limits, credit } = the()
    await credit(grant('wallet'), 1000n)
    const rules = [rule(kind, 160n, window)]
    await limits.hold(holdRequest('a', { rules }))
    const capped = await limits.hold(holdRequest('b', { rules, minimum_nano: 50n }))
    expect(capped).toMatchObject({ ok: true, receipt: { amount_nano: 60n, parts: [{ amount: 60n }] } })
    await limits.settle(settleRequest('b', 11n))
    expect(await limits.hold(holdRequest('c', { rules, minimum_nano: 50n }))).toMatchObject({
      refusal: { reason, available: 49n, held: 100n, needed: 100n },
    })
  })

  it('a budget holds the whole price of an answer that tokens pay for', async () => {
    const { limits, credit } = the()
    await credit(grant('pack', { unit: 'tokens' }), 1000n)
    const rules = [rule('budget', 150n)]
    await limits.hold(holdRequest('a', { rules }))
    expect(await limits.hold(holdRequest('b', { rules }))).toMatchObject({ refusal: { reason: 'budget', available: 50n, held: 100n } })
    await limits.settle(settleRequest('a', 40n, [{ grant: 'pack', unit: 'tokens', amount: 40n }]))
    expect(reasonOf(await limits.hold(holdRequest('c', { rules })))).toBe('held')
  })
}
