import type { Clock } from '../../base/clock.ts'
import { totalTokens } from '../../money/usage.ts'
import type {
  GrantTerms,
  Ledger,
  LedgerEntry,
  LimitRule,
  LimitScope,
  Period,
  UsageDimension,
  UsagePage,
  UsageQuery,
  UsageSums,
  WindowBounds,
} from '../ports.ts'
import type { GrantRecord, LimitSetting, Records, TenantRecord } from '../records.ts'
import { CREDIT } from './account.ts'
import type { MemoryLimits } from './limits.ts'
import { limitName } from './needs.ts'

const FIVE_HOURS_MS = 5 * 3_600_000
/** No event is later than this. */
const END_OF_TIME_MS = 8_640_000_000_000_000
const PAGE_ROWS = 10_000

export interface RebuildOptions {
  readonly clock: Clock
  /** Boundaries of a calendar window around an instant in a time zone; windows are not rebuilt without it. */
  readonly windowAt?: (name: 'day' | 'week' | 'month', time_zone: string, at_ms: number) => WindowBounds
}

/**
 * Fills empty limits from what is durable: every grant's remaining balance and the credit line's use from the ledger's accounts,
 * budgets and current windows from the events, blocks from revoked keys and suspended tenants. Post the journal first.
 * Rates and concurrency start empty. A `5h` window began when the receipt of its latest event says.
 *
 * @returns the sequence number of the last credit applied, per tenant; the next credit of a tenant is one more
 */
export async function rebuildLimits(
  limits: MemoryLimits,
  records: Pick<Records, 'load'>,
  ledger: Ledger,
  options: RebuildOptions,
): Promise<ReadonlyMap<string, number>> {
  const revoked: string[] = []
  const metered = new MeteredSettings()
  const { tenants, projects, grants } = await records.load((keys) => {
    for (const { id, tenant, limits: own, revoked_at } of keys) {
      if (revoked_at !== null) revoked.push(id)
      metered.add(tenant, 'key', id, own)
    }
  })
  for (const { id, tenant, limits: own } of projects) metered.add(tenant, 'project', id, own)
  for (const { id, limits: own } of tenants) metered.add(id, 'tenant', id, own)
  const seqs = await rebuildBalances(limits, grants, await ledger.balances())
  for (const tenant of tenants) if (tenant.status === 'suspended') await limits.block('tenant', tenant.id, true)
  for (const id of revoked) await limits.block('key', id, true)
  for (const tenant of tenants) {
    const settings = metered.of(tenant.id)
    if (settings.length > 0) await rebuildMeters(limits, ledger, tenant, settings, options)
  }
  return seqs
}

async function rebuildBalances(
  limits: MemoryLimits,
  grants: readonly GrantRecord[],
  balances: readonly LedgerEntry[],
): Promise<ReadonlyMap<string, number>> {
  const seqs = new Map<string, number>()
  const left = leftOfGrants(balances)
  const credit = async (grant: GrantTerms, delta: bigint): Promise<void> => {
    const seq = limits.appliedSeq(grant.tenant) + 1
    const state = await limits.credit({ grant, delta, seq })
    if (state !== 'applied') throw new Error(`the balance of grant ${grant.id} was not applied: ${state}`)
    seqs.set(grant.tenant, seq)
  }
  for (const { kind: _, amount: __, ...terms } of grants) {
    await credit(terms, left.get(grantKey(terms.tenant, terms.id, terms.unit)) ?? 0n)
  }
  for (const { account, amount } of balances) {
    if (account.code !== 'receivable' || account.unit !== 'nano_cny' || account.ref !== '' || amount === 0n) continue
    const unrestricted = { priority: 0, expires_at: null, created_at: 0, models: null, weights: null }
    const terms = { id: CREDIT, tenant: account.owner, unit: account.unit, ...unrestricted }
    await credit(terms, -amount)
  }
  return seqs
}

/** What is left of a grant is the credit balance of the accounts that carry its id. */
function leftOfGrants(balances: readonly LedgerEntry[]): ReadonlyMap<string, bigint> {
  const left = new Map<string, bigint>()
  for (const { account, amount } of balances) {
    const { code, owner, ref, unit } = account
    if (code !== 'wallet_liability' && code !== 'prepaid_grant' && code !== 'contract_commitment') continue
    const key = grantKey(owner, ref, unit)
    left.set(key, (left.get(key) ?? 0n) - amount)
  }
  return left
}

function grantKey(tenant: string, grant: string, unit: string): string {
  return `${tenant}\n${grant}\n${unit}`
}

interface ScopedSetting {
  readonly scope: LimitScope
  readonly scope_id: string
  readonly setting: LimitSetting
}

/** Limits that count over time: budgets and windows of each tenant, its projects and its keys. */
class MeteredSettings {
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

async function rebuildMeters(
  limits: MemoryLimits,
  ledger: Ledger,
  tenant: TenantRecord,
  settings: readonly ScopedSetting[],
  options: RebuildOptions,
): Promise<void> {
  for (const [name, alike] of Map.groupBy(settings, ({ setting }) => setting.window)) {
    if (name === '5h') await rebuildFiveHours(limits, ledger, tenant.id, alike, options.clock.now_ms())
    else {
      const span = spanOf(name, tenant, options)
      if (span !== null) await rebuildSpan(limits, ledger, tenant.id, alike, span)
    }
  }
}

/** Windows that all begin and end together. */
async function rebuildSpan(
  limits: MemoryLimits,
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
      // Limits are empty: one that nothing was counted for is as it should be, and there may be a million.
      if (used !== undefined) limits.restore(ruleOf(scoped, window), usedOf(scoped.setting.kind, used), end_ms)
    }
  }
}

/** Windows that each begin at their own first use. Only those that were used in the last five hours can be running. */
async function rebuildFiveHours(
  limits: MemoryLimits,
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
      limits.restore(ruleOf(scoped, window), used === undefined ? 0n : usedOf(setting.kind, used), end_ms)
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

function spanOf(name: Exclude<LimitSetting['window'], '5h'>, tenant: TenantRecord, options: RebuildOptions): Span | null {
  if (name === null) return { window: null, end_ms: Infinity }
  const window = options.windowAt?.(name, tenant.time_zone, options.clock.now_ms())
  return window === undefined ? null : { window, end_ms: window.end_ms }
}

function usedOf(kind: LimitSetting['kind'], { requests, tokens, amount_nano }: UsageSums): bigint {
  if (kind === 'requests_window') return BigInt(requests)
  return kind === 'tokens_window' ? BigInt(totalTokens(tokens)) : amount_nano
}
