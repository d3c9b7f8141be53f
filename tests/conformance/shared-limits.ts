import { beforeEach, describe, expect, it } from 'vitest'
import {
  type AccountBooks,
  bucketOf,
  type MeterBooks,
  type SettleOutcome,
  type SharedLimits,
  type UsageStreams,
} from '../../src/storage/cluster-ports.ts'
import type { CheckpointRow, GrantTerms, HoldRequest, LimitRule, OpenContext, SettleRequest } from '../../src/storage/ports.ts'
import { ADMITTED_AT, type TestClock, testClock } from '../support/clock.ts'
import { grant, holdRequest, reasonOf, receiptOf, rule, settleRequest } from './limits-requests.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const ACME = bucketOf('acme')
const BOLT = bucketOf('bolt')
const DAY = {
  name: 'day',
  start_ms: ADMITTED_AT - HOUR_MS,
  end_ms: ADMITTED_AT + HOUR_MS,
  next_end_ms: ADMITTED_AT + 25 * HOUR_MS,
} as const
const FIVE_HOURS = { ...DAY, name: '5h' } as const

type Driver = SharedLimits & UsageStreams
export interface ProcessOptions {
  readonly clock: TestClock
  readonly stream_cap?: number
}
/** Gives another process on the same empty storage each time that it is called. */
export type NewProcess = (options: ProcessOptions) => Promise<Driver>

interface Subject {
  readonly one: Driver
  readonly other: Driver
  readonly clock: TestClock
  readonly start: (options?: Partial<ProcessOptions>) => Promise<Driver>
}

/** Every driver of {@link SharedLimits} passes these, beside those of `Limits`. `make` gives empty storage. */
export function sharedLimitsConformance(name: string, make: () => NewProcess): void {
  describe(`shared limits: ${name}`, () => {
    let subject: Subject
    beforeEach(async () => {
      const clock = testClock()
      const new_process = make()
      const start = (options: Partial<ProcessOptions> = {}): Promise<Driver> => new_process({ clock, ...options })
      subject = { one: await start(), other: await start(), clock, start }
    })
    lifeTests(() => subject)
    reportTests(() => subject)
    fillTests(() => subject)
    settleTests(() => subject)
    orphanTests(() => subject)
    unsettledTests(() => subject)
    foreignTests(() => subject)
    streamTests(() => subject)
    sweepTests(() => subject)
    cutTests(() => subject)
    exactTests(() => subject)
  })
}

const CONTEXT: OpenContext = {
  v: 1,
  day: '2026-11-23',
  end_user: null,
  tags: { amount: '12' },
  protocol: 'chat_completions',
  audience: 'internal',
  registry_date: null,
  model_asked: 'auto',
  route: 'auto',
  domain: 'general',
  stream: true,
  thinking: false,
  prompt_tokens: 20,
  targets: [],
}

function checkpoint(id: string, output: number): CheckpointRow {
  const tokens = { input: 20, cached_input: 0, cache_write: 0, output, reasoning: 0 }
  const attempts = [{ endpoint: 'e', outcome: 'answered', http_status: 200, duration_ms: 5, cost_nano: 9_007_199_254_740_993n }]
  return { v: 1, id, at: ADMITTED_AT + output, endpoint: 'e', tokens, ttfe_ms: 3, attempts }
}

/** Opens buckets of an epoch with what a ledger says. */
async function open(
  limits: Driver,
  epoch: number,
  accounts: readonly AccountBooks[] = [],
  meters: readonly MeterBooks[] = [],
): Promise<void> {
  await limits.beginEpoch([ACME, BOLT], epoch)
  expect(await limits.fill(ACME, epoch, accounts, meters)).toBe(true)
  for (const bucket of [ACME, BOLT]) expect(await limits.openBucket(bucket, epoch)).toBe(true)
}

function books(grants: ReadonlyArray<readonly [GrantTerms, bigint]>, applied_seq = 1, credit_used_nano = 0n): AccountBooks {
  return { tenant: 'acme', applied_seq, credit_used_nano, grants: grants.map(([terms, balance]) => ({ terms, balance })) }
}

/** With an event whose ref tells this close from others. */
function withEvent(request: SettleRequest, ref = `n1 ${request.id}`, body = `{"id":"${request.id}"}`): SettleRequest {
  return { ...request, event: { ref, body } }
}

/** What a settle says. */
function said(state: SettleOutcome['state'], epoch: number | null, rest: Partial<SettleOutcome> = {}): SettleOutcome {
  return { state, epoch, appended: false, ref: null, replaced: false, ...rest }
}

