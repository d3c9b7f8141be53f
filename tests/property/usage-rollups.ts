import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Period, UsageDimension, UsageFilter, UsageQuery, UsageRow, UsageSums } from '../../src/storage/ports.ts'
import { dayOf } from '../../src/base/clock.ts'
import type { RollupSubject } from '../support/rollups.ts'
import { propertySeed } from '../support/seed.ts'
import { closingEvent } from '../support/storage.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS
/** A midnight of UTC+8, where a day of the rollups begins. */
const START_MS = Date.parse('2026-11-20T00:00:00+08:00')
const SPAN_MS = 5 * DAY_MS
const TIMEOUT_MS = 10 * 60_000

type Event = ReturnType<typeof closingEvent>

/** Around minutes, hours and days begin, and anywhere. */
const instant = fc.oneof(
  fc.integer({ min: 0, max: SPAN_MS }),
  fc
    .record({
      unit: fc.constantFrom(MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, DAY_MS),
      at: fc.nat(),
      by: fc.constantFrom(-1, 0, 0, 0, 1, 59_999),
    })
    .map(({ unit, at, by }) => Math.max(0, (at % (SPAN_MS / unit)) * unit + by)),
)
const tags = fc.constantFrom<Readonly<Record<string, string>>[]>({}, { team: 'a' }, { team: 'b' }, { team: 'a', 'env.x': 'p:1' })

const event = fc.record({
  at: instant,
  project: fc.constantFrom('p1', 'p2'),
  key: fc.constantFrom('k1', 'k2'),
  model: fc.constantFrom('m1', 'm2'),
  endpoint: fc.constantFrom('e1', 'e2'),
  end_user: fc.constantFrom(null, 'u1', 'u2'),
  tags,
  status: fc.constantFrom('completed' as const, 'truncated' as const, 'swept' as const),
  amount: fc.bigInt({ min: 0n, max: 9_007_199_254_740_993n }),
  /** How many steps later a second revision comes, with another model; none at 0. */
  again_in: fc.integer({ min: -6, max: 3 }),
})
const step = fc.record({
  events: fc.array(event, { maxLength: 6 }),
  /** Slices of derivation after it, and how far the clock has come. */
  slices: fc.constantFrom(0, 1, 3, 50),
  now: fc.integer({ min: 0, max: 8 * DAY_MS }),
})

const filter: fc.Arbitrary<UsageFilter> = fc.constantFrom<UsageFilter[]>(
  {},
  {},
  { project: 'p1' },
  { key: 'k1', model: 'm2' },
  { endpoint: 'e1' },
  { end_user: 'u1' },
  { tag: { name: 'team', value: 'a' } },
  { tag: { name: 'env.x', value: 'p:1' }, model: 'm1' },
)
const by = fc.uniqueArray(
  fc.constantFrom<UsageDimension[]>('tenant', 'project', 'key', 'model', 'endpoint', 'end_user', 'tag:team', 'tag:none'),
  { maxLength: 3 },
)
const asked = fc.record({ cuts: fc.uniqueArray(instant, { minLength: 2, maxLength: 6 }), gap: fc.boolean(), filter, by })

interface Asked {
  readonly cuts: readonly number[]
  readonly gap: boolean
  readonly filter: UsageFilter
  readonly by: readonly UsageDimension[]
}

function periodsOf({ cuts, gap }: Asked): readonly Period[] {
  const sorted = cuts.toSorted((a, b) => a - b).map((at) => START_MS + at)
  const all = sorted.slice(1).map((to_ms, index) => ({ from_ms: sorted[index] ?? to_ms, to_ms }))
  return gap ? all.filter((_, index) => index % 2 === 0) : all
}

/** An end user and a tag cannot be combined with each other or with a second tag. */
function canBeAsked({ filter: { end_user, tag }, by: dimensions }: Asked): boolean {
  const special = dimensions.filter((name) => name === 'end_user' || name.startsWith('tag:')).map(String)
  if (end_user !== undefined) special.push('end_user')
  if (tag !== undefined) special.push(`tag:${tag.name}`)
  return new Set(special).size <= 1
}

function valueOf(one: Event, dimension: UsageDimension): string | null {
  if (dimension === 'end_user') return one.end_user
  return dimension.startsWith('tag:')
    ? (one.tags[dimension.slice('tag:'.length)] ?? null)
    : one[dimension as 'tenant' | 'project' | 'key' | 'model' | 'endpoint']
}

const NOTHING: UsageSums = {
  requests: 0,
  completed: 0,
  tokens: { input: 0, cached_input: 0, cache_write: 0, output: 0, reasoning: 0 },
  calls: { search: 0, image: 0 },
  amount_nano: 0n,
  cost_nano: 0n,
  overrun_nano: 0n,
}

