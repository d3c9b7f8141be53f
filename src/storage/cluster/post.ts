import {
  type BucketBatch,
  type BucketFailures,
  BUCKETS,
  LedgerUnavailable,
  ofEachBucket,
  type SharedLedger,
  type StreamEntry,
  throwFirst,
  type UsageStreams,
} from '../cluster-ports.ts'
import type { PostResult } from '../ports.ts'

/** Entries of one bucket in one transaction of the ledger, and of all buckets together. */
const MOST_OF_BUCKET = 200
const MOST_OF_BATCH = 1000
/** Rounds of one drain: more than a stream's cap has batches. */
const MAX_ROUNDS = 10_000

export const ALL_BUCKETS: readonly number[] = Array.from({ length: BUCKETS }, (_, bucket) => bucket)

export interface StreamPosterDeps {
  readonly streams: UsageStreams
  readonly ledger: SharedLedger
}

interface Round extends PostResult {
  readonly more: boolean
  readonly read: number
  readonly failures: BucketFailures
}

/**
 * Moves what is in the usage streams into the ledger: committed there first, then acknowledged. A crash in between, or another poster at
 * the same entries, has them posted again, which changes nothing. A bucket whose stream cannot be read, or whose entries this release
 * does not read, is left as it is, and the others go on.
 */
export class StreamPoster {
  readonly #deps: StreamPosterDeps
  /** Buckets whose entries were refused last: they are posted by themselves. */
  readonly #refused = new Set<number>()

  constructor(deps: StreamPosterDeps) {
    this.#deps = deps
  }

  /**
   * Posts what these buckets have now, at most one batch of each.
   * @returns how much was posted, and whether some may have more
   * @throws LedgerUnavailable; what was wrong with one of the buckets, once the others were posted
   */
  async round(buckets: readonly number[]): Promise<PostResult & { readonly more: boolean; readonly read: number }> {
    const round = await this.#round(buckets)
    throwFirst(round.failures)
    return round
  }

  /** Posts until every stream has been seen empty, or no longer full, since the call. @throws as `round` */
  async drain(buckets: readonly number[] = ALL_BUCKETS): Promise<PostResult> {
    const { events, transactions, failures } = await this.#drain(buckets)
    throwFirst(failures)
    return { events, transactions }
  }

  /** The same. @returns buckets that could not be posted, and why. @throws LedgerUnavailable */
  async drainEach(buckets: readonly number[]): Promise<BucketFailures> {
    return (await this.#drain(buckets)).failures
  }

  async #drain(buckets: readonly number[]): Promise<PostResult & { readonly failures: BucketFailures }> {
    const failures = new Map<number, unknown>()
    let [events, transactions] = [0, 0]
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const result = await this.#round(buckets.filter((bucket) => !failures.has(bucket)))
      for (const [bucket, failure] of result.failures) failures.set(bucket, failure)
      events += result.events
      transactions += result.transactions
      if (!result.more) break
    }
    return { events, transactions, failures }
  }

  async #round(buckets: readonly number[]): Promise<Round> {
    const { streams } = this.#deps
    const { done, failures } = await ofEachBucket(
      buckets,
      async (bucket) => (await streams.read([bucket], MOST_OF_BUCKET)).get(bucket) ?? [],
    )
    const waiting = [...done].filter(([, entries]) => entries.length > 0).toSorted(([a], [b]) => a - b)
    const [apart, together] = [
      waiting.filter(([bucket]) => this.#refused.has(bucket)),
      waiting.filter(([bucket]) => !this.#refused.has(bucket)),
    ]
    const failed = new Map(failures)
    let [events, transactions, entries] = [0, 0, 0]
    for (const batch of [...inBatches(together), ...apart.map((one) => [one])]) {
      const posted = await this.#post(batch, failed)
      events += posted.events
      transactions += posted.transactions
      entries += batch.reduce((sum, [bucket, list]) => sum + (failed.has(bucket) ? 0 : list.length), 0)
    }
    const more = waiting.some(([bucket, list]) => list.length >= MOST_OF_BUCKET && !failed.has(bucket))
    return { events, transactions, read: entries, more, failures: failed }
  }

  /** Where the ledger does not take a batch of several buckets, each is posted by itself, so that one is not in the others' way. */
  async #post(batch: readonly Waiting[], failed: Map<number, unknown>): Promise<PostResult> {
    try {
      return await this.#postNow(batch, failed)
    } catch (error) {
      const [[bucket] = [0]] = batch
      if (error instanceof LedgerUnavailable) throw error
      if (batch.length > 1) return await this.#postEach(batch, failed)
      this.#refused.add(bucket)
      failed.set(bucket, error)
      return { events: 0, transactions: 0 }
    }
  }

  async #postEach(batch: readonly Waiting[], failed: Map<number, unknown>): Promise<PostResult> {
    let [events, transactions] = [0, 0]
    for (const one of batch) {
      const posted = await this.#post([one], failed)
      events += posted.events
      transactions += posted.transactions
    }
    return { events, transactions }
  }

  async #postNow(batch: readonly Waiting[], failed: Map<number, unknown>): Promise<PostResult> {
    const { ledger, streams } = this.#deps
    const results = await ledger.postBatches(batch.map(([bucket, list]) => batchOf(bucket, list)))
    const posted = results.map(({ states }) => states.filter((state) => state === 'posted').length)
    const last = new Map(batch.map(([bucket, list]) => [bucket, list.at(-1)?.id]))
    const { failures } = await ofEachBucket([...last.keys()], async (bucket) => {
      this.#refused.delete(bucket)
      const id = last.get(bucket)
      if (id !== undefined) await streams.acknowledge(bucket, id)
    })
    for (const [bucket, failure] of failures) failed.set(bucket, failure)
    return { events: posted.reduce((sum, events) => sum + events, 0), transactions: posted.filter((events) => events > 0).length }
  }
}

/** One bucket's entries as the ledger takes them. */
export function batchOf(bucket: number, entries: readonly StreamEntry[]): BucketBatch {
  const [first, last] = [entries[0], entries.at(-1)]
  const source = `b${bucket}-e${first?.epoch ?? 0}-${first?.id ?? ''}-${last?.id ?? ''}`
  return { bucket, source, events: entries.map(({ body, epoch }) => ({ body, charged: epoch })) }
}

type Waiting = readonly [bucket: number, entries: readonly StreamEntry[]]

function inBatches(waiting: readonly Waiting[]): readonly (readonly Waiting[])[] {
  const batches: Waiting[][] = []
  let size = MOST_OF_BATCH
  for (const one of waiting) {
    if (size + one[1].length > MOST_OF_BATCH) {
      batches.push([])
      size = 0
    }
    batches.at(-1)?.push(one)
    size += one[1].length
  }
  return batches
}
