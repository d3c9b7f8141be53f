import type { Clock } from '../base/clock.ts'
import {
  BUCKETS,
  bucketOf,
  type BucketEpoch,
  type BucketState,
  type MeterBooks,
  type SharedLedger,
  type SharedLimits,
} from '../storage/cluster-ports.ts'
import { isLiveGateway } from '../storage/nodes.ts'
import { countMeters, MeteredSettings, type MeterOptions } from '../storage/meters.ts'
import type { Records, TenantRecord } from '../storage/records.ts'

/** Longest wait for the nodes that live. */
const REPORTS_MS = 15_000
const LOOK_EVERY_MS = 100
/** Buckets that are filled side by side. */
const AT_ONCE = 4
/** Keys revoked longer ago are known to every node. */
const REVOKED_LATELY_MS = 3_600_000

export interface RecoverDeps {
  readonly limits: SharedLimits
  readonly ledger: SharedLedger
  readonly records: Pick<Records, 'load'>
  /** Brings into the ledger what the streams of buckets still have. */
  readonly drain: (buckets: readonly number[]) => Promise<unknown>
  readonly clock: Clock
  readonly windowAt: NonNullable<MeterOptions['windowAt']>
  readonly sleep: (ms: number) => Promise<void>
  /** Hears what is about to be done, for the log. */
  readonly on_progress: (message: string, details: Readonly<Record<string, unknown>>) => void
}

/**
 * Fills buckets anew whose state in Redis is not, or not certainly, what the ledger says: the server is new, was flushed, restarted, or
 * replaced by a replica that lagged. They are closed meanwhile, so that nothing is spent twice.
 *
 * In this order: a new epoch in the ledger (from here on nothing that limits were told before counts as charged); what the streams
 * have; the same epoch in Redis, with nothing in it; every live node brings in what has ended and registers what is open; balances,
 * windows and blocks from the ledger; open.
 *
 * @returns how many buckets were filled
 */
export async function recover(deps: RecoverDeps): Promise<number> {
  const filled = await deps.ledger.ifAlone('recover', () => recoverAlone(deps))
  return filled ?? 0
}

async function recoverAlone(deps: RecoverDeps): Promise<number> {
  const { limits, ledger, on_progress } = deps
  const { buckets, last_epoch } = await unsound(deps)
  if (buckets.length === 0) return 0
  const epoch = await ledger.beginEpoch(buckets, last_epoch)
  on_progress('filling buckets from the ledger', { buckets: buckets.length, epoch })
  await deps.drain(buckets)
  await limits.beginEpoch(buckets, epoch)
  await reports(buckets, deps)
  const facts = await readFacts(buckets, deps)
  for (let from = 0; from < buckets.length; from += AT_ONCE) {
    await Promise.all(buckets.slice(from, from + AT_ONCE).map((bucket) => fillBucket(bucket, epoch, facts, deps)))
  }
  if (!(await ledger.openEpoch(buckets, epoch))) throw new Error(`epoch ${epoch} was overtaken by another`)
  on_progress('buckets are open', { buckets: buckets.length, epoch })
  return buckets.length
}

const ALL: readonly number[] = Array.from({ length: BUCKETS }, (_, bucket) => bucket)

/**
 * Buckets that are not open, or were opened on another server, or of which Redis and the ledger say different things; and the last epoch
 * that Redis knows of.
 */
async function unsound({ limits, ledger }: RecoverDeps): Promise<{ readonly buckets: readonly number[]; readonly last_epoch: number }> {
  const [states, epochs, runs] = [await limits.state(ALL), await ledger.epochs(), await limits.serverRuns()]
  const epoch_of = new Map(epochs.map((epoch) => [epoch.bucket, epoch]))
  const buckets = ALL.filter((bucket) => !isSound(states[bucket], epoch_of.get(bucket), runs(bucket)))
  return { buckets, last_epoch: Math.max(0, ...states.map(({ epoch }) => epoch ?? 0)) }
}

function isSound(state: BucketState | undefined, epoch: BucketEpoch | undefined, run_id: string | null): boolean {
  if (state === undefined || epoch === undefined || run_id === null) return false
  return state.state === 'open' && epoch.state === 'open' && state.epoch === epoch.epoch && state.run_id === run_id
}

/** Waits until every gateway that lives has registered what it has open. */
async function reports(buckets: readonly number[], { limits, ledger, clock, sleep }: RecoverDeps): Promise<void> {
  const end_ms = clock.monotonic_ms() + REPORTS_MS
  for (;;) {
    const nodes = (await ledger.nodes()).filter(isLiveGateway)
    const states = await limits.state(buckets)
    const missing = nodes.filter(({ node }) => states.some(({ reported }) => !reported.includes(node)))
    if (missing.length === 0 || clock.monotonic_ms() > end_ms) return
    await sleep(LOOK_EVERY_MS)
  }
}

/** What every bucket needs beside its balances. */
interface Facts {
  readonly tenants: readonly TenantRecord[]
  readonly metered: MeteredSettings
  /** By bucket. */
  readonly revoked: ReadonlyMap<number, readonly string[]>
}

async function readFacts(buckets: readonly number[], { records, clock }: RecoverDeps): Promise<Facts> {
  const wanted = new Set(buckets)
  const metered = new MeteredSettings()
  const revoked = new Map<number, string[]>()
  const since = clock.now_ms() - REVOKED_LATELY_MS
  const { tenants, projects } = await records.load((keys) => {
    for (const { id, tenant, limits, revoked_at } of keys) {
      const bucket = bucketOf(tenant)
      if (!wanted.has(bucket)) continue
      if (revoked_at !== null && revoked_at >= since) revoked.set(bucket, [...(revoked.get(bucket) ?? []), id])
      metered.add(tenant, 'key', id, limits)
    }
  })
  for (const { id, tenant, limits } of projects) metered.add(tenant, 'project', id, limits)
  for (const { id, limits } of tenants) metered.add(id, 'tenant', id, limits)
  return { tenants, metered, revoked }
}

async function fillBucket(bucket: number, epoch: number, facts: Facts, deps: RecoverDeps): Promise<void> {
  const { limits, ledger } = deps
  const tenants = facts.tenants.filter(({ id }) => bucketOf(id) === bucket)
  await ledger.withBucket(bucket, async (locked) => {
    const accounts = await locked.books()
    const meters: MeterBooks[] = []
    for (const tenant of tenants) await metersOf(tenant, facts.metered, meters, deps)
    if (!(await limits.fill(bucket, epoch, accounts, meters))) throw new Error(`bucket ${bucket} is not in epoch ${epoch} any more`)
  })
  for (const { id, status } of tenants) if (status === 'suspended') await limits.block('tenant', id, true)
  for (const id of facts.revoked.get(bucket) ?? []) await limits.block('key', id, true)
  if (!(await limits.openBucket(bucket, epoch))) throw new Error(`bucket ${bucket} is not in epoch ${epoch} any more`)
}

async function metersOf(tenant: TenantRecord, metered: MeteredSettings, meters: MeterBooks[], deps: RecoverDeps): Promise<void> {
  const settings = metered.of(tenant.id)
  if (settings.length === 0) return
  const found = (rule: MeterBooks['rule'], used: bigint, end_ms: number): void => {
    meters.push({ rule, used, end_ms: end_ms === Infinity ? null : end_ms })
  }
  await countMeters(found, deps.ledger, tenant, settings, { clock: deps.clock, windowAt: deps.windowAt })
}