function added(a: UsageSums, b: UsageSums): UsageSums {
  const sum = <T extends object>(x: T, y: T): T =>
    Object.fromEntries(Object.entries(x).map(([name, value]) => [name, Number(value) + Number(y[name as keyof T])])) as T
  return {
    requests: a.requests + b.requests,
    completed: a.completed + b.completed,
    tokens: sum(a.tokens, b.tokens),
    calls: sum(a.calls, b.calls),
    amount_nano: a.amount_nano + b.amount_nano,
    cost_nano: a.cost_nano + b.cost_nano,
    overrun_nano: a.overrun_nano + b.overrun_nano,
  }
}

/** The sums that a query must give, in the plainest way. */
function summed(events: Iterable<Event>, { periods, by: dimensions, ...where }: Omit<UsageQuery, 'limit'>): readonly UsageRow[] {
  const rows = new Map<string, UsageRow>()
  const { tag, ...plain } = where
  for (const one of events) {
    const period = periods.findIndex(({ from_ms, to_ms }) => one.admitted_at >= from_ms && one.admitted_at < to_ms)
    const group = dimensions.map((name) => valueOf(one, name))
    if (period === -1 || group.includes(null)) continue
    if (Object.entries(plain).some(([name, value]) => one[name as keyof Event] !== value)) continue
    if (tag !== undefined && one.tags[tag.name] !== tag.value) continue
    const name = JSON.stringify([period, ...group])
    const { status, tokens, calls, amount_nano, cost_nano, overrun_nano } = one
    const figures = { requests: 1, completed: status === 'completed' ? 1 : 0, tokens, calls, amount_nano, cost_nano, overrun_nano }
    rows.set(name, { period, group: group.map(String), ...added(rows.get(name) ?? NOTHING, figures) })
  }
  return inOrder([...rows.values()])
}

function inOrder(rows: readonly UsageRow[]): readonly UsageRow[] {
  const word = ({ period, group }: UsageRow): string => [String(period).padStart(4, '0'), ...group].join('\u0000')
  return rows.toSorted((a, b) => (word(a) < word(b) ? -1 : 1))
}

async function pagesOf({ ledger }: RollupSubject, query: Omit<UsageQuery, 'limit'>, limit: number): Promise<readonly UsageRow[]> {
  const rows: UsageRow[] = []
  let cursor: string | null = null
  do {
    const page = await ledger.usage({ ...query, limit, ...(cursor === null ? {} : { cursor }) })
    expect(page.rows.length).toBeLessThanOrEqual(limit)
    rows.push(...page.rows)
    cursor = page.next_cursor
  } while (cursor !== null)
  return rows
}

/** Every event of every tenant, highest revisions only. */
const known = new Map<string, Event>()
let tenants = 0
let events_made = 0

function made(tenant: string, one: EventValues): Event {
  events_made += 1
  const { at, amount, again_in: _, ...names } = one
  const figure = Number(amount % 1000n)
  return closingEvent(`e${events_made}`, {
    ...names,
    tenant,
    admitted_at: START_MS + at,
    day: dayOf(START_MS + at),
    tokens: { input: figure, cached_input: figure % 7, cache_write: figure % 3, output: figure % 11, reasoning: figure % 5 },
    calls: { search: figure % 2, image: figure % 4 },
    amount_nano: amount,
    cost_nano: amount / 3n,
    overrun_nano: amount % 5n === 0n ? amount % 100n : 0n,
  })
}
type EventValues = typeof event extends fc.Arbitrary<infer Values> ? Values : never

/** Posts steps in order, each with the second revisions that have become due, and derives in between. */
async function play(
  subject: RollupSubject,
  tenant: string,
  steps: readonly (typeof step extends fc.Arbitrary<infer Values> ? Values : never)[],
): Promise<void> {
  const due = new Map<number, Event[]>()
  for (const [index, { events, slices, now }] of [...steps, { events: [], slices: 0, now: 0 }].entries()) {
    const batch: Event[] = []
    for (const one of events) {
      const first = made(tenant, one)
      batch.push(first)
      if (one.again_in < 1) continue
      const second = { ...first, revision: 2 as const, model: 'm1', amount_nano: one.amount / 2n, status: 'completed' as const }
      const later = Math.min(steps.length, index + one.again_in)
      due.set(later, [...(due.get(later) ?? []), second])
    }
    batch.push(...(due.get(index) ?? []))
    await subject.post(batch)
    for (const one of batch) known.set(one.id, one)
    for (let slice = 0; slice < slices; slice += 1) await subject.deriveSome(START_MS + now)
  }
}

