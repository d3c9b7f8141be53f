import type { Clock } from '../../base/clock.ts'
import { totalTokens } from '../../money/usage.ts'
import type {
  GrantRecord,
  GrantTerms,
  KeyRecord,
  Ledger,
  LedgerEntry,
  LimitRule,
  LimitScope,
  LimitSetting,
  Period,
  ProjectRecord,
  Records,
  TenantRecord,
  UsageDimension,
  UsagePage,
  UsageQuery,
  UsageSums,
  WindowBounds,
} from '../ports.ts'
import { CREDIT } from './account.ts'
import type { MemoryLimits } from './limits.ts'

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
 * Rates and concurrency start empty. A `5h` window, whose first use is not stored, starts at the first event of the last five hours.
 *
 * @returns the sequence number of the last credit applied, per tenant; the next credit of a tenant is one more
 */
export async function rebuildLimits(
  limits: MemoryLimits,
  records: Records,
  ledger: Ledger,
  options: RebuildOptions,
): Promise<ReadonlyMap<string, number>> {
  const { tenants, projects, keys, grants } = await records.load()
  const seqs = await rebuildBalances(limits, grants, await ledger.balances())
  for (const tenant of tenants) if (tenant.status === 'suspended') await limits.block('tenant', tenant.id, true)
  for (const key of keys) if (key.revoked_at !== null) await limits.block('key', key.id, true)
  for (const tenant of tenants) {
    const settings = meteredSettings(tenant, projects, keys)
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

/** Limits that count over time: budgets and windows, of a tenant, its projects and its keys. */
function meteredSettings(tenant: TenantRecord, projects: readonly ProjectRecord[], keys: readonly KeyRecord[]): readonly ScopedSetting[] {
  const scoped = (scope: LimitScope, scope_id: string, settings: readonly LimitSetting[]): readonly ScopedSetting[] =>
    settings.filter(isMetered).map((setting) => ({ scope, scope_id, setting }))
  return [
    ...scoped('tenant', tenant.id, tenant.limits),
    ...projects.filter((project) => project.tenant === tenant.id).flatMap((project) => scoped('project', project.id, project.limits)),
    ...keys.filter((key) => key.tenant === tenant.id).flatMap((key) => scoped('key', key.id, key.limits)),
  ]
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
  const names = new Set(settings.map(({ setting }) => setting.window))
  for (const name of names) {
    const span = await spanOf(name, tenant, ledger, options)
    if (span === null) continue
    const period = { from_ms: span.window?.start_ms ?? 0, to_ms: END_OF_TIME_MS }
    const counted = settings.filter(({ setting }) => setting.window === name)
    for (const [by, alike] of Map.groupBy(counted, dimensionsOf)) {
      const sums = await sumsBy(ledger, tenant.id, by, period)
      for (const { scope, scope_id, setting } of alike) {
        const { kind, model, limit } = setting
        const rule: LimitRule = { scope, scope_id, model, kind, limit: BigInt(limit), window: span.window }
        const used = sums.get(placeOf(model === null ? [scope_id] : [scope_id, model]))
        limits.restore(rule, used === undefined ? 0n : usedOf(kind, used), span.end_ms)
      }
    }
  }
}

/** What usage is split by to find what one limit counts, as one word so that limits of the same split share a query. */
function dimensionsOf({ scope, setting }: ScopedSetting): string {
  return setting.model === null ? scope : `${scope} model`
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

async function spanOf(name: LimitSetting['window'], tenant: TenantRecord, ledger: Ledger, options: RebuildOptions): Promise<Span | null> {
  const now_ms = options.clock.now_ms()
  if (name === null) return { window: null, end_ms: Infinity }
  if (name === '5h') {
    const start_ms = await firstUse(tenant.id, now_ms - FIVE_HOURS_MS, ledger)
    if (start_ms === null) return null
    const end_ms = start_ms + FIVE_HOURS_MS
    return { window: { name, start_ms, end_ms, next_end_ms: end_ms + FIVE_HOURS_MS }, end_ms }
  }
  const window = options.windowAt?.(name, tenant.time_zone, now_ms)
  return window === undefined ? null : { window, end_ms: window.end_ms }
}

/** Time of the tenant's first event after `from_ms`, found by halving the interval, since pages come newest first. */
async function firstUse(tenant: string, from_ms: number, ledger: Ledger): Promise<number | null> {
  let first: number | null = null
  let to_ms = from_ms + FIVE_HOURS_MS + 1
  let low_ms = from_ms
  while (low_ms < to_ms) {
    const middle_ms = Math.floor((low_ms + to_ms) / 2) + 1
    const { events } = await ledger.events({ tenant, from_ms: low_ms, to_ms: middle_ms, limit: 1 })
    const [found] = events
    if (found === undefined) low_ms = middle_ms
    else {
      first = found.admitted_at
      to_ms = found.admitted_at
    }
  }
  return first
}

function usedOf(kind: LimitSetting['kind'], { requests, tokens, amount_nano }: UsageSums): bigint {
  if (kind === 'requests_window') return BigInt(requests)
  return kind === 'tokens_window' ? BigInt(totalTokens(tokens)) : amount_nano
}