function lifeTests(the: () => Subject): void {
  it('a bucket that nobody has opened refuses everything, and says why', async () => {
    const { one } = the()
    const calls: readonly (() => Promise<unknown>)[] = [
      () => one.hold(holdRequest('a')),
      () => one.extend([{ id: 'a', tenant: 'acme', tokens: 1, amount_nano: 1n, lease_ms: 1 }]),
      () => one.settle(settleRequest('a', 1n)),
      () => one.settleEvent(settleRequest('a', 1n)),
      () => one.release('a', 'acme'),
      () => one.credit({ grant: grant('wallet'), delta: 1n, seq: 1 }),
      () => one.balance('acme'),
      () => one.appliedSeq('acme'),
      () => one.states([rule('budget', 1n)]),
      () => one.sweepBucket(ACME, 10),
      () => one.cut(ACME, ['acme'], []),
      () => one.shift('acme', rule('budget', 1n), 1n, null),
    ]
    for (const step of ['absent', 'filling'] as const) {
      for (const call of calls) await expect(call()).rejects.toMatchObject({ name: 'LimitsUnavailable', kind: 'closed' })
      expect(await one.state([ACME])).toMatchObject([{ state: step }])
      await one.beginEpoch([ACME], 1)
    }
    expect([await one.openHolds(), await one.sweep(ADMITTED_AT)]).toEqual([0, []])
  })

  it('a bucket is wiped, reported to, filled and opened, each step once and in its epoch alone', async () => {
    const { one, other } = the()
    expect(await one.state([ACME, BOLT])).toEqual([
      { state: 'absent', epoch: null, run_id: null, reported: [], marks: [] },
      { state: 'absent', epoch: null, run_id: null, reported: [], marks: [] },
    ])
    expect([await one.report(ACME, 3, 'n1'), await one.fill(ACME, 3, [], []), await one.openBucket(ACME, 3)]).toEqual([false, false, false])
    await one.beginEpoch([ACME], 3)
    expect(await one.state([ACME])).toEqual([{ state: 'filling', epoch: 3, run_id: null, reported: [], marks: [] }])
    for (const epoch of [2, 4]) {
      expect(await one.report(ACME, epoch, 'n1')).toBe(false)
      expect(await one.fill(ACME, epoch, [books([[grant('wallet'), 5n]])], [])).toBe(false)
      expect(await one.openBucket(ACME, epoch)).toBe(false)
    }
    expect([await one.report(ACME, 3, 'n1'), await other.report(ACME, 3, 'n2'), await one.report(ACME, 3, 'n1')]).toEqual([
      true,
      true,
      true,
    ])
    expect(await one.fill(ACME, 3, [books([[grant('wallet'), 7n]])], [])).toBe(true)
    expect([await one.openBucket(ACME, 3), await other.openBucket(ACME, 3)]).toEqual([true, true])
    const [state] = await other.state([ACME])
    expect(state).toEqual({ state: 'open', epoch: 3, run_id: (await one.serverRuns())(ACME), reported: expect.any(Array), marks: [] })
    expect(state?.reported.toSorted()).toEqual(['n1', 'n2'])
    expect([await one.mark(ACME, 2, ['a', 'b']), await one.mark(BOLT, 3, ['a', 'b']), await one.mark(ACME, 3, ['a', 'b'])]).toEqual([
      false,
      false,
      true,
    ])
    expect(await other.state([ACME, BOLT])).toMatchObject([{ marks: ['a', 'b'] }, { state: 'absent', marks: [] }])
    expect([await one.report(ACME, 3, 'n3'), await one.fill(ACME, 3, [books([])], [])]).toEqual([false, false])
    expect((await one.balance('acme')).available_nano).toBe(7n)
  })

  it('an epoch that begins deletes everything of older ones, once', async () => {
    const { one } = the()
    await open(one, 1)
    await one.credit({ grant: grant('wallet'), delta: 1_000_000n, seq: 1 })
    await one.credit({ grant: grant('wallet', { tenant: 'bolt' }), delta: 5n, seq: 1 })
    await one.block('key', 'key-1', true)
    const rules = [rule('budget', 1_000_000n), rule('requests_per_minute', 100_000n)]
    for (let index = 0; index < 1500; index += 1) {
      await one.hold(
        holdRequest(`h${index}`, { amount_nano: 0n, key: 'key-2', rules: [{ ...rule('budget', 9n), scope_id: `k${index}` }, ...rules] }),
      )
    }
    await one.settle(withEvent(settleRequest('h0', 0n, [])))
    await one.beginEpoch([ACME], 2)
    await one.fill(ACME, 2, [], [])
    await one.openBucket(ACME, 2)
    expect(await one.tenants(ACME)).toEqual([])
    expect(await one.cut(ACME, ['acme'], rules)).toMatchObject({ epoch: 2, last_entry: null, holds: new Set() })
    expect(await one.balance('acme')).toEqual({ available_nano: 0n, held_nano: 0n, open_holds: 0, grants: [] })
    expect((await one.states(rules)).map(({ available, held }) => [available, held])).toEqual([
      [1_000_000n, 0n],
      [100_000n, 0n],
    ])
    expect([await one.lengths([ACME]), await one.openHolds()]).toEqual([[0], 0])
    // Blocks go too: whoever recovers writes them again. The other bucket is as it was.
    expect(reasonOf(await one.hold(holdRequest('again', { amount_nano: 0n })))).toBe('held')
    expect((await one.balance('bolt')).available_nano).toBe(5n)
    await one.credit({ grant: grant('wallet'), delta: 3n, seq: 1 })
    for (const epoch of [1, 2]) await one.beginEpoch([ACME], epoch)
    expect((await one.balance('acme')).available_nano).toBe(3n)
  })

  it('a key is blocked while its bucket is being filled, and stays so', async () => {
    const { one, other } = the()
    await one.beginEpoch([ACME, BOLT], 1)
    await other.block('key', 'key-1', true)
    await other.block('tenant', 'bolt', true)
    await open(one, 1, [books([[grant('wallet'), 100n]])])
    expect(reasonOf(await one.hold(holdRequest('a')))).toBe('key_revoked')
    expect(reasonOf(await one.hold(holdRequest('b', { key: 'key-2' })))).toBe('held')
    expect(reasonOf(await one.hold(holdRequest('c', { tenant: 'bolt', amount_nano: 0n })))).toBe('tenant_suspended')
  })

  it('extends what it can, and says so of the rest', async () => {
    const { one } = the()
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    await one.hold(holdRequest('a'))
    await one.hold(holdRequest('b', { tenant: 'bolt', amount_nano: 0n }))
    await one.beginEpoch([BOLT], 2)
    const renewal = (id: string, tenant: string) => ({ id, tenant, tokens: 100, amount_nano: 100n, lease_ms: 60_000 })
    expect(await one.extend([renewal('b', 'bolt'), renewal('a', 'acme')])).toMatchObject([{ id: 'a', state: 'extended' }])
    await expect(one.extend([renewal('b', 'bolt')])).rejects.toMatchObject({ kind: 'closed' })
    expect(await one.extend([])).toEqual([])
  })
}

