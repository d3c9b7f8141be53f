/**
 * Ports of cluster mode: what many processes share (admission and usage streams in Redis, books in PostgreSQL) and how the two are kept
 * saying the same. `storage/cluster` and the worker plane are built on them; the gateway and the control plane see `ports.ts` only.
 *
 * The rule that everything here serves: **every usage event is charged exactly once**, by the settle that Redis applied in the epoch in
 * force, or else by the ledger's outbox. What Redis believes of a bucket is what the ledger said when its epoch opened, less the settles
 * that it has applied since, plus the outbox rows that it has applied since.
 */
import { hash } from 'node:crypto'
import type { HoldReceipt } from '../money/event.ts'
import type { NodeBeat, NodeState } from './nodes.ts'
import type {
  BalanceView,
  CheckpointRow,
  ExtendRequest,
  ExtendResult,
  GrantTerms,
  Ledger,
  LimitRule,
  Limits,
  LimitState,
  OpenContext,
  SettleRequest,
  SettleState,
} from './ports.ts'

/** Everything about one tenant's admission is in one bucket, and so on one Redis slot. Fixed for ever. */
export const BUCKETS = 256

/** The bucket of a tenant: the first byte of the SHA-256 of its id. */
export function bucketOf(tenant: string): number {
  return Number.parseInt(hash('sha256', tenant, 'hex').slice(0, 2), 16)
}

/** Why something could not be done for some buckets, while it was done for the others. */
export type BucketFailures = ReadonlyMap<number, unknown>

/** Does the same for each of some buckets, side by side; those for which it fails keep nobody else from going on. Rejects never. */
export async function ofEachBucket<Result>(
  buckets: readonly number[],
  work: (bucket: number) => Promise<Result>,
): Promise<{ readonly done: ReadonlyMap<number, Result>; readonly failures: BucketFailures }> {
  const [done, failures] = [new Map<number, Result>(), new Map<number, unknown>()]
  const one = async (bucket: number): Promise<void> => {
    try {
      done.set(bucket, await work(bucket))
    } catch (error) {
      failures.set(bucket, error)
    }
  }
  await Promise.all(buckets.map(one))
  return { done, failures }
}

/** Has the first failure heard of, once everybody else was served. @throws it */
export function throwFirst(failures: BucketFailures): void {
  for (const failure of failures.values()) throw failure
}

/**
 * Redis did not do what was asked. `away`: it cannot be reached, or not in time, and nothing was sent. `unknown`: it was sent and the
 * outcome is not known. `closed`: the bucket is closed until its state is what the ledger says. `full`: it has no memory left for more.
 */
