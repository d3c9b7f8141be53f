import fc from 'fast-check'
import type { GrantUnit } from '../../src/money/grant.ts'
import type { PriceVersion, TradingCalendar } from '../../src/money/price.ts'
import type { LimitKind, LimitScope, WindowBounds } from '../../src/storage/ports.ts'
import { ADMITTED_AT } from '../support/clock.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

/** Two tenants whose requests are told apart by nothing but their ids. */
export const TENANTS = ['acme', 'bolt'] as const
export const MODELS = ['m1', 'm2'] as const

/** One limit of the run's plan; which tenant's scope it belongs to is in `tenant`. */
export interface PlannedRule {
  readonly tenant: number
  readonly scope: LimitScope
  readonly scope_id: string
  readonly model: string | null
  readonly kind: LimitKind
  readonly window: WindowBounds['name'] | null
  readonly limit: number
}
export interface PlannedGrant {
  readonly unit: GrantUnit
  readonly priority: number
  readonly expires_in_ms: number | null
  readonly created_at: number
  readonly models: readonly string[] | null
  readonly weights: Readonly<Record<string, string>> | null
  readonly given: number
}
/** What stands at the beginning of a run. */
export interface World {
  readonly start_ms: number
  readonly zones: readonly string[]
  readonly grants: readonly PlannedGrant[]
  readonly wallet: number
  readonly rules: readonly PlannedRule[]
  readonly line: number
}

/** What begins or ends at an instant; the instant itself is where mistakes are. */
export type Boundary = 'day' | 'week' | 'month' | 'lease' | 'expiry'

/** `aim`: an id counts through the holds that a settle would change, so that calls hit something more often than not. */
export type Step =
  | {
      readonly do: 'hold'
      readonly id: number
      readonly project: number
      readonly key: number
      readonly model: number
      readonly input: number
      readonly output: number
      readonly smallest: number
      readonly lease_ms: number
      readonly skew_ms: number
      readonly free: boolean
    }
  | { readonly do: 'extend'; readonly aim: boolean; readonly ids: readonly number[]; readonly more: number; readonly lease_ms: number }
  | ({ readonly do: 'settle'; readonly aim: boolean; readonly id: number; readonly swept: boolean; readonly stale: boolean } & Used)
  | { readonly do: 'release'; readonly aim: boolean; readonly id: number }
  | ({ readonly do: 'sweep'; readonly after_ms: number; readonly charge: boolean } & Used)
  | {
      readonly do: 'credit'
      readonly tenant: number
      readonly grant: number
      readonly delta: number
      readonly seq_off: number
      /** New terms, or null for the planned ones. */
      readonly changed: Pick<PlannedGrant, 'priority' | 'expires_in_ms'> | null
    }
  | { readonly do: 'block'; readonly kind: 'key' | 'tenant'; readonly which: number; readonly on: boolean }
  | { readonly do: 'clock'; readonly by_ms: number }
  | { readonly do: 'boundary'; readonly of: Boundary; readonly zone: number; readonly before_ms: number }
  | { readonly do: 'limit'; readonly rule: number; readonly limit: number }
  | { readonly do: 'line'; readonly line: number }
  | { readonly do: 'repeat'; readonly back: number }
  | { readonly do: 'foreign'; readonly id: number; readonly age_ms: number; readonly amount: number }

/** What an answer used, of 100 % of what was held, so that it can also be more. */
export interface Used {
  readonly input_percent: number
  readonly output_percent: number
  readonly cached: number
  readonly requests: 0 | 1
}

const int = (min: number, max: number) => fc.integer({ min, max })
const HOLDS = 9

const aim = fc.constantFrom(true, true, true, false)
const used = {
  input_percent: int(50, 110),
  output_percent: int(0, 115),
  cached: int(0, 4),
  requests: fc.constantFrom(0 as const, 1 as const, 1 as const),
}
const lease_ms = fc.constantFrom(10_000, 30_000, 2 * HOUR_MS)
const expires_in_ms = fc.constantFrom(null, null, 10_000, 5 * MINUTE_MS, 6 * HOUR_MS, 40 * DAY_MS)