/** A hold with shares of everything, paid for by everything. */
const RULES: readonly LimitRule[] = [
  rule('requests_per_minute', 100n),
  rule('tokens_per_minute', 10_000n),
  { ...rule('concurrency', 5n), scope: 'project', scope_id: 'web' },
  rule('requests_window', 10n, FIVE_HOURS),
  { ...rule('tokens_window', 5000n, DAY), model: 'qwen3-max' },
  { ...rule('amount_window', 5000n, DAY), scope: 'tenant', scope_id: 'acme' },
  { ...rule('budget', 5000n), scope: 'project', scope_id: 'web' },
]
const METERS = RULES.slice(3)
const GRANTS: ReadonlyArray<readonly [GrantTerms, bigint]> = [
  [grant('pack', { unit: 'tokens', priority: 1, weights: { 'qwen3-max': '1.5' }, models: ['qwen3-max'] }), 60n],
  [grant('calls', { unit: 'requests', priority: 9, models: ['other'] }), 2n],
  [grant('promo', { priority: 2, expires_at: ADMITTED_AT + 5 * HOUR_MS }), 70n],
  [grant('wallet', { priority: 3 }), 30n],
]

async function openAndHold(limits: Driver, overrides: Partial<HoldRequest> = {}) {
  await open(limits, 1, [books(GRANTS, 4)])
  const request = holdRequest('a', { rules: RULES, amount_nano: 150n, credit_line_nano: 500n, context: CONTEXT, ...overrides })
  return receiptOf(await limits.hold(request))
}

function reportTests(the: () => Subject): void {
  it('open holds are registered again, with all that they reserve', async () => {
    const { one, other, clock } = the()
    const { parts } = await openAndHold(one)
    expect(parts.map(({ grant: id, amount }) => [id, amount])).toEqual([
      ['pack', 60n],
      ['promo', 70n],
      ['wallet', 30n],
      ['credit', 50n],
    ])
    const more = { id: 'a', tenant: 'acme', tokens: 130, amount_nano: 180n, lease_ms: 40_000, checkpoint: checkpoint('a', 7) }
    const [extended] = await one.extend([more])
    expect(extended).toMatchObject({ state: 'extended' })
    const [before, states] = [await one.balance('acme'), await one.states(METERS)]
    clock.advance(35_000)
    await other.beginEpoch([ACME], 2)
    expect(await one.report(ACME, 2, 'n1')).toBe(true)
    await open(other, 2, [books(GRANTS, 4)])
    expect(await other.balance('acme')).toEqual(before)
    expect((await other.states(METERS)).map(({ held, used, resets_at_ms }) => [held, used, resets_at_ms])).toEqual(
      states.map(({ held, used, resets_at_ms }) => [held, used, resets_at_ms]),
    )
    expect((await other.states([RULES[2] ?? rule('budget', 0n)]))[0]).toMatchObject({ held: 1n, available: 4n })
    expect([await other.openHolds(), await other.appliedSeq('acme')]).toEqual([1, 4])
    // The lease goes on as long as the last one was, from the report on.
    const receipt = extended?.state === 'extended' ? { ...extended.receipt, expires_at: clock.now_ms() + 40_000 } : null
    expect(receiptOf(await other.hold(holdRequest('a')))).toEqual(receipt)
    clock.advance(39_000)
    expect(await other.sweepBucket(ACME, 10)).toEqual([])
    clock.advance(2000)
    expect(await other.sweepBucket(ACME, 10)).toEqual([{ receipt, context: CONTEXT, last: checkpoint('a', 7) }])
  })

  it('a hold that was registered again is extended and settled as if nothing had been', async () => {
    const { one, clock } = the()
    const { parts } = await openAndHold(one)
    await one.beginEpoch([ACME], 2)
    for (const _ of [1, 2]) expect(await one.report(ACME, 2, 'n1')).toBe(true)
    await open(one, 2, [books(GRANTS, 4)])
    clock.advance(1000)
    const more = { id: 'a', tenant: 'acme', tokens: 120, amount_nano: 160n, lease_ms: 40_000 }
    expect(await one.extend([more])).toMatchObject([{ state: 'extended', receipt: { amount_nano: 160n } }])
    expect(await one.extend([{ ...more, amount_nano: 5001n }])).toMatchObject([
      { state: 'refused', refusal: { reason: 'window', rule: { kind: 'amount_window' }, held: 160n } },
    ])
    const outcome = await one.settleEvent({ ...settleRequest('a', 90n, parts.slice(0, 2)), tokens: 80 })
    expect(outcome).toEqual(said('settled', 2))
    expect(await one.balance('acme')).toMatchObject({ held_nano: 0n, open_holds: 0, available_nano: 30n })
    expect((await one.states(METERS)).map(({ used, held }) => [used, held])).toEqual([
      [1n, 0n],
      [80n, 0n],
      [90n, 0n],
      [90n, 0n],
    ])
    expect((await one.states([RULES[2] ?? rule('budget', 0n)]))[0]).toMatchObject({ held: 0n })
  })

  it('holds of others, and those that are closed, are not registered', async () => {
    const { one, other } = the()
    await openAndHold(one)
    await other.hold(holdRequest('b', { amount_nano: 0n }))
    await one.hold(holdRequest('c', { amount_nano: 0n }))
    await one.hold(holdRequest('d', { amount_nano: 0n }))
    expect(['a', 'b', 'c'].map((id) => one.isMine(id))).toEqual([true, false, true])
    await one.release('c', 'acme')
    await one.settle(settleRequest('d', 0n, []))
    expect(['c', 'd'].map((id) => one.isMine(id))).toEqual([false, false])
    await one.beginEpoch([ACME], 2)
    await one.report(ACME, 2, 'n1')
    await open(one, 2, [books(GRANTS)])
    expect((await one.cut(ACME, ['acme'], [])).holds).toEqual(new Set(['a']))
  })

  it('a hold counts in the window of its admission, also after that was filled or is over', async () => {
    const { one, clock } = the()
    await open(one, 1)
    const limited = rule('tokens_window', 1000n, DAY)
    await one.hold(holdRequest('old', { amount_nano: 0n, rules: [limited] }))
    clock.advance(HOUR_MS)
    await one.hold(holdRequest('new', { amount_nano: 0n, rules: [limited], tokens: 300 }))
    for (const filled_first of [true, false]) {
      const epoch = filled_first ? 2 : 3
      await one.beginEpoch([ACME], epoch)
      const meters = [{ rule: limited, used: 40n, end_ms: DAY.next_end_ms }]
      if (filled_first) await one.fill(ACME, epoch, [], meters)
      await one.report(ACME, epoch, 'n1')
      if (!filled_first) await one.fill(ACME, epoch, [], meters)
      await one.openBucket(ACME, epoch)
      expect((await one.states([limited]))[0]).toMatchObject({ used: 40n, held: 300n, resets_at_ms: DAY.next_end_ms })
      const more = { id: 'old', tenant: 'acme', amount_nano: 0n, lease_ms: 1000 }
      expect(await one.extend([{ ...more, tokens: 1001 }])).toMatchObject([{ state: 'refused', refusal: { held: 100n, available: 900n } }])
    }
    await one.settle(settleRequest('old', 0n, [], 70))
    expect((await one.states([limited]))[0]).toMatchObject({ used: 40n, held: 300n })
    await one.settle(settleRequest('new', 0n, [], 200))
    expect((await one.states([limited]))[0]).toMatchObject({ used: 240n, held: 0n })
  })
}