export class LimitsUnavailable extends Error {
  override name = 'LimitsUnavailable'
  readonly kind: 'away' | 'unknown' | 'closed' | 'full'
  constructor(kind: LimitsUnavailable['kind'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.kind = kind
  }
}

/** PostgreSQL cannot be reached, or did not answer in time. Whether it did what was asked is not known. */
export class LedgerUnavailable extends Error {
  override name = 'LedgerUnavailable'
}

// ---------------------------------------------------------------- Admission that processes share

/**
 * What became of a settle. `expired`: the hold is not known here and never will be charged here, because it was admitted too long ago, or
 * since the bucket was opened, so that it has been closed already or was lost with its server.
 */
export interface SettleOutcome {
  readonly state: SettleState | 'expired'
  /** The epoch in which the charge was applied, now or (`duplicate`) before; null when it was not. */
  readonly epoch: number | null
  /** The event is in the bucket's stream, so that a poster will see it. False beyond the stream's cap. */
  readonly appended: boolean
  /** `ref` of the event whose charge stands: on `duplicate`, who has closed the request. Null where it is not known. */
  readonly ref: string | null
  /** The charge that stands replaced an earlier one: on `late`, and on `duplicate` for whoever asks again. */
  readonly replaced: boolean
}

/** A hold whose lease has ended, with all that it takes to close its request on any machine. */
export interface SweptRequest {
  readonly receipt: HoldReceipt
  readonly context: OpenContext | null
  readonly last: CheckpointRow | null
}

/** What one tenant's admission believes at one moment. */
export interface AccountCut {
  readonly view: BalanceView
  /** Number of the last outbox row applied. */
  readonly applied_seq: number
}
/** One moment of one bucket. */
export interface BucketCut {
  readonly epoch: number
  /** Id of the last entry of the bucket's stream; null when there never was one. Events after it were settled after the cut. */
  readonly last_entry: string | null
  readonly accounts: ReadonlyMap<string, AccountCut>
  /** Ids of the open holds of these tenants, those marked swept included. */
  readonly holds: ReadonlySet<string>
  /** Where the limits stand that the cut was asked about, in the order given. */
  readonly states: readonly LimitState[]
}

/** Who owns what limits are about, where only its id is known; null for nobody. */
export type TenantOf = (scope: LimitRule['scope'], id: string) => Promise<string | null>

/**
 * `absent`: the server knows nothing of the bucket (new, flushed, replaced). `filling`: it refuses admission while open holds are
 * registered and balances are set. `open`: in use. Only `open` buckets hold, extend and settle.
 */
export interface BucketState {
  readonly state: 'absent' | 'filling' | 'open'
  readonly epoch: number | null
  /** `run_id` of the server that the bucket was opened on. Another one means that the server was restarted or replaced. */
  readonly run_id: string | null
  /** Nodes that have registered their open holds in this epoch. */
  readonly reported: readonly string[]
  /** Marks of the books that it agrees with: the one they had and the one they got; none where it was not told. */
  readonly marks: readonly string[]
}

/** Balances of one tenant as the ledger has them, to fill a bucket with. */
export interface AccountBooks {
  readonly tenant: string
  readonly applied_seq: number
  readonly grants: ReadonlyArray<{ readonly terms: GrantTerms; readonly balance: bigint }>
  /** What the credit line has paid. */
  readonly credit_used_nano: bigint
}
/** What a window or budget had used, to fill a bucket with. `end_ms` is null where there is no window. */
export interface MeterBooks {
  readonly rule: LimitRule
  readonly used: bigint
  readonly end_ms: number | null
}

/** {@link Limits} of many processes. Every operation on a bucket that is not open rejects with {@link LimitsUnavailable} `closed`. */
export interface SharedLimits extends Limits {
  /** {@link Limits.extend}. Requests of buckets that could not be asked are left out: they may be sent again. Rejects if none could. */
  extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendResult[]>
  /** {@link Limits.settle}, and all there is to say about it. With an event, the charge and its append to the stream are one step. */
  settleEvent(request: SettleRequest): Promise<SettleOutcome>
  /** Marks and gives holds of a bucket whose lease has ended, at most `limit`; again those marked 60 s ago that nobody has closed. */
  sweepBucket(bucket: number, limit: number): Promise<readonly SweptRequest[]>
  /** Whether a hold of this process is open or being settled. One whose settle has failed is not, and keeps what it has reserved. */
  isMine(id: string): boolean
  /** A request whose settle has failed is charged in another way: its hold is not registered anew. */
  forget(id: string): void
  cut(bucket: number, tenants: readonly string[], rules: readonly LimitRule[]): Promise<BucketCut>
  /** Tenants that have an account in the bucket. */
  tenants(bucket: number): Promise<readonly string[]>
  appliedSeq(tenant: string): Promise<number>
  /** Corrects what is believed to be used in the window that ends at `end_ms` (null: no window); nothing if that one is over. */
  shift(tenant: string, rule: LimitRule, delta: bigint, end_ms: number | null): Promise<void>

