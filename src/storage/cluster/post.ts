import { BUCKETS, type BucketBatch, type SharedLedger, type StreamEntry, type UsageStreams } from '../cluster-ports.ts'
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

/**
 * Moves what is in the usage streams into the ledger: committed there first, then acknowledged. A crash in between, or another poster at
 * the same entries, has them posted again, which changes nothing.
 */
export class StreamPoster {
  readonly #deps: StreamPosterDeps

  constructor(deps: StreamPosterDeps) {
    this.#deps = deps
  }

  /**
   * Posts what these buckets have now, at most one batch of each.
   * @returns how much was posted, and whether some may have more
   * @throws LimitsUnavailable, LedgerUnavailable
   */
  async round(buckets: readonly number[]): Promise<PostResult & { readonly more: boolean; readonly read: number }> {
    const read = await this.#deps.streams.read(buckets, MOST_OF_BUCKET)
    const waiting = [...read].filter(([, entries]) => entries.length > 0).toSorted(([a], [b]) => a - b)
    let [events, transactions, entries] = [0, 0, 0]
    for (const batch of inBatches(waiting)) {
      const results = await this.#deps.ledger.postBatches(batch.map(([bucket, list]) => batchOf(bucket, list)))
      for (const [index, [bucket, list]] of batch.entries()) {
        const posted = (results[index]?.states ?? []).filter((state) => state === 'posted').length
        events += posted
        transactions += posted > 0 ? 1 : 0
        entries += list.length
        const last = list.at(-1)
        if (last !== undefined) await this.#deps.streams.acknowledge(bucket, last.id)
      }
    }
    return { events, transactions, read: entries, more: waiting.some(([, list]) => list.length >= MOST_OF_BUCKET) }
  }

  /** Posts until every stream has been seen empty, or no longer full, since the call. */
  async drain(buckets: readonly number[] = ALL_BUCKETS): Promise<PostResult> {
    let [events, transactions] = [0, 0]
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const result = await this.round(buckets)
      events += result.events
      transactions += result.transactions
      if (!result.more) break
    }
    return { events, transactions }
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
