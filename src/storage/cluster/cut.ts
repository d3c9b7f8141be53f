import type { Cut } from '../books.ts'
import {
  type AccountBooks,
  type AccountCut,
  bucketOf,
  type LockedBucket,
  type OutboxRow,
  type SharedLedger,
  type SharedLimits,
  type TenantOf,
  type UsageStreams,
} from '../cluster-ports.ts'
import { spanOfState, usedOfLimit } from '../meters.ts'
import type { BalanceView, Ledger, LedgerEntry, LimitRule, LimitState } from '../ports.ts'
import { ALL_BUCKETS, batchOf } from './post.ts'

/** Tenants looked at in one step: what one script reads in some milliseconds. */
const MOST_TENANTS = 100
const MOST_ENTRIES = 500

export interface CutDeps {
  readonly limits: SharedLimits
  readonly streams: UsageStreams
  readonly ledger: SharedLedger
  readonly tenantOf: TenantOf
}

/** What a cut has found beside what limits believe: the ledger at the same moment. */
interface Parts {
  readonly balances: Map<string, BalanceView>
  readonly entries: LedgerEntry[]
  readonly states: Map<LimitRule, LimitState>
  readonly used: Map<LimitRule, bigint>
}

/**
 * Admission and ledger at one moment of each bucket, under traffic: the bucket's lock is taken, so that nobody else posts; limits are read
 * together with the end of the bucket's stream; the stream is posted up to there; then the ledger is read. What it lacks of rows that
 * limits had not been told of is taken off.
 */
export async function clusterCut(rules: readonly LimitRule[], node: string, deps: CutDeps): Promise<Cut> {
  const parts: Parts = { balances: new Map(), entries: [], states: new Map(), used: new Map() }
  const owned = await owners(rules, deps)
  const buckets = rules.length === 0 ? ALL_BUCKETS : [...new Set(owned.keys().map((tenant) => bucketOf(tenant)))].toSorted((a, b) => a - b)
  for (const bucket of buckets) await cutBucket(bucket, owned, parts, deps)
  return {
    mark: { node, event_seq: 0, row_seq: 0, balances: parts.entries, used: parts.used },
    balances: parts.balances,
    // Rows of open requests are in the journals of their nodes.
    holds: new Set(),
    states: rules.map((rule) => parts.states.get(rule) ?? unknownState(rule)),
  }
}

async function owners(rules: readonly LimitRule[], { tenantOf }: CutDeps): Promise<ReadonlyMap<string, readonly LimitRule[]>> {
  const owned = new Map<string, LimitRule[]>()
  for (const rule of rules) {
    const tenant = await tenantOf(rule.scope, rule.scope_id)
    if (tenant === null) continue
    const known = owned.get(tenant)
    if (known === undefined) owned.set(tenant, [rule])
    else known.push(rule)
  }
  return owned
}

async function cutBucket(bucket: number, owned: ReadonlyMap<string, readonly LimitRule[]>, parts: Parts, deps: CutDeps): Promise<void> {
  await deps.ledger.withBucket(bucket, async (locked) => {
    const mine = [...owned.keys()].filter((tenant) => bucketOf(tenant) === bucket)
    const tenants = owned.size > 0 ? mine : await everyone(bucket, locked, deps)
    for (let from = 0; from < tenants.length; from += MOST_TENANTS) {
      const some = tenants.slice(from, from + MOST_TENANTS)
      const rules = some.flatMap((tenant) => owned.get(tenant) ?? [])
      const cut = await deps.limits.cut(bucket, some, rules)
      if (cut.last_entry !== null) await postUntil(bucket, cut.last_entry, locked, deps)
      const books = new Map((await locked.books()).map((account) => [account.tenant, account]))
      for (const tenant of some) {
        const [account, book] = [cut.accounts.get(tenant), books.get(tenant)]
        addAccount(tenant, account, book, await untold(tenant, account, book, deps), parts)
      }
      for (const [index, rule] of rules.entries()) await addState(rule, cut.states[index], parts, owned, deps.ledger)
    }
  })
}

/** Whoever limits or the ledger know of. */
async function everyone(bucket: number, locked: LockedBucket, { limits }: CutDeps): Promise<readonly string[]> {
  return [...new Set([...(await limits.tenants(bucket)), ...(await locked.books()).map(({ tenant }) => tenant)])]
}

async function postUntil(bucket: number, last_entry: string, locked: LockedBucket, { streams }: CutDeps): Promise<void> {
  for (;;) {
    const entries = (await streams.read([bucket], MOST_ENTRIES, last_entry)).get(bucket) ?? []
    const last = entries.at(-1)
    if (last === undefined) return
    await locked.post(batchOf(bucket, entries))
    await streams.acknowledge(bucket, last.id)
  }
}

/** What the ledger had put into the outbox when it was read, and limits had not heard of at the cut. */
async function untold(
  tenant: string,
  account: AccountCut | undefined,
  books: AccountBooks | undefined,
  { ledger }: CutDeps,
): Promise<readonly OutboxRow[]> {
  const applied_seq = account?.applied_seq ?? 0
  return books === undefined || books.applied_seq <= applied_seq ? [] : await ledger.outboxBetween(tenant, applied_seq, books.applied_seq)
}

function addAccount(
  tenant: string,
  account: AccountCut | undefined,
  books: AccountBooks | undefined,
  pending: readonly OutboxRow[],
  parts: Parts,
): void {
  if (account !== undefined) parts.balances.set(tenant, account.view)
  const unapplied = new Map<string, bigint>()
  for (const { grant, delta } of pending) unapplied.set(grant.id, (unapplied.get(grant.id) ?? 0n) + delta)
  for (const { terms, balance } of books?.grants ?? []) {
    const liability = { code: 'wallet_liability', owner: tenant, ref: terms.id, unit: terms.unit } as const
    parts.entries.push({ account: liability, amount: (unapplied.get(terms.id) ?? 0n) - balance })
  }
  const owed = (books?.credit_used_nano ?? 0n) + (unapplied.get('credit') ?? 0n)
  if (owed !== 0n) parts.entries.push({ account: { code: 'receivable', owner: tenant, ref: '', unit: 'nano_cny' }, amount: owed })
}

async function addState(
  rule: LimitRule,
  state: LimitState | undefined,
  parts: Parts,
  owned: ReadonlyMap<string, readonly LimitRule[]>,
  ledger: Ledger,
): Promise<void> {
  if (state === undefined) return
  parts.states.set(rule, state)
  const tenant = [...owned].find(([, rules]) => rules.includes(rule))?.[0]
  const span = spanOfState(rule, state)
  if (tenant === undefined || span === null || state.used === null) return
  parts.used.set(rule, await usedOfLimit({ tenant, rule, ...span }, ledger))
}

function unknownState(rule: LimitRule): LimitState {
  return { rule, available: rule.limit, held: 0n, used: null, resets_at_ms: null }
}