function fillTests(the: () => Subject): void {
  it('what is filled is what is believed, also when it is filled again', async () => {
    const { one } = the()
    const budget = rule('budget', 1000n)
    const meters: readonly MeterBooks[] = [
      { rule: budget, used: 400n, end_ms: null },
      { rule: rule('requests_window', 10n, FIVE_HOURS), used: 3n, end_ms: ADMITTED_AT + 2 * HOUR_MS },
    ]
    await one.beginEpoch([ACME], 1)
    const wrong = [books([...GRANTS, [grant('gone'), 999n]], 9, 7n)]
    expect(await one.fill(ACME, 1, wrong, [{ rule: budget, used: 1n, end_ms: null }])).toBe(true)
    const right = [books([...GRANTS, [grant('owing'), -20n]], 4, 50n), { ...books([], 2), tenant: 'other' }]
    expect(await one.fill(ACME, 1, right, meters)).toBe(true)
    await one.openBucket(ACME, 1)
    const view = await one.balance('acme')
    // Promo and wallet, less what is owed.
    expect(view).toMatchObject({ available_nano: 30n, held_nano: 0n, open_holds: 0 })
    expect(view.grants.map(({ id, balance, held }) => [id, balance, held])).toEqual([
      ['pack', 60n, 0n],
      ['promo', 70n, 0n],
      ['wallet', 30n, 0n],
      ['calls', 2n, 0n],
      ['owing', -20n, 0n],
    ])
    expect([await one.appliedSeq('acme'), (await one.tenants(ACME)).toSorted()]).toEqual([4, ['acme', 'other']])
    expect((await one.states(meters.map((meter) => meter.rule))).map(({ used, resets_at_ms }) => [used, resets_at_ms])).toEqual([
      [400n, null],
      [3n, ADMITTED_AT + 2 * HOUR_MS],
    ])
    // What is owed is owed by an admission too.
    expect(await one.hold(holdRequest('a', { grant_tokens: 0, amount_nano: 31n }))).toMatchObject({ refusal: { available: 30n } })
    expect(reasonOf(await one.hold(holdRequest('b', { grant_tokens: 0, amount_nano: 30n })))).toBe('held')
    expect([
      await one.credit({ grant: grant('wallet'), delta: 1n, seq: 4 }),
      await one.credit({ grant: grant('wallet'), delta: 1n, seq: 5 }),
    ]).toEqual(['duplicate', 'applied'])
  })

  it('corrects what a window or budget has used, in the window that is meant alone', async () => {
    const { one, clock } = the()
    await open(one, 1)
    const [budget, day, hours] = [rule('budget', 1000n), rule('tokens_window', 1000n, DAY), rule('requests_window', 9n, FIVE_HOURS)]
    const used = async () => (await one.states([budget, day, hours])).map((state) => state.used)
    await one.shift('acme', budget, 30n, null)
    await one.shift('acme', day, 40n, DAY.end_ms)
    await one.shift('acme', day, 1n, DAY.next_end_ms)
    await one.shift('acme', hours, 2n, ADMITTED_AT + 5 * HOUR_MS)
    expect(await used()).toEqual([30n, 40n, 2n])
    await one.shift('acme', budget, -10n, null)
    clock.advance(HOUR_MS)
    await one.shift('acme', day, 100n, DAY.end_ms)
    await one.shift('acme', day, 5n, DAY.next_end_ms)
    await one.shift('acme', hours, 1n, ADMITTED_AT + 5 * HOUR_MS)
    expect(await used()).toEqual([20n, 5n, 3n])
  })
}

