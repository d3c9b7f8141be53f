import type { Clock } from '../base/clock.ts'
import { totalTokens } from '../money/usage.ts'
import type { LimitUse } from './books.ts'
import type {
  Ledger,
  LimitRule,
  LimitScope,
  LimitState,
  Period,
  UsageDimension,
  UsagePage,
  UsageQuery,
  UsageSums,
  WindowBounds,
} from './ports.ts'
import type { LimitSetting, TenantRecord } from './records.ts'
import { limitName } from './rules.ts'

const FIVE_HOURS_MS = 5 * 3_600_000
/** No event is later than this. */
const END_OF_TIME_MS = 8_640_000_000_000_000
const PAGE_ROWS = 10_000

/** What it takes to count what windows and budgets have used. */
export interface MeterOptions {
  readonly clock: Clock
  /** Boundaries of a calendar window around an instant in a time zone; windows are not counted without it. */
  readonly windowAt?: (name: 'day' | 'week' | 'month', time_zone: string, at_ms: number) => WindowBounds
}

/** Hears what events say was used of a window or budget. `end_ms` is `Infinity` where there is no window. */
export type OnMeter = (rule: LimitRule, used: bigint, end_ms: number) => void

export interface ScopedSetting {
  readonly scope: LimitScope
  readonly scope_id: string
  readonly setting: LimitSetting
}

/** Limits that count over time: budgets and windows of each tenant, its projects and its keys. */
export class MeteredSettings {
  readonly #settings = new Map<string, ScopedSetting[]>()

  add(tenant: string, scope: LimitScope, scope_id: string, settings: readonly LimitSetting[]): void {
    for (const setting of settings) {
      if (!isMetered(setting)) continue
      const scoped = { scope, scope_id, setting }
      const known = this.#settings.get(tenant)
      if (known === undefined) this.#settings.set(tenant, [scoped])
      else known.push(scoped)
    }
  }

  of(tenant: string): readonly ScopedSetting[] {
    return this.#settings.get(tenant) ?? []
  }
}

function isMetered({ kind }: LimitSetting): boolean {
  return kind === 'budget' || kind === 'requests_window' || kind === 'tokens_window' || kind === 'amount_window'
}

/**
 * What events say was used of a tenant's budgets and of its windows that are running. A limit that nothing was counted for is not heard of.
 */
export async function countMeters(
  found: OnMeter,
  ledger: Ledger,
  tenant: TenantRecord,
  settings: readonly ScopedSetting[],
  options: MeterOptions,
): Promise<void> {
  for (const [name, alike] of Map.groupBy(settings, ({ setting }) => setting.window)) {
    if (name === '5h') await countFiveHours(found, ledger, tenant.id, alike, options.clock.now_ms())
    else {
      const span = spanOf(name, tenant, options)
      if (span !== null) await countSpan(found, ledger, tenant.id, alike, span)
    }
  }
}

/** Windows that all begin and end together. */
async function countSpan(
  found: OnMeter,
  ledger: Ledger,
  tenant: string,
  settings: readonly ScopedSetting[],
  { window, end_ms }: Span,
): Promise<void> {
  const period = { from_ms: window?.start_ms ?? 0, to_ms: END_OF_TIME_MS }
  for (const [by, alike] of Map.groupBy(settings, dimensionsOf)) {
    const sums = await sumsBy(ledger, tenant, by, period)
    for (const scoped of alike) {
      const used = sums.get(placeOf(groupOf(scoped)))
      if (used !== undefined) found(ruleOf(scoped, window), usedOf(scoped.setting.kind, used), end_ms)
    }
  }
}

/** Windows that each begin at their own first use. Only those that were used in the last five hours can be running. */
async function countFiveHours(
  found: OnMeter,
  ledger: Ledger,
  tenant: string,
  settings: readonly ScopedSetting[],
  now_ms: number,
): Promise<void> {
  for (const [by, alike] of Map.groupBy(settings, dimensionsOf)) {
    const recent = await sumsBy(ledger, tenant, by, { from_ms: now_ms - FIVE_HOURS_MS, to_ms: END_OF_TIME_MS })
    for (const scoped of alike) {
      if (!recent.has(placeOf(groupOf(scoped)))) continue
      const start_ms = await beginningOf(scoped, tenant, ledger, now_ms)
      if (start_ms === null || start_ms + FIVE_HOURS_MS <= now_ms) continue
      const end_ms = start_ms + FIVE_HOURS_MS
      const { scope, scope_id, setting } = scoped
      const filter = { [scope]: scope_id, ...(setting.model === null ? {} : { model: setting.model }) }
      const query = { tenant, ...filter, periods: [{ from_ms: start_ms, to_ms: END_OF_TIME_MS }], by: [], limit: 1 }
      const [used] = (await ledger.usage(query)).rows
      const window = { name: '5h', start_ms, end_ms, next_end_ms: end_ms + FIVE_HOURS_MS } as const
      found(ruleOf(scoped, window), used === undefined ? 0n : usedOf(setting.kind, used), end_ms)
    }
  }
}

