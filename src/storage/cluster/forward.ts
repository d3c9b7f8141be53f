import type { Clock } from '../../base/clock.ts'
import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import { type BucketBatch, bucketOf, type ChargedEvent, type PostState, type SharedLedger } from '../cluster-ports.ts'
import type { Journal } from '../journal/client.ts'
import type { ChargeNote, UnpostedRow } from '../journal/protocol.ts'
import type { ClosableLimits } from './away.ts'
import { writeLate } from './closing.ts'
import type { ChargeNotes } from './notes.ts'
import { noteOf, refOf, settleOf, trySettle } from './settling.ts'

/** Rows looked at in one step: one message between threads, and one transaction of the ledger. */
const SLICE_ROWS = 500
/** So long after its commit an event that is in the stream is left to the posters, and one whose settle may be under way to its handler. */
const GRACE_MS = 15_000
const SETTLING_MS = 5000

export interface ForwarderDeps {
  readonly journal: Journal
  readonly notes: ChargeNotes
  readonly limits: ClosableLimits
  readonly ledger: SharedLedger
  readonly clock: Clock
}

/** What is to become of a row now. `wait`: somebody else is at it, or limits have to be asked first and are away. */
type Decision = { readonly row: UnpostedRow; readonly event: UsageEvent; readonly post: ChargedEvent | 'wait' | 'known' }

/**
 * The journal's way into the ledger. Most events get there through their bucket's stream; this sees to those that do not: because limits
 * were away, the stream was full or lost, or a process died in between. Both ways meet at the ledger's primary key.
 */
export class Forwarder {
  readonly #deps: ForwarderDeps
  /** Buckets that are closed, and from which row number on their events wait for them to open. */
  readonly #held_back = new Map<number, number>()
  #running: Promise<unknown> = Promise.resolve()

  constructor(deps: ForwarderDeps) {
    this.#deps = deps
  }

  /**
   * Goes once through the events that the ledger may lack. Calls take their turns.
   * @param patient false leaves nothing to posters and handlers that may have died
   * @param buckets whose events are looked at; all others count as not in the ledger
   * @returns how many are still not in the ledger
   * @throws LedgerUnavailable
   */
  run(patient: boolean, buckets?: ReadonlySet<number>): Promise<number> {
    const turn = this.#running.then(() => this.#run(patient, buckets))
    this.#running = turn.catch(() => undefined)
    return turn
  }