function settleTests(the: () => Subject): void {
  it('a settle says in which epoch it charged, whose charge stands, and whether its event is in the stream, however often it is asked', async () => {
    const { one, other } = the()
    await open(one, 7, [books([[grant('wallet'), 1000n]])])
    for (const id of ['a', 'b', 'c']) await one.hold(holdRequest(id))
    const [full, plain] = [withEvent(settleRequest('a', 60n), 'n1 1', 'EVENT'), settleRequest('b', 60n)]
    expect(await one.settleEvent(full)).toEqual(said('settled', 7, { appended: true, ref: 'n1 1' }))
    expect(await one.settleEvent(plain)).toEqual(said('settled', 7))
    for (const limits of [one, other]) {
      expect(await limits.settleEvent(full)).toEqual(said('duplicate', 7, { appended: true, ref: 'n1 1' }))
      expect(await limits.settleEvent(plain)).toEqual(said('duplicate', 7))
    }
    // Another close of the same request is told which one stands.
    const another = withEvent(settleRequest('a', 61n), 'n2 5', 'OTHER')
    expect(await other.settleEvent(another)).toEqual(said('duplicate', 7, { appended: true, ref: 'n1 1' }))
    await one.release('c', 'acme')
    expect(await one.settleEvent(withEvent(settleRequest('c', 60n)))).toEqual(said('duplicate', null))
    expect((await one.read([ACME], 10)).get(ACME)).toEqual([{ id: expect.any(String), body: 'EVENT', epoch: 7 }])
    expect((await one.balance('acme')).available_nano).toBe(880n)
  })

  it('a late settle and one that replaces another charge, say so ever after, and append nothing', async () => {
    const { one, clock } = the()
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    await one.hold(holdRequest('a'))
    await one.hold(holdRequest('b'))
    clock.advance(31_000)
    expect(await one.sweepBucket(ACME, 1)).toHaveLength(1)
    const swept = { ...withEvent(settleRequest('a', 20n), 'n2 1'), swept: true as const }
    expect(await one.settleEvent(swept)).toEqual(said('settled', 1, { appended: true, ref: 'n2 1' }))
    const late = withEvent(settleRequest('a', 70n), 'n1 1')
    expect(await one.settleEvent(late)).toEqual(said('late', 1, { ref: 'n1 1', replaced: true }))
    for (const request of [late, swept]) {
      expect(await one.settleEvent(request)).toEqual(said('duplicate', 1, { ref: 'n1 1', replaced: true }))
    }
    const { parts } = settleRequest('b', 50n)
    expect(await one.settleEvent(withEvent(settleRequest('b', 50n), 'n1 2'))).toEqual(said('settled', 1, { appended: true, ref: 'n1 2' }))
    const nothing = { ...withEvent(settleRequest('b', 0n), 'n1 3'), parts: [], replaces: parts }
    expect(await one.settleEvent(nothing)).toEqual(said('late', 1, { ref: 'n1 3', replaced: true }))
    expect(await one.settleEvent(nothing)).toEqual(said('duplicate', 1, { ref: 'n1 3', replaced: true }))
    expect([await one.lengths([ACME]), (await one.balance('acme')).available_nano]).toEqual([[2], 930n])
  })

  it('another process closes a hold of which it knows nothing', async () => {
    const { one, other } = the()
    const { parts } = await openAndHold(one)
    await one.hold(holdRequest('b', { rules: RULES, amount_nano: 0n }))
    const money = parts.filter(({ unit }) => unit === 'nano_cny')
    expect(await other.settle({ ...settleRequest('a', 150n, money), tokens: 10 })).toBe('settled')
    await other.release('b', 'acme')
    expect(await one.balance('acme')).toMatchObject({ held_nano: 0n, open_holds: 0, available_nano: -50n })
    expect((await one.states(METERS)).map(({ used, held }) => [used, held])).toEqual([
      [1n, 0n],
      [10n, 0n],
      [150n, 0n],
      [150n, 0n],
    ])
  })

  it('an open hold settles whatever its age', async () => {
    const { one, clock } = the()
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    await one.hold(holdRequest('a', { lease_ms: 48 * HOUR_MS }))
    clock.advance(24 * HOUR_MS)
    expect(await one.settle(settleRequest('a', 60n))).toBe('settled')
  })
}

function orphanTests(the: () => Subject): void {
  it('the charge of an orphan takes an open hold, marked or not, of any process, and a late settle its place', async () => {
    const { one, other, clock } = the()
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    const rules = [rule('budget', 500n)]
    await one.hold(holdRequest('a', { rules }))
    const orphan = (id: string, amount_nano: bigint) => ({ ...withEvent(settleRequest(id, amount_nano), 'n2 1'), orphan: true as const })
    expect(await other.settleEvent(orphan('a', 20n))).toEqual(said('settled', 1, { appended: true, ref: 'n2 1' }))
    for (const again of [20n, 30n]) {
      expect(await other.settleEvent(orphan('a', again))).toEqual(said('duplicate', 1, { appended: true, ref: 'n2 1' }))
    }
    expect(await one.settleEvent(withEvent(settleRequest('a', 70n), 'n1 1'))).toEqual(said('late', 1, { ref: 'n1 1', replaced: true }))
    expect(await other.settleEvent(orphan('a', 20n))).toEqual(said('duplicate', 1, { ref: 'n1 1', replaced: true }))
    expect((await one.states(rules))[0]).toMatchObject({ used: 70n, held: 0n })
    await one.hold(holdRequest('b'))
    clock.advance(31_000)
    await other.sweepBucket(ACME, 10)
    expect(await other.settleEvent(orphan('b', 20n))).toMatchObject({ state: 'settled' })
    expect(await other.settleEvent(orphan('unknown', 20n))).toEqual(said('expired', null))
    expect(await other.settleEvent({ ...orphan('earlier', 20n), admitted_at: ADMITTED_AT - 1 })).toMatchObject({
      state: 'settled',
      epoch: 1,
    })
    expect(await one.balance('acme')).toMatchObject({ available_nano: 890n, open_holds: 0 })
  })

  it('events of orphans may use the stream up to twice its cap, as those of sweeps', async () => {
    const { start, one } = the()
    const capped = await start({ stream_cap: 1 })
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    const appended: boolean[] = []
    for (const id of ['a', 'b', 'c']) {
      await one.hold(holdRequest(id))
      appended.push((await capped.settleEvent({ ...withEvent(settleRequest(id, 1n)), orphan: true })).appended)
    }
    expect(appended).toEqual([true, true, false])
  })
}

