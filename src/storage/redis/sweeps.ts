import { decodeCheckpointRow } from '../../money/event-json.ts'
import { BUCKETS, LimitsUnavailable, type SweptRequest } from '../cluster-ports.ts'
import type { CheckpointRow, OpenContext } from '../ports.ts'
import type { BucketScripts } from './bucket-scripts.ts'
import { UnknownVersion } from './failures.ts'
import type { OwnHolds } from './own-holds.ts'
import { listOf, receiptOf, textOf, textsOf } from './replies.ts'

/** Holds that one script marks. */
const HOLDS_PER_SCRIPT = 100

/** Finds and marks holds whose lease has ended. */
export class Sweeps {
  readonly #scripts: BucketScripts
  readonly #own: OwnHolds

  constructor(scripts: BucketScripts, own: OwnHolds) {
    this.#scripts = scripts
    this.#own = own
  }

  /** Of all buckets that are open: holds whose lease ended before `before_ms`, each once. */
  async sweepAll(before_ms: number): Promise<readonly SweptRequest[]> {
    const swept = await Promise.all(
      Array.from({ length: BUCKETS }, async (_, bucket) => {
        try {
          return await this.#sweep(bucket, Infinity, before_ms)
        } catch (error) {
          // In a closed bucket nothing can be closed.
          if (error instanceof LimitsUnavailable && error.kind === 'closed') return []
          throw error
        }
      }),
    )
    return swept.flat()
  }

  /** At most `limit` holds of a bucket, those included that were marked 60 s ago and that nobody has closed. */
  sweepBucket(bucket: number, limit: number): Promise<readonly SweptRequest[]> {
    return this.#sweep(bucket, limit, null)
  }

  /** Leases that are due but are not swept (marked ones, or renewed meanwhile) stay where they are, so they are skipped. */
  async #sweep(bucket: number, limit: number, before_ms: number | null): Promise<readonly SweptRequest[]> {
    const swept: SweptRequest[] = []
    let skipped = 0
    while (swept.length < limit) {
      const most = Math.min(HOLDS_PER_SCRIPT, limit - swept.length)
      const due = await this.#due(bucket, before_ms, skipped, most)
      if (due.length === 0) break
      const marked = await this.#mark(bucket, before_ms, due)
      swept.push(...marked)
      skipped += due.length - marked.length
      if (due.length < most) break
    }
    return swept
  }

  async #due(bucket: number, before_ms: number | null, skipped: number, most: number): Promise<readonly string[]> {
    const { meta, leases } = this.#scripts.keys.of(bucket)
    const reply = await this.#scripts.runOpen(bucket, 'due', [meta, leases], [before_ms ?? '', skipped, most])
    return textsOf(reply.slice(1))
  }

  async #mark(bucket: number, before_ms: number | null, due: readonly string[]): Promise<readonly SweptRequest[]> {
    const { meta, leases, hold } = this.#scripts.keys.of(bucket)
    const words = [before_ms ?? '', before_ms === null ? '1' : '', ...due]
    const reply = await this.#scripts.runOpen(bucket, 'sweep', [meta, leases, ...due.map((lease) => hold(idOf(lease)))], words)
    return reply.map((item) => this.#swept(item))
  }

  #swept(item: unknown): SweptRequest {
    const [lease, receipt, context, checkpoint, counters] = listOf(item)
    const id = idOf(textOf(lease))
    this.#own.take(id, textOf(counters))
    return {
      receipt: receiptOf(id, receipt),
      context: contextOf(textOf(context)),
      last: checkpoint === '' ? null : decodeCheckpointRow<CheckpointRow>(textOf(checkpoint)),
    }
  }
}

/** A lease is named by the hold's id, a line feed, and the tenant. */
function idOf(lease: string): string {
  return lease.slice(0, lease.indexOf('\n'))
}

/** @throws UnknownVersion */
function contextOf(json: string): OpenContext | null {
  if (json === '') return null
  const context = JSON.parse(json) as OpenContext
  if (context.v !== 1) throw new UnknownVersion(`an open request has version ${String(context.v)}, which this release does not read`)
  return context
}