/** When the window of the latest event began: its hold says so. Null if no request has been counted yet. */
async function beginningOf(
  { scope, scope_id, setting }: ScopedSetting,
  tenant: string,
  ledger: Ledger,
  now_ms: number,
): Promise<number | null> {
  const { kind, model } = setting
  const filter = { tenant, [scope]: scope_id, ...(model === null ? {} : { model }) }
  const { events } = await ledger.events({ ...filter, from_ms: now_ms - FIVE_HOURS_MS, limit: 1 })
  return events[0]?.hold.begun?.[limitName({ kind, scope, model })] ?? null
}

function ruleOf({ scope, scope_id, setting }: ScopedSetting, window: WindowBounds | null): LimitRule {
  const { kind, model, limit } = setting
  return { scope, scope_id, model, kind, limit: BigInt(limit), window }
}

/** What usage is split by to find what one limit counts, as one word so that limits of the same split share a query. */
function dimensionsOf({ scope, setting }: ScopedSetting): string {
  return setting.model === null ? scope : `${scope} model`
}

function groupOf({ scope_id, setting }: ScopedSetting): readonly string[] {
  return setting.model === null ? [scope_id] : [scope_id, setting.model]
}

async function sumsBy(ledger: Ledger, tenant: string, by: string, period: Period): Promise<ReadonlyMap<string, UsageSums>> {
  const sums = new Map<string, UsageSums>()
  let cursor: string | null = null
  do {
    const query: UsageQuery = { tenant, periods: [period], by: by.split(' ') as UsageDimension[], limit: PAGE_ROWS }
    const page: UsagePage = await ledger.usage(cursor === null ? query : { ...query, cursor })
    for (const row of page.rows) sums.set(placeOf(row.group), row)
    cursor = page.next_cursor
  } while (cursor !== null)
  return sums
}

function placeOf(group: readonly string[]): string {
  return group.join('\n')
}

interface Span {
  readonly window: WindowBounds | null
  readonly end_ms: number
}

function spanOf(name: Exclude<LimitSetting['window'], '5h'>, tenant: TenantRecord, options: MeterOptions): Span | null {
  if (name === null) return { window: null, end_ms: Infinity }
  const window = options.windowAt?.(name, tenant.time_zone, options.clock.now_ms())
  return window === undefined ? null : { window, end_ms: window.end_ms }
}

function usedOf(kind: LimitSetting['kind'], { requests, tokens, amount_nano }: UsageSums): bigint {
  if (kind === 'requests_window') return BigInt(requests)
  return kind === 'tokens_window' ? BigInt(totalTokens(tokens)) : amount_nano
}

/** The interval that a limit's figure is about; null where it is not known or is just ending. A `5h` window begins at first use. */
export function spanOfState({ window }: LimitRule, { resets_at_ms }: LimitState): Period | null {
  if (window === null) return { from_ms: 0, to_ms: Infinity }
  if (resets_at_ms === null) return null
  if (window.name === '5h') return { from_ms: resets_at_ms - FIVE_HOURS_MS, to_ms: resets_at_ms }
  return resets_at_ms === window.end_ms ? { from_ms: window.start_ms, to_ms: window.end_ms } : null
}

/** What events say was used of one limit, in the limit's unit. */
export async function usedOfLimit({ tenant, rule, from_ms, to_ms }: LimitUse, ledger: Pick<Ledger, 'usage'>): Promise<bigint> {
  const filter = { [rule.scope]: rule.scope_id, ...(rule.model === null ? {} : { model: rule.model }) }
  const period = { from_ms, to_ms: Math.min(to_ms, END_OF_TIME_MS) }
  const [sums] = (await ledger.usage({ tenant, ...filter, periods: [period], by: [], limit: 1 })).rows
  return sums === undefined ? 0n : usedOf(rule.kind, sums)
}