function unsettledTests(the: () => Subject): void {
  it("a hold whose settle has failed is nobody's, and keeps what it has reserved until it is settled or forgotten", async () => {
    const { one } = the()
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    for (const id of ['a', 'b', 'c']) await one.hold(holdRequest(id))
    await one.beginEpoch([ACME], 2)
    for (const id of ['a', 'b']) await expect(one.settle(settleRequest(id, 60n))).rejects.toMatchObject({ kind: 'closed' })
    expect(['a', 'b', 'c'].map((id) => one.isMine(id))).toEqual([false, false, true])
    one.forget('b')
    await one.report(ACME, 2, 'n1')
    await open(one, 2, [books([[grant('wallet'), 1000n]])])
    expect((await one.cut(ACME, ['acme'], [])).holds).toEqual(new Set(['a', 'c']))
    expect(await one.balance('acme')).toMatchObject({ available_nano: 800n, held_nano: 200n })
    expect(await one.settleEvent(settleRequest('a', 60n))).toEqual(said('settled', 2))
    await one.beginEpoch([ACME], 3)
    await one.report(ACME, 3, 'n1')
    await open(one, 3)
    expect((await one.cut(ACME, ['acme'], [])).holds).toEqual(new Set(['c']))
  })
}

function foreignTests(the: () => Subject): void {
  it('a hold that the bucket does not know is charged if it was admitted before the bucket was opened, at most ten minutes ago', async () => {
    const { one, clock } = the()
    clock.advance(20 * MINUTE_MS)
    await open(one, 5, [books([[grant('wallet'), 1000n]])])
    const admitted = (id: string, ago_ms: number) => ({ ...withEvent(settleRequest(id, 30n)), admitted_at: clock.now_ms() - ago_ms })
    for (const state of ['settled', 'duplicate'] as const) {
      expect(await one.settleEvent(admitted('x', 10 * MINUTE_MS))).toEqual(said(state, 5, { appended: true, ref: 'n1 x' }))
    }
    const never = said('expired', null)
    expect(await one.settleEvent(admitted('y', 10 * MINUTE_MS + 1))).toEqual(never)
    expect(await one.settleEvent(admitted('z', 0))).toEqual(never)
    expect(await one.settle(admitted('z', 0))).toBe('duplicate')
    expect([(await one.balance('acme')).available_nano, await one.lengths([ACME])]).toEqual([970n, [1]])
  })

  it('what is charged to a grant or a tenant that nobody knows is owed rather than lost', async () => {
    const { one, clock } = the()
    clock.advance(MINUTE_MS)
    await open(one, 1)
    const parts = [{ grant: 'lost', unit: 'nano_cny', amount: 30n } as const, { grant: 'credit', unit: 'nano_cny', amount: 5n } as const]
    expect(await one.settle({ ...settleRequest('x', 35n, parts), admitted_at: ADMITTED_AT })).toBe('settled')
    expect(await one.balance('acme')).toMatchObject({ available_nano: -35n, grants: [{ id: 'lost', unit: 'nano_cny', balance: -30n }] })
    expect(await one.tenants(ACME)).toEqual(['acme'])
    await one.credit({ grant: grant('lost'), delta: 100n, seq: 1 })
    expect(receiptOf(await one.hold(holdRequest('a', { amount_nano: 65n }))).parts).toEqual([
      { grant: 'lost', unit: 'nano_cny', amount: 65n },
    ])
  })
}