  // A bucket's life. All but `state` and `serverRuns` are idempotent, and refuse (false) an epoch that is not the bucket's.
  state(buckets: readonly number[]): Promise<readonly BucketState[]>
  /** `run_id` of the server that each bucket is on now, asked of every server once; null for those on none that answers. Rejects if none does. */
  serverRuns(): Promise<(bucket: number) => string | null>
  /** Closes buckets that are of an older epoch, deletes everything in them, and lets nodes report. @returns those where that failed */
  beginEpoch(buckets: readonly number[], epoch: number): Promise<BucketFailures>
  /** Registers this process's open holds in a bucket that is `filling`, and reports the node. */
  report(bucket: number, epoch: number, node: string): Promise<boolean>
  fill(bucket: number, epoch: number, accounts: readonly AccountBooks[], meters: readonly MeterBooks[]): Promise<boolean>
  openBucket(bucket: number, epoch: number): Promise<boolean>
  /** Remembers by which marks the books of an open bucket are known from now on. */
  mark(bucket: number, epoch: number, marks: readonly [string, string]): Promise<boolean>
}

/** What settles left for the ledger, one stream per bucket. */
export interface StreamEntry {
  readonly id: string
  /** JSON of the event, numbered by the journal that it is in. */
  readonly body: string
  /** The epoch that charged it. */
  readonly epoch: number
}
export interface UsageStreams {
  /** Entries that are not acknowledged, oldest first, at most `limit` of each bucket; `until` leaves out those after it. */
  read(buckets: readonly number[], limit: number, until?: string): Promise<ReadonlyMap<number, readonly StreamEntry[]>>
  /** Forgets entries up to and with `last_id`: they are in the ledger. */
  acknowledge(bucket: number, last_id: string): Promise<void>
  /** Entries that are not acknowledged, per bucket in the order asked. */
  lengths(buckets: readonly number[]): Promise<readonly number[]>
}

// ---------------------------------------------------------------- Books that processes share

/** An event on its way to the ledger. */
export interface ChargedEvent {
  /** JSON of the event, as the journal has it. */
  readonly body: string
  /** The epoch in which limits have charged it; null: they have not, and never will. */
  readonly charged: number | null
  /** Another close of the same request is the event: only this one's number is recorded. */
  readonly void?: true
}
/** Events of one bucket, posted as one balanced transaction. */
export interface BucketBatch {
  readonly bucket: number
  /** Names the ledger's transaction; the same source always means the same events or a part of them. */
  readonly source: string
  readonly events: readonly ChargedEvent[]
}
/**
 * `posted`: it is in the ledger now. `known`: it was. `superseded`: another event has its place, or it is void, and its number is
 * recorded as such. `late`: its day is archived; it is kept apart and named by every audit.
 */
export type PostState = 'posted' | 'known' | 'superseded' | 'late'
export interface PostedBatch {
  /** In the order of the batch's events. */
  readonly states: readonly PostState[]
  /** Tenants for which posting has put rows into the outbox. */
  readonly outbox_tenants: readonly string[]
}

export interface EventKey {
  readonly day: string
  readonly id: string
  readonly revision: number
}

/** What limits must be told of the ledger, in the order of a tenant's numbers, which have no gap. */
export interface OutboxRow {
  readonly tenant: string
  readonly seq: number
  readonly grant: GrantTerms
  /** Zero where only the terms have changed. */
  readonly delta: bigint
}

/** Which tenants' rows are asked for, in the order of their ids, so that none can be in the others' way. */
export interface OutboxQuery {
  /** Tenants after this one. */
  readonly after: string
  /** Buckets whose tenants are passed over. */
  readonly without: readonly number[]
  /** At most so many tenants, and so many rows of each: their oldest. */
  readonly tenants: number
  readonly rows_each: number
}
export interface OutboxSlice {
  readonly rows: readonly OutboxRow[]
  /** The last tenant looked at; null where there is none after it. */
  readonly last: string | null
}

/** By which books are told from an older copy of themselves. */
export interface BooksMark {
  /** Another one after a standby has taken over: it may lack the last commits. */
  readonly server: string
  /** Null before the first. */
  readonly mark: string | null
}

export interface BucketEpoch {
  readonly bucket: number
  /** 0 before the first. */
  readonly epoch: number
  readonly state: 'open' | 'closed'
}

/** Work while nothing else posts events of a bucket. */
export interface LockedBucket {
  /** As {@link SharedLedger.postBatches}; batches must be of this bucket. */
  post(batch: BucketBatch): Promise<PostedBatch>
  /** Balances of the bucket's tenants and the outbox's end, in one read. */
  books(): Promise<readonly AccountBooks[]>
}

/** {@link Ledger} of many processes. Rejects with {@link LedgerUnavailable} when the database is away. */
export interface SharedLedger extends Ledger {
  /**
   * Posts batches of different buckets in one transaction, each bucket's lock held. Posting an event again changes nothing.
   *
   * Whatever the ledger has charged and limits have not, or the other way round, goes into the outbox in the same transaction: what an
   * event charges when its `charged` is not the bucket's epoch; what limits have charged in this epoch for an event that is superseded,
   * or that had been posted as one that they had not charged in it (once, however often it comes; it goes back to the grants).
   */
  postBatches(batches: readonly BucketBatch[]): Promise<readonly PostedBatch[]>
  /**
   * Which events the ledger has (late ones included), with the node and number that they have there; null for those that it has not.
   * One that is superseded has the node and number of the event in its place.
   */
  known(keys: readonly EventKey[]): Promise<ReadonlyArray<{ readonly node: string; readonly seq: number } | null>>
  /** The oldest rows that limits have not been told of, by tenant and number; of one tenant or of all. */
  outbox(limit: number, tenant?: string): Promise<readonly OutboxRow[]>
  /** The oldest rows of each of some tenants. */
  outboxSlice(query: OutboxQuery): Promise<OutboxSlice>
  /** How many rows limits have not been told of, counted up to `most`. */
  outboxWaiting(most: number): Promise<number>
  /** Rows of a tenant with a number above `after`, up to and with `last`, whether limits have been told of them or not; kept for an hour. */
  outboxBetween(tenant: string, after: number, last: number): Promise<readonly OutboxRow[]>
  /** Limits have applied every row of the tenant up to and with `seq`. */
  delivered(tenant: string, seq: number): Promise<void>
  /** Has limits told of a grant's terms, and of a correction of what they believe of it, which the ledger knows nothing of. */
  tell(terms: GrantTerms, delta: bigint): Promise<void>