  async #run(patient: boolean, buckets?: ReadonlySet<number>): Promise<number> {
    const { journal, notes } = this.#deps
    await notes.flush()
    let after = 0
    let watermark: number | null = null
    let left = 0
    for (;;) {
      const rows = await journal.ask<'unposted'>({ what: 'unposted', after, limit: SLICE_ROWS })
      const wanted = buckets === undefined ? rows : rows.filter(({ body }) => buckets.has(bucketOf(decodeEvent(body).tenant)))
      const done = wanted.length === 0 ? new Set<number>() : await this.#slice(wanted, patient)
      const first_left = rows.find(({ seq }) => !done.has(seq))
      left += rows.length - done.size
      const last = rows.at(-1)
      if (first_left !== undefined) watermark ??= first_left.seq - 1
      if (last === undefined || rows.length < SLICE_ROWS) {
        const up_to = watermark ?? last?.seq ?? after
        if (up_to > 0) await journal.ask<'posted'>({ what: 'posted', seq: up_to })
        return left
      }
      after = last.seq
      if (watermark === null) await journal.ask<'posted'>({ what: 'posted', seq: after })
    }
  }

  /**
   * Buckets are closed: what they have been told so far counts for nothing any more, so every event of theirs that has ended is to be
   * posted without a charge; what ends from now on waits until its bucket is open again.
   */
  async holdBack(buckets: readonly number[]): Promise<void> {
    const { row_seq } = await this.#deps.journal.mark()
    for (const bucket of buckets) this.#held_back.set(bucket, row_seq)
  }

  /** The bucket is open again. */
  letGo(bucket: number): void {
    this.#held_back.delete(bucket)
  }

  /** @returns row numbers of those that are in the ledger now */
  async #slice(rows: readonly UnpostedRow[], patient: boolean): Promise<ReadonlySet<number>> {
    const { ledger, limits } = this.#deps
    const known = await ledger.known(rows)
    const decisions: Decision[] = []
    for (const [index, row] of rows.entries()) {
      const event = decodeEvent(row.body)
      const there = known[index] ?? null
      if (there !== null && there.node === event.node && there.seq === event.seq) {
        // Its settle was applied, though its answer was lost: nothing is reserved for it any more, in no epoch.
        if (!limits.isMine(event.id)) limits.forget(event.id)
        decisions.push({ row, event, post: 'known' })
      } else decisions.push({ row, event, post: await this.#decide(row, event, patient) })
    }
    const posted = await this.#post(decisions)
    return new Set(decisions.filter(({ row, post }) => post === 'known' || posted.has(row.seq)).map(({ row }) => row.seq))
  }

  async #decide(row: UnpostedRow, event: UsageEvent, patient: boolean): Promise<ChargedEvent | 'wait'> {
    const { clock, limits } = this.#deps
    // Of a clock that was set back, rows are from the future: nobody is at them any more.
    const age_ms = row.at > clock.now_ms() ? Infinity : clock.now_ms() - row.at
    const held_from = this.#held_back.get(bucketOf(event.tenant))
    if (row.note !== null) {
      if (row.note.appended && patient && held_from === undefined && age_ms < GRACE_MS) return 'wait'
      return charged(row.body, row.note)
    }
    if (held_from !== undefined)
      return row.seq <= held_from && !limits.isMine(event.id) ? charged(row.body, await this.#giveUp(event)) : 'wait'
    if (limits.isMine(event.id) || (patient && age_ms < SETTLING_MS)) return 'wait'
    const note = await this.#ask(event, row.body)
    return note === null ? 'wait' : charged(row.body, note)
  }

  /** Limits have forgotten, or will forget, whatever they were told of it. */
  async #giveUp({ id, revision }: UsageEvent): Promise<ChargeNote> {
    const note = { id, revision, epoch: 0, appended: false, void: false }
    await this.#deps.journal.ask<'note'>({ what: 'note', notes: [note] })
    this.#deps.limits.forget(id)
    return note
  }

  /** Settles once more: limits know by id whether they had. Null if they cannot be asked. */
  async #ask(event: UsageEvent, body: string): Promise<ChargeNote | null> {
    const note = event.revision === 1 ? await this.#askFirst(event, body) : await this.#askSecond(event, body)
    if (note !== null) await this.#deps.journal.ask<'note'>({ what: 'note', notes: [note] })
    return note
  }

  async #askFirst(event: UsageEvent, body: string): Promise<ChargeNote | null> {
    const { journal, limits } = this.#deps
    const second = await journal.ask<'event'>({ what: 'event', id: event.id, revision: 2 })
    const nothing = { id: event.id, revision: 1, epoch: 0, appended: false, void: true }
    // Nothing of the answer left: it is the second revision alone that counts.
    if (second !== null && decodeEvent(second).flags.includes('withdrawn')) return nothing
    const outcome = await trySettle(limits, settleOf(event, body))
    if (outcome === null) return null
    const note = noteOf(event, outcome)
    if (note !== 'late') return note
    const { node: _, seq: __, ...closing } = event
    if (second === null) await writeLate(closing, outcome.epoch ?? 0, this.#deps)
    return nothing
  }

  async #askSecond(event: UsageEvent, body: string): Promise<ChargeNote | null> {
    const { journal, limits } = this.#deps
    if (event.flags.includes('withdrawn')) {
      return await this.#askWithdrawn(event, body)
    }
    const first = await journal.ask<'event'>({ what: 'event', id: event.id, revision: 1 })
    const uncharged = { id: event.id, revision: 2, epoch: 0, appended: false, void: false }
    if (first === null) return uncharged
    const outcome = await trySettle(limits, settleOf(decodeEvent(first), first))
    if (outcome === null) return null
    return outcome.replaced ? { ...uncharged, epoch: outcome.epoch ?? 0 } : uncharged
  }

  /** The first revision was never charged, unless its row was committed so late that it had been asked about already. */
  async #askWithdrawn(event: UsageEvent, body: string): Promise<ChargeNote | null> {
    const { journal, limits } = this.#deps
    const request = settleOf(event, body)
    let outcome = await trySettle(limits, request)
    const first = await journal.ask<'event'>({ what: 'event', id: event.id, revision: 1 })
    if (outcome?.state === 'duplicate' && outcome.ref !== refOf(event) && first !== null) {
      outcome = await trySettle(limits, { ...request, replaces: decodeEvent(first).parts })
    }
    const note = outcome === null ? null : noteOf(event, outcome)
    return note === 'late' ? null : note
  }

  /** @returns row numbers of those that are in the ledger, or whose number is */
  async #post(decisions: readonly Decision[]): Promise<ReadonlySet<number>> {
    const { ledger, journal } = this.#deps
    const by_bucket = Map.groupBy(
      decisions.flatMap(({ row, event, post }) => (typeof post === 'string' ? [] : [{ row, event, post }])),
      ({ event }) => bucketOf(event.tenant),
    )
    if (by_bucket.size === 0) return new Set()
    const groups = [...by_bucket].toSorted(([a], [b]) => a - b)
    const batches = groups.map(([bucket, items]): BucketBatch => {
      const [first, last] = [items[0], items.at(-1)]
      const source = `${journal.node}-${String(first?.row.seq)}-${String(last?.row.seq)}-b${bucket}`
      return { bucket, source, events: items.map(({ post }) => post) }
    })
    const results = await ledger.postBatches(batches)
    const states = new Map<number, PostState>()
    for (const [index, [, items]] of groups.entries()) {
      for (const [at, { row }] of items.entries()) {
        const state = results[index]?.states[at]
        if (state !== undefined) states.set(row.seq, state)
      }
    }
    return new Set(states.keys())
  }
}

function charged(body: string, { epoch, void: is_void }: ChargeNote): ChargedEvent {
  return { body, charged: epoch === 0 ? null : epoch, ...(is_void ? { void: true as const } : {}) }
}
