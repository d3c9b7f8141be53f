import { cnyFromNano } from '../money/amount.ts'
import type { GrantUnit } from '../money/grant.ts'
import type { Cut, LimitUse, OnProgress, RebuildChange } from '../storage/books.ts'
import type { BalanceView, GrantTerms, LedgerEntry, LimitRule } from '../storage/ports.ts'
import type { KeyRecord, LimitSetting, ProjectRecord, TenantRecord } from '../storage/records.ts'
import { spanOfState } from '../storage/meters.ts'
import { plainTerms } from '../storage/grants.ts'
import { rulesOf } from '../storage/rules.ts'
import { booksOf, creditUsed } from './audit.ts'
import type { ControlDeps } from './deps.ts'

/** Between two looks at a difference: one that a moment had made is gone by then. */
const SECOND_LOOK_MS = 150
const METERED: ReadonlySet<string> = new Set(['budget', 'requests_window', 'tokens_window', 'amount_window'])

export type RebuildDeps = Pick<ControlDeps, 'records' | 'ledger' | 'credits' | 'turns' | 'clock' | 'cut' | 'rebuilder' | 'archive'>

/**
 * Recomputes what can be recomputed, in the order in which one thing follows from another: events from the journal, entries of usage
 * from events, running balances from entries, sums from events, then what admission believes from all of these. Safe beside traffic; a second run finds nothing.
 *
 * @param check look only
 * @returns what was wrong, and is right now unless `check`; and what is wrong that nothing here can put right
 */
export async function rebuild(check: boolean, deps: RebuildDeps, on_progress: OnProgress): Promise<object> {
  const { ledger, rebuilder } = deps
  const steps: readonly (readonly [string, () => Promise<readonly RebuildChange[]>])[] = [
    ['posting events that the ledger lacks', () => rebuilder.events(check)],
    ['comparing entries with events', () => rebuilder.entries(check, async () => (await deps.archive.verify(on_progress)).length === 0)],
    ['summing entries', () => rebuilder.balances(check)],
    ['summing events', () => rebuilder.rollups(check, on_progress)],
    ['comparing balances with admission', () => rebuildBalances(check, deps)],
    ['comparing windows and budgets with admission', () => rebuildMeters(check, deps)],
  ]
  await ledger.post()
  if (!check) await deps.credits.makeUpAll()
  const changes: RebuildChange[] = []
  for (const [done, [doing, step]] of steps.entries()) {
    on_progress({ doing, done, of: steps.length })
    changes.push(...(await step()))
  }
  return { object: 'rebuild', check, changes, lost: await rebuilder.lost() }
}

/** A balance that admission has otherwise than the ledger. */
interface WrongBalance {
  readonly terms: GrantTerms
  readonly was: bigint
  readonly now: bigint
  /** What to credit so that it is right. */
  readonly delta: bigint
}

async function rebuildBalances(check: boolean, deps: RebuildDeps): Promise<readonly RebuildChange[]> {
  const { balances, books } = await balancesNow(deps)
  const tenants = [...new Set([...balances.keys(), ...booksOf(books).keys()])]
  const changes: RebuildChange[] = []
  for (const tenant of tenants) {
    if (wrongOf(tenant, balances, books, [], deps.clock.now_ms()).length === 0) continue
    changes.push(...(await deps.turns.run(tenant, () => rebuildTenant(tenant, check, deps))))
  }
  return changes
}

/** In the tenant's turn no credit is half done, and only what two looks have found alike is changed. */
async function rebuildTenant(tenant: string, check: boolean, deps: RebuildDeps): Promise<readonly RebuildChange[]> {
  const grants = await deps.records.grants(tenant)
  const look = async (): Promise<readonly WrongBalance[]> => {
    const { balances, books } = await balancesNow(deps)
    return wrongOf(tenant, balances, books, grants, deps.clock.now_ms())
  }
  const first = await look()
  await new Promise((resolve) => setTimeout(resolve, SECOND_LOOK_MS))
  const wrong = (await look()).filter((now) => first.some(({ terms, delta }) => terms.id === now.terms.id && delta === now.delta))
  for (const { terms, delta } of check ? [] : wrong) await deps.credits.correct(terms, delta)
  return wrong.map(({ terms, was, now }) => ({
    what: 'balance that admission uses',
    id: `${tenant} ${terms.id === 'credit' ? 'credit line' : terms.id}`,
    was: inUnit(was, terms.unit),
    now: inUnit(now, terms.unit),
  }))
}

async function balancesNow(deps: RebuildDeps): Promise<{ readonly balances: Cut['balances']; readonly books: readonly LedgerEntry[] }> {
  const { mark, balances } = await deps.cut()
  await deps.ledger.post()
  return { balances, books: await deps.rebuilder.balancesAt(mark) }
}

function wrongOf(
  tenant: string,
  balances: ReadonlyMap<string, BalanceView>,
  entries: readonly LedgerEntry[],
  records: readonly GrantTerms[],
  now_ms: number,
): readonly WrongBalance[] {
  const view = balances.get(tenant)
  const { left, owed } = booksOf(entries.filter(({ account }) => account.owner === tenant)).get(tenant) ?? { left: new Map(), owed: 0n }
  const wrong: WrongBalance[] = []
  for (const { balance, held: _, ...terms } of view?.grants ?? []) {
    const now = left.get(terms.id)?.amount ?? 0n
    if (balance !== now) wrong.push({ terms, was: balance, now, delta: now - balance })
  }
  for (const [id, { unit, amount }] of left) {
    if (amount === 0n || view?.grants.some((grant) => grant.id === id) === true) continue
    const terms = records.find((grant) => grant.id === id) ?? plainTerms(id, tenant, unit)
    wrong.push({ terms, was: 0n, now: amount, delta: amount })
  }
  const used = view === undefined ? 0n : creditUsed(view, now_ms)
  if (used !== owed) wrong.push({ terms: plainTerms('credit', tenant, 'nano_cny'), was: used, now: owed, delta: used - owed })
  return wrong
}

