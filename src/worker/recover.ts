import type { Clock } from '../base/clock.ts'
import {
  type BooksMark,
  BUCKETS,
  type BucketEpoch,
  type BucketFailures,
  bucketOf,
  type BucketState,
  LedgerUnavailable,
  LimitsUnavailable,
  type MeterBooks,
  ofEachBucket,
  type SharedLedger,
  type SharedLimits,
  throwFirst,
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
/** Books get a new mark so often: a copy of them that is older is known as one. */
const MARK_EVERY_MS = 5000
/** A tenant whose status changes while it is written is looked at again, so many times. */
const MAX_LOOKS = 10

export interface RecoverDeps {
  readonly limits: SharedLimits
  readonly ledger: SharedLedger
  readonly records: Pick<Records, 'load' | 'tenant'>
  /** Brings into the ledger what the streams of buckets still have. @returns those where that failed */
  readonly drain: (buckets: readonly number[]) => Promise<BucketFailures>
  /** A node that has nothing open yet, and is not waited for: the one that does this while it starts. */
  readonly idle_node: string | null
  readonly clock: Clock
  /** A text that nobody else makes. */
  readonly unique: () => string
  readonly windowAt: NonNullable<MeterOptions['windowAt']>
  readonly sleep: (ms: number) => Promise<void>
  /** Hears what is about to be done, for the log. */
  readonly on_progress: (message: string, details: Readonly<Record<string, unknown>>) => void
}

/**
 * Fills buckets anew whose state in Redis is not, or not certainly, what the ledger says: the server is new, was flushed, restarted, or
 * replaced by a replica that lagged; or the ledger is an older copy of itself. They are closed meanwhile, so that nothing is spent twice.
 *
 * In this order: a new epoch in the ledger (from here on nothing that limits were told before counts as charged); what the streams
 * have; the same epoch in Redis, with nothing in it; every live node brings in what has ended and registers what is open; then, bucket by
 * bucket, balances, windows and blocks from the ledger, and open. A bucket for which one of these fails is left to the next call; those
 * that are open by then stay so.
 *
 * @returns how many buckets were filled
 * @throws the first failure, once the others are open
 */
export async function recover(deps: RecoverDeps): Promise<number> {
  const filled = await deps.ledger.ifAlone('recover', () => recoverAlone(deps))
  return filled ?? 0
}

async function recoverAlone(deps: RecoverDeps): Promise<number> {
  const { limits, ledger, on_progress } = deps
  const { buckets, last_epoch, unreachable, mark } = await unsound(deps)
  const failures = new Map(unreachable)
  let left = buckets
  const without = (failed: BucketFailures): void => {
    for (const [bucket, failure] of failed) failures.set(bucket, failure)
    left = left.filter((bucket) => !failed.has(bucket))
  }
  if (buckets.length > 0) {
    const epoch = await ledger.beginEpoch(buckets, last_epoch)
    on_progress('filling buckets from the ledger', { buckets: buckets.length, epoch })
    without(await deps.drain(left))
    without(await limits.beginEpoch(left, epoch))
    without(await reports(left, deps))
    without(await fillBuckets(left, epoch, deps))
    on_progress('buckets are open', { buckets: left.length, of: buckets.length, epoch })
  }
  throwFirst(failures)
  await renewMark(mark, left.length > 0, deps)
  return left.length
}

const textOfMark = ({ server, mark }: BooksMark): string => `${server} ${mark ?? ''}`

/**
 * Gives the books a new mark, of which limits hear first. Books that are older than their last mark have one of which limits have heard
 * nothing, or another that they have forgotten.
 *
 * @param current the mark by which buckets were found sound: books that were replaced since must not get a mark that limits know
 */
async function renewMark(current: BooksMark, is_due: boolean, { limits, ledger, clock, unique }: RecoverDeps): Promise<void> {
  const age_ms = clock.now_ms() - Number(current.mark?.split(' ')[0])
  if (!is_due && age_ms >= 0 && age_ms < MARK_EVERY_MS) return
  const next = `${clock.now_ms()} ${unique()}`
  const marks = [textOfMark(current), textOfMark({ ...current, mark: next })] as const
  const epochs = new Map((await ledger.epochs()).map(({ bucket, epoch }) => [bucket, epoch]))
  const { done, failures } = await ofEachBucket(ALL, (bucket) => limits.mark(bucket, epochs.get(bucket) ?? 0, marks))
  throwFirst(failures)
  // A bucket that was closed meanwhile knows of nothing: it is filled first.
  if (![...done.values()].includes(false)) await ledger.setMark(next, current.mark)
}

const ALL: readonly number[] = Array.from({ length: BUCKETS }, (_, bucket) => bucket)

interface Unsound {
  /** Not open, or opened on another server, or Redis and the ledger say different things. */
  readonly buckets: readonly number[]
  /** The last epoch that Redis knows of. */
  readonly last_epoch: number
  /** Nothing can be said of these now. */
  readonly unreachable: BucketFailures
  /** The mark of the books that were compared. */
  readonly mark: BooksMark
}

async function unsound({ limits, ledger }: RecoverDeps): Promise<Unsound> {
  const { done: states, failures } = await ofEachBucket(ALL, async (bucket) => (await limits.state([bucket]))[0])
  const [mark, epochs, runs] = [await ledger.mark(), await ledger.epochs(), await limits.serverRuns()]
  const epoch_of = new Map(epochs.map((epoch) => [epoch.bucket, epoch]))
  const unreachable = new Map(failures)
  for (const bucket of ALL) {
    if (runs(bucket) === null && !unreachable.has(bucket))
      unreachable.set(bucket, new LimitsUnavailable('away', `Redis is away: the server of bucket ${bucket}`))
  }
  const sound = (bucket: number): boolean =>
    isSound(states.get(bucket), epoch_of.get(bucket), runs(bucket)) && isOf(mark, states.get(bucket))
  const buckets = ALL.filter((bucket) => !unreachable.has(bucket) && !sound(bucket))
  return { buckets, last_epoch: Math.max(0, ...[...states.values()].map((state) => state?.epoch ?? 0)), unreachable, mark }
}

function isSound(state: BucketState | undefined, epoch: BucketEpoch | undefined, run_id: string | null): boolean {
  if (state === undefined || epoch === undefined || run_id === null) return false
  return state.state === 'open' && epoch.state === 'open' && state.epoch === epoch.epoch && state.run_id === run_id
}

/** Whether these are the books that a bucket agrees with, and no older copy. */
function isOf(mark: BooksMark, state: BucketState | undefined): boolean {
  return state === undefined || state.marks.length === 0 || state.marks.includes(textOfMark(mark))
}

/** Waits until every gateway that lives has registered what it has open. @returns buckets that could not be looked at last */
async function reports(buckets: readonly number[], { limits, ledger, clock, sleep, idle_node }: RecoverDeps): Promise<BucketFailures> {
  const end_ms = clock.monotonic_ms() + REPORTS_MS
  for (;;) {
    const nodes = (await ledger.nodes()).filter((node) => isLiveGateway(node) && node.node !== idle_node)
    const { done, failures } = await ofEachBucket(buckets, async (bucket) => (await limits.state([bucket]))[0])
    const missing = nodes.filter(({ node }) => [...done.values()].some((state) => state?.reported.includes(node) !== true))
    if (missing.length === 0 || clock.monotonic_ms() > end_ms) return failures
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

/** Fills and opens buckets, some side by side. @returns those where that failed */
async function fillBuckets(buckets: readonly number[], epoch: number, deps: RecoverDeps): Promise<BucketFailures> {
  const facts = await readFacts(buckets, deps)
  const failures = new Map<number, unknown>()
  const waiting = [...buckets]
  const fillSome = async (): Promise<void> => {
    for (let bucket = waiting.shift(); bucket !== undefined; bucket = waiting.shift()) {
      try {
        await fillBucket(bucket, epoch, facts, deps)
      } catch (error) {
        failures.set(bucket, error)
        // A ledger that answers nobody would be waited for by every bucket in turn.
        if (error instanceof LedgerUnavailable && !(await answers(deps))) for (const other of waiting.splice(0)) failures.set(other, error)
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, fillSome))
  return failures
}

async function answers({ ledger }: RecoverDeps): Promise<boolean> {
  return await ledger.epochs().then(
    () => true,
    () => false,
  )
}

async function fillBucket(bucket: number, epoch: number, facts: Facts, deps: RecoverDeps): Promise<void> {
  const { limits, ledger } = deps
  const tenants = facts.tenants.filter(({ id }) => bucketOf(id) === bucket)
  const overtaken = (): Error => new Error(`bucket ${bucket} is not in epoch ${epoch} any more`)
  await ledger.withBucket(bucket, async (locked) => {
    const accounts = await locked.books()
    const meters: MeterBooks[] = []
    for (const tenant of tenants) await metersOf(tenant, facts.metered, meters, deps)
    if (!(await limits.fill(bucket, epoch, accounts, meters))) throw overtaken()
  })
  for (const { id, status } of tenants) if (status === 'suspended') await blockSuspended(id, deps)
  for (const id of facts.revoked.get(bucket) ?? []) await limits.block('key', id, true)
  if (!(await limits.openBucket(bucket, epoch)) || !(await ledger.openEpoch([bucket], epoch))) throw overtaken()
}

/** Its status may have changed since it was read, and whoever changed it has written a block, or taken it away, before this one. */
async function blockSuspended(tenant: string, { limits, records }: RecoverDeps): Promise<void> {
  let is_suspended = true
  for (let looks = 0; looks < MAX_LOOKS; looks += 1) {
    await limits.block('tenant', tenant, is_suspended)
    const is_suspended_now = (await records.tenant(tenant))?.status === 'suspended'
    if (is_suspended_now === is_suspended) return
    is_suspended = is_suspended_now
  }
  throw new Error(`the status of a tenant changed ${MAX_LOOKS} times while it was written`)
}

async function metersOf(tenant: TenantRecord, metered: MeteredSettings, meters: MeterBooks[], deps: RecoverDeps): Promise<void> {
  const settings = metered.of(tenant.id)
  if (settings.length === 0) return
  const found = (rule: MeterBooks['rule'], used: bigint, end_ms: number): void => {
    meters.push({ rule, used, end_ms: end_ms === Infinity ? null : end_ms })
  }
  await countMeters(found, deps.ledger, tenant, settings, { clock: deps.clock, windowAt: deps.windowAt })
}