function streamTests(the: () => Subject): void {
  it('entries are read in order, up to one that is named, and forgotten once they are in the ledger', async () => {
    const { one, other } = the()
    await open(one, 2, [books([[grant('wallet'), 1000n]])])
    for (const id of ['a', 'b', 'c']) {
      await one.hold(holdRequest(id, { amount_nano: 1n }))
      await one.settle(withEvent(settleRequest(id, 1n), `n1 ${id}`, `event of ${id} 水`))
    }
    const all = (await other.read([BOLT, ACME], 10)).get(ACME) ?? []
    expect(all.map(({ body, epoch }) => [body, epoch])).toEqual(['a', 'b', 'c'].map((id) => [`event of ${id} 水`, 2]))
    expect((await other.read([BOLT], 10)).get(BOLT)).toEqual([])
    const [first, second] = all
    expect((await other.read([ACME], 2)).get(ACME)).toEqual([first, second])
    expect((await other.read([ACME], 10, first?.id)).get(ACME)).toEqual([first])
    await other.acknowledge(ACME, second?.id ?? '')
    expect(await one.lengths([BOLT, ACME])).toEqual([0, 1])
    await other.acknowledge(ACME, first?.id ?? '')
    expect((await one.read([ACME], 10)).get(ACME)).toMatchObject([{ body: 'event of c 水' }])
    await other.acknowledge(ACME, all[2]?.id ?? '')
    // The cut still knows how far the stream has come.
    expect([await one.lengths([ACME]), (await one.cut(ACME, [], [])).last_entry]).toEqual([[0], all[2]?.id])
  })

  it('above its cap a stream takes no more, but of swept requests up to twice as many; the charge is the same', async () => {
    const { one, start, clock } = the()
    const capped = await start({ stream_cap: 2 })
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    const ids = ['a', 'b', 'c', 's1', 's2', 's3']
    for (const id of ids) await capped.hold(holdRequest(id, { amount_nano: 10n }))
    clock.advance(31_000)
    const appended: boolean[] = []
    for (const id of ids.slice(0, 3)) appended.push((await capped.settleEvent(withEvent(settleRequest(id, 10n)))).appended)
    await capped.sweepBucket(ACME, 10)
    for (const id of ids.slice(3)) appended.push((await capped.settleEvent({ ...withEvent(settleRequest(id, 10n)), swept: true })).appended)
    expect(appended).toEqual([true, true, false, true, true, false])
    expect([await one.lengths([ACME]), (await one.balance('acme')).available_nano]).toEqual([[4], 940n])
  })

  it('a settled hold is remembered 15 minutes, and one whose event was not appended for a day', async () => {
    const { start, clock } = the()
    const capped = await start({ stream_cap: 1 })
    await open(capped, 1, [books([[grant('wallet'), 1000n]])])
    for (const id of ['a', 'b']) {
      await capped.hold(holdRequest(id, { amount_nano: 10n }))
      await capped.settle(withEvent(settleRequest(id, 10n)))
    }
    const ask = async () => [
      await capped.settleEvent(withEvent(settleRequest('a', 10n))),
      await capped.settleEvent(withEvent(settleRequest('b', 10n))),
    ]
    const [of_a, of_b] = [said('duplicate', 1, { appended: true, ref: 'n1 a' }), said('duplicate', 1, { ref: 'n1 b' })]
    clock.advance(15 * MINUTE_MS - 1)
    expect(await ask()).toEqual([of_a, of_b])
    clock.advance(1)
    expect(await ask()).toEqual([said('expired', null), of_b])
    clock.advance(24 * HOUR_MS - 15 * MINUTE_MS)
    expect(await ask()).toMatchObject([{ state: 'expired' }, { state: 'expired' }])
    expect((await capped.balance('acme')).available_nano).toBe(980n)
  })
}

function sweepTests(the: () => Subject): void {
  it('gives what it takes to close a request on another machine, and again after a minute while nobody has', async () => {
    const { one, other, clock } = the()
    await open(one, 1, [books([[grant('wallet'), 1000n]])])
    const rules = [rule('budget', 500n), rule('concurrency', 3n)]
    const receipt = receiptOf(await one.hold(holdRequest('a', { rules, context: CONTEXT })))
    await one.hold(holdRequest('b', { lease_ms: 30_001 }))
    await one.hold(holdRequest('c', { lease_ms: 300_000 }))
    const corrected = { ...CONTEXT, day: '2026-11-24' }
    const renewal = { id: 'a', tenant: 'acme', tokens: 100, amount_nano: 100n, lease_ms: 1 }
    await one.extend([{ ...renewal, checkpoint: checkpoint('a', 5), context: corrected }])
    await one.extend([{ ...renewal, checkpoint: checkpoint('a', 9) }])
    clock.advance(30_001)
    expect(await other.sweepBucket(ACME, 10)).toEqual([{ receipt, context: corrected, last: checkpoint('a', 9) }])
    expect([await other.sweepBucket(ACME, 10), await other.sweepBucket(BOLT, 10)]).toEqual([[], []])
    expect(await one.extend([renewal])).toEqual([{ id: 'a', state: 'lapsed' }])
    clock.advance(59_999)
    expect(await one.sweepBucket(ACME, 10)).toMatchObject([{ receipt: { id: 'b' }, context: null, last: null }])
    clock.advance(2)
    expect(await one.sweepBucket(ACME, 10)).toEqual([{ receipt, context: corrected, last: checkpoint('a', 9) }])
    expect(await other.settleEvent({ ...settleRequest('a', 40n), swept: true })).toMatchObject({ state: 'settled' })
    expect(await other.settleEvent({ ...settleRequest('a', 40n), swept: true })).toEqual(said('duplicate', 1))
    expect((await one.states(rules)).map(({ used, held }) => [used, held])).toEqual([
      [40n, 0n],
      [null, 0n],
    ])
    clock.advance(120_000)
    expect((await one.sweepBucket(ACME, 10)).map((swept) => swept.receipt.id)).toEqual(['b'])
  })

  it('takes at most as many as asked for, the longest due first, and passes over those that are marked', async () => {
    const { one, clock } = the()
    await open(one, 1)
    for (let index = 0; index < 250; index += 1) await one.hold(holdRequest(`h${index}`, { amount_nano: 0n, lease_ms: 1000 + index }))
    clock.advance(5000)
    expect((await one.sweepBucket(ACME, 3)).map(({ receipt }) => receipt.id)).toEqual(['h0', 'h1', 'h2'])
    expect(await one.sweepBucket(ACME, 200)).toHaveLength(200)
    expect(await one.sweepBucket(ACME, 200)).toHaveLength(47)
    // Marked longer than a minute ago: `sweep` gives none of them, and is not kept by them from what is new.
    clock.advance(61_000)
    await one.hold(holdRequest('late', { amount_nano: 0n, lease_ms: 1 }))
    clock.advance(2)
    expect(await one.sweep(clock.now_ms())).toMatchObject([{ id: 'late' }])
    expect(await one.openHolds()).toBe(251)
  })
}

