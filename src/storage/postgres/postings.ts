/** What a posting is about, before anything of it is written. */
import { assert } from '../../base/assert.ts'
import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import { type BucketBatch, bucketOf, type PostState } from '../cluster-ports.ts'
import { keyText } from './event-rows.ts'

/** One event of one batch, and what has become of it. */
export interface Item {
  readonly bucket: number
  readonly event: UsageEvent
  readonly body: string
  readonly key: string
  readonly charged: number | null
  readonly void: boolean
}
export interface Batch {
  readonly bucket: number
  readonly source: string
  readonly items: readonly Item[]
}

/**
 * Decodes batches and puts them in the order of their buckets, which is the order of their locks.
 * @throws EncodingError for what is no event; InvariantError for a batch that is not of one bucket, or two of the same
 */
export function batchesOf(batches: readonly BucketBatch[]): readonly Batch[] {
  assert(new Set(batches.map(({ bucket }) => bucket)).size === batches.length, 'two batches of one bucket in one posting')
  const checked = new Map<string, number>()
  const of = (tenant: string): number => {
    const known = checked.get(tenant) ?? bucketOf(tenant)
    checked.set(tenant, known)
    return known
  }
  const decoded = batches.map(({ bucket, source, events }) => ({
    bucket,
    source,
    items: events.map((given) => {
      const event = decodeEvent(given.body)
      assert(of(event.tenant) === bucket, 'an event in the batch of another bucket')
      return { bucket, event, body: given.body, key: keyText(event), charged: given.charged, void: given.void === true }
    }),
  }))
  return decoded.toSorted((a, b) => a.bucket - b.bucket)
}

/** States of items as they become known. An item that has none yet may still take its place. */
export class States {
  readonly #states = new Map<Item, PostState>()

  set(items: Iterable<Item>, state: PostState): void {
    for (const item of items) this.#states.set(item, state)
  }

  of(item: Item): PostState {
    const state = this.#states.get(item)
    assert(state !== undefined, 'an event was neither posted nor refused')
    return state
  }

  /** Those of which nothing is known yet. */
  open(items: readonly Item[]): readonly Item[] {
    return items.filter((item) => !this.#states.has(item))
  }
}

/** Items whose events are the same one, told by who numbered them. */
export function isSame(item: Item, place: { readonly node: string; readonly seq: number } | undefined): boolean {
  return place !== undefined && place.node === item.event.node && place.seq === item.event.seq
}