function inUnit(amount: bigint, unit: GrantUnit): string {
  return unit === 'nano_cny' ? `${cnyFromNano(amount)} CNY` : `${amount} ${unit}`
}

interface WrongMeter {
  readonly use: LimitUse
  readonly was: bigint
  readonly now: bigint
}

/**
 * Counts what events say was used in the windows and budgets of a tenant, its projects and its keys: for limits that were set while it
 * spent. Requests that are open at that moment count from the next rebuild or start on.
 */
export async function recountMeters(tenant: string, deps: RebuildDeps): Promise<void> {
  const { records, clock } = deps
  const [record, projects, keys] = await Promise.all([records.tenant(tenant), records.projects(tenant), records.keys(tenant)])
  if (record !== null) await rightMeters(meteredRules(record, projects, keys, clock.now_ms()), false, deps)
}

async function rebuildMeters(check: boolean, deps: RebuildDeps): Promise<readonly RebuildChange[]> {
  const keys: KeyRecord[] = []
  const { tenants, projects } = await deps.records.load((page) => {
    for (const key of page) if (key.limits.some(({ kind }) => METERED.has(kind))) keys.push(key)
  })
  const now_ms = deps.clock.now_ms()
  const [projects_of, keys_of] = [Map.groupBy(projects, ({ tenant }) => tenant), Map.groupBy(keys, ({ tenant }) => tenant)]
  const rules = tenants.flatMap((tenant) => meteredRules(tenant, projects_of.get(tenant.id) ?? [], keys_of.get(tenant.id) ?? [], now_ms))
  return rightMeters(rules, check, deps)
}

/** No tenant's id: the turn in which meters are corrected. */
const METERS = 'every meter'

/** One correction at a time: two that find the same difference would both make up for it. */
async function rightMeters(rules: readonly TenantRule[], check: boolean, deps: RebuildDeps): Promise<readonly RebuildChange[]> {
  return rules.length === 0 ? [] : await deps.turns.run(METERS, () => rightMetersNow(rules, check, deps))
}

async function rightMetersNow(rules: readonly TenantRule[], check: boolean, deps: RebuildDeps): Promise<readonly RebuildChange[]> {
  const first = await wrongMeters(rules, deps)
  if (first.length === 0) return []
  await new Promise((resolve) => setTimeout(resolve, SECOND_LOOK_MS))
  const doubtful = rules.filter(({ rule }) => first.some(({ use }) => use.rule === rule))
  const wrong = (await wrongMeters(doubtful, deps)).filter(({ use, was, now }) =>
    first.some((other) => other.use.rule === use.rule && other.now - other.was === now - was),
  )
  for (const { use, was, now } of check ? [] : wrong) await deps.credits.correctMeter(use, now - was)
  return wrong.map(({ use: { rule }, was, now }) => ({
    what: `used of ${rule.window === null ? '' : `${rule.window.name} `}${rule.kind}`,
    id: `${rule.scope} ${rule.scope_id}${rule.model === null ? '' : ` ${rule.model}`}`,
    was: meterText(was, rule),
    now: meterText(now, rule),
  }))
}

interface TenantRule {
  readonly tenant: string
  readonly rule: LimitRule
}

function meteredRules(
  { id: tenant, limits, time_zone }: TenantRecord,
  projects: readonly ProjectRecord[],
  keys: readonly KeyRecord[],
  now_ms: number,
): readonly TenantRule[] {
  const of = (scope: LimitRule['scope'], id: string, settings: readonly LimitSetting[]): readonly TenantRule[] => {
    const metered = settings.filter(({ kind }) => METERED.has(kind))
    return rulesOf(scope, id, metered, time_zone, now_ms).map((rule) => ({ tenant, rule }))
  }
  return [
    ...of('tenant', tenant, limits),
    ...projects.flatMap(({ id, limits: own }) => of('project', id, own)),
    ...keys.flatMap(({ id, limits: own }) => of('key', id, own)),
  ]
}

async function wrongMeters(rules: readonly TenantRule[], deps: RebuildDeps): Promise<readonly WrongMeter[]> {
  const { mark, states } = await deps.cut(rules.map(({ rule }) => rule))
  await deps.ledger.post()
  const believed = rules.flatMap(({ tenant, rule }, index) => {
    const state = states[index]
    const span = state === undefined ? null : spanOfState(rule, state)
    return state === undefined || state.used === null || span === null ? [] : [{ use: { tenant, rule, ...span }, was: state.used }]
  })
  const used = await deps.rebuilder.usedAt(
    mark,
    believed.map(({ use }) => use),
  )
  return believed.map(({ use, was }, index) => ({ use, was, now: used[index] ?? 0n })).filter(({ was, now }) => was !== now)
}

function meterText(amount: bigint, { kind }: LimitRule): string {
  if (kind === 'requests_window') return `${amount} requests`
  return kind === 'tokens_window' ? `${amount} tokens` : `${cnyFromNano(amount)} CNY`
}