function cutTests(the: () => Subject): void {
  it('is one moment of a bucket: balances, open holds, limits, and the end of the stream', async () => {
    const { one, other, clock } = the()
    await open(one, 4, [books([[grant('wallet'), 1000n]], 3), { ...books([], 8), tenant: 'other' }])
    const rules = [rule('budget', 500n), rule('requests_per_minute', 10n), rule('concurrency', 3n), rule('tokens_window', 500n, DAY)]
    expect((await one.cut(ACME, [], [])).last_entry).toBeNull()
    await one.hold(holdRequest('a', { rules }))
    await one.hold(holdRequest('b', { rules }))
    await one.settle(withEvent(settleRequest('b', 60n)))
    clock.advance(31_000)
    await one.sweepBucket(ACME, 10)
    const cut = await other.cut(ACME, ['acme', 'nobody'], rules)
    const [entry] = (await one.read([ACME], 1)).get(ACME) ?? []
    expect(cut).toMatchObject({ epoch: 4, last_entry: entry?.id, holds: new Set(['a']) })
    expect(cut.accounts.get('acme')).toEqual({ view: await one.balance('acme'), applied_seq: 3 })
    expect(cut.accounts.get('nobody')).toEqual({
      view: { available_nano: 0n, held_nano: 0n, open_holds: 0, grants: [] },
      applied_seq: 0,
    })
    expect(cut.states).toEqual(await one.states(rules))
    expect((await one.tenants(ACME)).toSorted()).toEqual(['acme', 'other'])
  })
}

function exactTests(the: () => Subject): void {
  const HUGE = 9_007_199_254_740_993n

  it('tells amounts apart that a double cannot, everywhere', async () => {
    const { one, other } = the()
    await open(one, 1)
    await one.credit({ grant: grant('wallet'), delta: HUGE, seq: 1 })
    expect((await one.balance('acme')).available_nano).toBe(HUGE)
    const rules = [rule('budget', HUGE), rule('amount_window', HUGE - 1n, DAY)]
    const whole = { amount_nano: HUGE, minimum_nano: HUGE }
    expect(await one.hold(holdRequest('a', whole))).toMatchObject({ receipt: { amount_nano: HUGE, parts: [{ amount: HUGE }] } })
    expect(await one.balance('acme')).toMatchObject({ available_nano: 0n, held_nano: HUGE })
    await one.release('a', 'acme')
    expect(await one.hold(holdRequest('b', { amount_nano: HUGE + 1n }))).toMatchObject({ refusal: { available: HUGE, needed: HUGE + 1n } })
    expect(await one.hold(holdRequest('c', { ...whole, rules }))).toMatchObject({
      refusal: { reason: 'window', available: HUGE - 1n, needed: HUGE },
    })
    const less = { amount_nano: HUGE - 2n, minimum_nano: HUGE - 2n }
    expect(reasonOf(await one.hold(holdRequest('d', { ...less, rules })))).toBe('held')
    const more = (amount_nano: bigint) => ({ id: 'd', tenant: 'acme', tokens: 100, amount_nano, lease_ms: 30_000 })
    expect(await one.extend([more(HUGE)])).toMatchObject([{ state: 'refused', refusal: { available: 1n, held: HUGE - 2n, needed: 2n } }])
    expect(await one.extend([more(HUGE - 1n)])).toMatchObject([{ receipt: { amount_nano: HUGE - 1n, parts: [{ amount: HUGE - 1n }] } }])
    expect(await one.settle(settleRequest('d', HUGE - 4n))).toBe('settled')
    expect((await one.states(rules)).map(({ used, available }) => [used, available])).toEqual([
      [HUGE - 4n, 4n],
      [HUGE - 4n, 3n],
    ])
    expect((await other.cut(ACME, ['acme'], rules)).accounts.get('acme')?.view).toMatchObject({
      available_nano: 4n,
      grants: [{ balance: 4n }],
    })
    await one.shift('acme', rule('budget', HUGE), 3n, null)
    expect((await one.states(rules))[0]).toMatchObject({ used: HUGE - 1n, available: 1n })
  })

  it('is exact below zero, and across the credit line', async () => {
    const { one } = the()
    await open(one, 1)
    await one.credit({ grant: grant('wallet'), delta: -HUGE, seq: 1 })
    expect((await one.balance('acme')).available_nano).toBe(-HUGE)
    const line = { amount_nano: 2n, minimum_nano: 2n }
    expect(await one.hold(holdRequest('a', { ...line, credit_line_nano: HUGE + 1n }))).toMatchObject({ refusal: { available: 1n } })
    expect(await one.hold(holdRequest('b', { ...line, credit_line_nano: HUGE + 2n }))).toMatchObject({
      receipt: { parts: [{ amount: 2n }] },
    })
    await one.settle(settleRequest('b', HUGE, [{ grant: 'credit', unit: 'nano_cny', amount: HUGE }]))
    expect((await one.balance('acme')).available_nano).toBe(-2n * HUGE)
    await one.credit({ grant: grant('credit'), delta: HUGE - 1n, seq: 2 })
    expect((await one.balance('acme')).available_nano).toBe(-HUGE - 1n)
  })

  it('refuses, changing nothing, what would leave 64 bits', async () => {
    const { one } = the()
    await open(one, 1)
    const step = 2n ** 60n
    for (let seq = 1; seq <= 7; seq += 1) await one.credit({ grant: grant('wallet'), delta: step, seq })
    await expect(one.credit({ grant: grant('wallet'), delta: step, seq: 8 })).rejects.toBeInstanceOf(RangeError)
    await expect(one.hold(holdRequest('a', { amount_nano: 2n ** 61n }))).rejects.toBeInstanceOf(RangeError)
    expect([(await one.balance('acme')).available_nano, await one.appliedSeq('acme')]).toEqual([7n * step, 7])
    expect(await one.credit({ grant: grant('wallet'), delta: step - 1n, seq: 8 })).toBe('applied')
    expect((await one.balance('acme')).available_nano).toBe(2n ** 63n - 1n)
  })
}