const hold = fc.record({
  do: fc.constant('hold' as const),
  id: int(0, HOLDS),
  project: int(0, 1),
  key: int(0, 1),
  model: int(0, 1),
  input: int(0, 40),
  output: int(0, 40),
  smallest: int(0, 40),
  lease_ms,
  skew_ms: fc.constantFrom(0, 0, 1500),
  free: fc.constantFrom(false, false, false, false, false, false, false, true),
})
const credit = fc.record({
  do: fc.constant('credit' as const),
  tenant: int(0, 1),
  grant: int(0, 7),
  delta: int(-40, 120),
  seq_off: fc.constantFrom(0, 0, 0, 0, 0, 0, -1, 1),
  changed: fc.option(fc.record({ priority: int(0, 4), expires_in_ms }), { freq: 8 }),
})
const others: fc.Arbitrary<Step>[] = [
  fc.record({ do: fc.constant('release' as const), aim, id: int(0, HOLDS) }),
  fc.record({ do: fc.constant('sweep' as const), after_ms: fc.constantFrom(0, 31_000), charge: fc.boolean(), ...used }),
  fc.record({ do: fc.constant('sweep' as const), after_ms: fc.constantFrom(0, 31_000), charge: fc.boolean(), ...used }),
  fc.record({
    do: fc.constant('block' as const),
    kind: fc.constantFrom('key' as const, 'tenant' as const),
    which: int(0, 1),
    on: fc.constantFrom(false, false, true),
  }),
  fc.record({ do: fc.constant('limit' as const), rule: int(0, 9), limit: int(0, 400) }),
  fc.record({ do: fc.constant('line' as const), line: fc.constantFrom(0, 0, 150) }),
  fc.record({ do: fc.constant('foreign' as const), id: int(0, 2), age_ms: int(0, 12 * MINUTE_MS), amount: int(0, 60) }),
]
const by_ms = fc.oneof(int(1, 5000), int(5000, 40_000), int(MINUTE_MS, 20 * MINUTE_MS), int(HOUR_MS, 6 * HOUR_MS), int(DAY_MS, 40 * DAY_MS))

const boundary = fc.record({
  do: fc.constant('boundary' as const),
  of: fc.constantFrom<Boundary>('day', 'week', 'month', 'lease', 'lease', 'expiry', 'expiry'),
  zone: int(0, 1),
  before_ms: fc.constantFrom(0, 0, 0, 1, -1, 700),
})

export const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: boundary },
  { weight: 12, arbitrary: hold },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('extend' as const),
      aim,
      ids: fc.array(int(0, HOLDS), { minLength: 1, maxLength: 2 }),
      more: int(-2, 40),
      lease_ms,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('settle' as const),
      aim,
      id: int(0, HOLDS),
      swept: fc.constantFrom(false, false, true),
      stale: fc.constantFrom(false, false, true),
      ...used,
    }),
  },
  { weight: 5, arbitrary: credit },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('clock' as const), by_ms }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('repeat' as const), back: int(0, 7) }) },
  ...others.map((arbitrary) => ({ weight: 1, arbitrary })),
)

const grant = (unit: GrantUnit): fc.Arbitrary<PlannedGrant> =>
  fc.record({
    unit: fc.constant(unit),
    priority: int(0, 4),
    expires_in_ms,
    created_at: int(1, 3),
    models: fc.constantFrom(null, null, ['m1'], ['m2']),
    weights: unit === 'tokens' ? fc.constantFrom(null, { m1: '0.5' }, { m1: '1.75', m2: '0.333333' }) : fc.constant(null),
    given: unit === 'requests' ? int(0, 2) : fc.oneof(fc.constant(0), int(0, 250)),
  })