/** The period cut in two at some instant gives rows that add up to those of the whole. */
async function expectParts(subject: RollupSubject, query: Omit<UsageQuery, 'limit'>, rows: readonly UsageRow[]): Promise<void> {
  const halves = query.periods.flatMap(({ from_ms, to_ms }) => {
    const middle_ms = from_ms + Math.floor((to_ms - from_ms) * 0.37)
    return [
      { from_ms, to_ms: middle_ms },
      { from_ms: middle_ms, to_ms },
    ]
  })
  const joined = new Map<string, UsageRow>()
  for (const { period, group, ...sums } of await pagesOf(subject, { ...query, periods: halves }, 10_000)) {
    const whole = Math.floor(period / 2)
    const name = JSON.stringify([whole, ...group])
    joined.set(name, { period: whole, group, ...added(joined.get(name) ?? NOTHING, sums) })
  }
  expect(inOrder([...joined.values()])).toEqual(rows)
}

/**
 * Every driver sums usage as a plain loop over the events does.
 * @param open a ledger with nothing in it, whose slices of derivation are at most so large
 */
export function usageRollups(name: string, open: (slice: number) => Promise<RollupSubject>, runs: number): void {
  describe(`sums of usage: ${name}`, () => {
    let subject: RollupSubject
    beforeAll(async () => {
      subject = await open(3)
      known.clear()
    })
    afterAll(() => subject.end())

    it(
      'usage is the sum over events for any period, filter and grouping, however far rollups are derived; pages and parts add up to the whole',
      async () => {
        const seed = propertySeed()
        await fc.assert(
          fc.asyncProperty(
            fc.array(step, { maxLength: 8 }),
            fc.array(asked.filter(canBeAsked), { minLength: 1, maxLength: 4 }),
            fc.integer({ min: 1, max: 3 }),
            async (steps, questions, limit) => {
              tenants += 1
              const tenant = `t${tenants}`
              await play(subject, tenant, steps)
              const own = [...known.values()].filter((one) => one.tenant === tenant)
              for (const question of questions) {
                const query = { tenant, periods: periodsOf(question), by: question.by, ...question.filter }
                const rows = await pagesOf(subject, query, 10_000)
                expect(rows).toEqual(summed(own, query))
                expect(await pagesOf(subject, query, limit)).toEqual(rows)
                await expectParts(subject, query, rows)
              }
            },
          ),
          { seed, numRuns: runs },
        )
        expect(known.size).toBeGreaterThan(3 * runs)
        const everything = { periods: [{ from_ms: START_MS + 12_345, to_ms: START_MS + 3 * DAY_MS + 1 }], by: ['tenant', 'model'] as const }
        expect(await pagesOf(subject, everything, 100)).toEqual(summed(known.values(), everything))
        // Everything is derived at last, and says the same.
        while (await subject.deriveSome(START_MS + 30 * DAY_MS));
        expect(await subject.count('usage_stale')).toBe(0)
        expect(await pagesOf(subject, everything, 10_000)).toEqual(summed(known.values(), everything))
        for (const table of ['usage_minutes', 'usage_hours', 'usage_days']) {
          expect(await subject.count(`${table} WHERE requests = 0`)).toBe(0)
        }
      },
      TIMEOUT_MS,
    )

    it('minutes older than they are kept are deleted; from then on usage is exact to the hour, also for what arrives later', async () => {
      const old = await open(2)
      const at = (offset_ms: number, id: string): Event =>
        closingEvent(id, { admitted_at: START_MS + offset_ms, day: dayOf(START_MS + offset_ms), end_user: 'u1', tags: { team: 'a' } })
      const usage = async (from_ms: number, to_ms: number): Promise<number> => {
        const page = await old.ledger.usage({
          periods: [{ from_ms: START_MS + from_ms, to_ms: START_MS + to_ms }],
          by: ['tag:team'],
          limit: 10,
        })
        return page.rows[0]?.requests ?? 0
      }
      try {
        await old.post([at(10 * MINUTE_MS, 'a'), at(40 * MINUTE_MS, 'b'), at(401 * DAY_MS, 'c')])
        expect([await usage(0, 30 * MINUTE_MS), await usage(30 * MINUTE_MS, HOUR_MS)]).toEqual([1, 1])
        const now_ms = START_MS + 401 * DAY_MS + 1
        expect(await old.deleteSome(now_ms)).toBe(true)
        expect([await usage(0, 30 * MINUTE_MS), await usage(30 * MINUTE_MS, HOUR_MS)]).toEqual([1, 1])
        while (await old.deriveSome(now_ms));
        while (await old.deleteSome(now_ms));
        expect(await old.count('usage_minutes')).toBe(3)
        expect([await usage(0, 30 * MINUTE_MS), await usage(30 * MINUTE_MS, HOUR_MS)]).toEqual([2, 0])
        await old.post([at(50 * MINUTE_MS, 'd'), at(-MINUTE_MS, 'e')])
        while (await old.deriveSome(now_ms));
        expect([await usage(0, HOUR_MS), await usage(-DAY_MS, DAY_MS), await usage(0, 500 * DAY_MS)]).toEqual([3, 4, 4])
      } finally {
        await old.end()
      }
    })
  })
}