  epochs(): Promise<readonly BucketEpoch[]>
  /**
   * Closes buckets in a new epoch, the same for all of them, greater than every one before and than `above`: books that were restored from
   * a copy do not know of every epoch that limits have seen. Waits for posts that run.
   */
  beginEpoch(buckets: readonly number[], above?: number): Promise<number>
  /** @returns false, changing nothing, unless all of them are in this epoch */
  openEpoch(buckets: readonly number[], epoch: number): Promise<boolean>
  mark(): Promise<BooksMark>
  /** Sets the mark, unless it is not `current` any more. */
  setMark(mark: string, current: string | null): Promise<void>
  /** Runs `work` under the bucket's lock. Waits for it at most some seconds. */
  withBucket<Result>(bucket: number, work: (bucket: LockedBucket) => Promise<Result>): Promise<Result>
  /** Runs `work` while no other process runs work of this name. Waits for its turn at most some seconds. */
  inTurn<Result>(name: string, work: () => Promise<Result>): Promise<Result>
  /** The same, or null at once where another process is at it. */
  ifAlone<Result>(name: string, work: () => Promise<Result>): Promise<Result | null>

  /** A secret that every process must have alike: the one that is kept, or, if there is none yet, `made`, which is kept from now on. */
  keptSecret(name: string, made: string): Promise<string>
  beat(beat: NodeBeat): Promise<void>
  nodes(): Promise<readonly NodeState[]>
  /** A slice of what is to be done now and then: partitions of coming days, sums of hours and days, rows past their time. @returns whether there is more */
  upkeep(now_ms: number): Promise<boolean>
}