const METERED: readonly LimitKind[] = ['requests_window', 'tokens_window', 'amount_window']
/** Limits that bite: of requests a few, of tokens and money a few requests' worth. */
const planned_rule: fc.Arbitrary<PlannedRule> = fc
  .record({
    tenant: int(0, 1),
    scope: fc.constantFrom<LimitScope>('key', 'project', 'tenant'),
    which: int(0, 1),
    model: fc.constantFrom(null, null, 'm1', 'm2'),
    kind: fc.constantFrom<LimitKind>('requests_per_minute', 'tokens_per_minute', 'concurrency', 'budget', ...METERED),
    window: fc.constantFrom('5h' as const, 'day' as const, 'week' as const, 'month' as const),
    few: int(0, 5),
    many: int(0, 400),
    always: fc.boolean(),
  })
  .map(({ tenant, scope, which, model, kind, window, few, many, always }) => ({
    tenant,
    scope,
    scope_id: scopeId(scope, tenant, which),
    model,
    kind,
    window: METERED.includes(kind) || (kind === 'budget' && !always) ? window : null,
    limit: kind === 'concurrency' || kind === 'requests_per_minute' || kind === 'requests_window' ? few : many,
  }))

export const anyWorld: fc.Arbitrary<World> = fc.record({
  start_ms: fc.constantFrom(
    ADMITTED_AT,
    Date.parse('2026-10-24T23:59:30Z'),
    Date.parse('2028-02-28T15:59:50Z'),
    Date.parse('2027-03-14T04:59:00Z'),
  ),
  zones: fc.constantFrom(
    ['Asia/Shanghai', 'Europe/Berlin'],
    ['America/New_York', 'Asia/Shanghai'],
    ['Australia/Lord_Howe', 'Asia/Kathmandu'],
  ),
  grants: fc.tuple(grant('nano_cny'), grant('nano_cny'), grant('tokens'), grant('tokens'), grant('requests')),
  wallet: int(0, 500),
  rules: fc.uniqueArray(planned_rule, {
    maxLength: 6,
    size: 'max',
    selector: ({ kind, scope, scope_id, model, window }) => [kind, scope, scope_id, model, window].join('|'),
  }),
  line: fc.constantFrom(0, 0, 100),
})

/** The id of a scope of a tenant: two keys in two projects each. */
export function scopeId(scope: LimitScope, tenant: number, which: number): string {
  const name = TENANTS[tenant] ?? TENANTS[0]
  return scope === 'tenant' ? name : `${name}-${scope}-${which}`
}

/** Peak hours in the morning of a Monday to Friday in Shanghai. */
export const CALENDAR: TradingCalendar = {
  windows: new Map([['peak', [{ from_minute: 540, to_minute: 720 }]]]),
  holidays: new Set(),
  workdays: new Set(),
}

/** Price versions that come into force during a run, dearer and cheaper, with a rule for peak hours and one for long answers. */
export function pricesFrom(start_ms: number): readonly PriceVersion[] {
  const version = (id: string, effective_from: number, pico: bigint): PriceVersion => {
    const tokens = { input: pico, cached_input: pico / 3n, cache_write: pico, output: 2n * pico + 1n }
    const dearer = { input: pico + 700n, cached_input: pico, cache_write: pico, output: 3n * pico }
    const calls = { search: 0n, image: 0n }
    const rules = [
      { name: 'peak', when: { window: 'peak' }, tokens: dearer, calls },
      { name: 'long', when: { output_above: 25 }, tokens: dearer, calls },
      { name: 'base', when: {}, tokens, calls },
    ]
    return { id, effective_from, rules, source: 'test', as_of: '2026-01-01' }
  }
  return [
    version('v1', 0, 1500n),
    version('v2', start_ms + 40_000, 2333n),
    version('v3', start_ms + 3 * HOUR_MS, 500n),
    version('v4', start_ms + 2 * DAY_MS, 1999n),
  ]
}
