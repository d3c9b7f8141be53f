/**
 * The sandbox's own count of what it did for one attempt, to hold against what a gateway billed. It is made from the pieces that
 * the operating system took for the socket, never from the usage that was reported (which a directive may falsify).
 */
export interface ServedRow {
  /** Running number since the start or the last reset. */
  readonly index: number
  /** From `x-request-id` and `x-weir-attempt`; empty and 1 where they were not sent. */
  readonly request_id: string
  readonly attempt: number
  readonly path: string
  readonly stream: boolean
  readonly model: string
  readonly started_at: number
  readonly ended_at: number | null
  readonly prompt_tokens: number
  readonly cached_tokens: number
  /** Completion tokens written, thinking included. A whole JSON answer counts when its last byte was written. Replays count none. */
  readonly sent_tokens: number
  readonly reasoning_tokens: number
  /** The whole answer was written, its end included. */
  readonly finished: boolean
  /** The client left before that. */
  readonly aborted: boolean
  /** HTTP status, or null while (or where) no headers were sent. */
  readonly status: number | null
  /** `answer`, `raw`, `invalid`, or the kind of the failure that was played. */
  readonly directive: string
}

/** A row while its request runs. */
export type OpenRow = { -readonly [member in keyof ServedRow]: ServedRow[member] }

export interface ServedTotals {
  readonly requests: number
  readonly open: number
  readonly finished: number
  readonly aborted: number
  readonly prompt_tokens: number
  readonly cached_tokens: number
  readonly sent_tokens: number
  readonly reasoning_tokens: number
}

/** One page of rows. `next` is the `since` of the following page, or null at the end. */
export interface ServedPage {
  readonly served: readonly ServedRow[]
  /** Over every row since the start or the last reset, also those no longer kept. */
  readonly totals: ServedTotals
  readonly next: number | null
  /** Index of the oldest row that is still kept. */
  readonly oldest: number
}

export interface ServedQuery {
  readonly request_id?: string
  /** Index of the first row wanted. */
  readonly since?: number
  /** At most 10,000; 1,000 when absent. */
  readonly limit?: number
}

/** A row of nothing yet. */
export function blankRow(index: number, request_id: string, attempt: number, path: string, now_ms: number): OpenRow {
  return {
    index,
    request_id,
    attempt,
    path,
    stream: false,
    model: '',
    started_at: now_ms,
    ended_at: null,
    prompt_tokens: 0,
    cached_tokens: 0,
    sent_tokens: 0,
    reasoning_tokens: 0,
    finished: false,
    aborted: false,
    status: null,
    directive: 'answer',
  }
}

const MAX_ROWS = 200_000
const MAX_PAGE_ROWS = 10_000
const PAGE_ROWS = 1_000

/** Keeps the latest rows and the totals of all. Memory is bounded by `max_rows`. */
export class Tally {
  readonly #max_rows: number
  #rows: OpenRow[] = []
  #next = 0
  #forgotten = noTotals()

  constructor(max_rows = MAX_ROWS) {
    this.#max_rows = max_rows
  }

  /** Adds a row for a request that has just arrived; its members are filled in by the one who serves it. */
  open(request_id: string, attempt: number, path: string, now_ms: number): OpenRow {
    const row = blankRow(this.#next, request_id, attempt, path, now_ms)
    const slot = this.#next % this.#max_rows
    const evicted = this.#rows[slot]
    if (evicted !== undefined) addTo(this.#forgotten, evicted)
    this.#rows[slot] = row
    this.#next += 1
    return row
  }

  /** Rows in order of arrival. */
  page(query: ServedQuery = {}): ServedPage {
    const oldest = Math.max(0, this.#next - this.#max_rows)
    const limit = Math.min(query.limit ?? PAGE_ROWS, MAX_PAGE_ROWS)
    const served: ServedRow[] = []
    let index = Math.max(query.since ?? 0, oldest)
    for (; index < this.#next && served.length < limit; index += 1) {
      const row = this.#rows[index % this.#max_rows]
      if (row !== undefined && (query.request_id === undefined || row.request_id === query.request_id)) served.push({ ...row })
    }
    return { served, totals: this.#totals(), next: index < this.#next ? index : null, oldest }
  }

  reset(): void {
    this.#rows = []
    this.#next = 0
    this.#forgotten = noTotals()
  }

  #totals(): ServedTotals {
    const totals = { ...this.#forgotten }
    for (const row of this.#rows) addTo(totals, row)
    return totals
  }
}

type Totals = { -readonly [member in keyof ServedTotals]: number }

const noTotals = (): Totals => ({
  requests: 0,
  open: 0,
  finished: 0,
  aborted: 0,
  prompt_tokens: 0,
  cached_tokens: 0,
  sent_tokens: 0,
  reasoning_tokens: 0,
})

function addTo(totals: Totals, row: ServedRow): void {
  totals.requests += 1
  totals.open += row.ended_at === null ? 1 : 0
  totals.finished += row.finished ? 1 : 0
  totals.aborted += row.aborted ? 1 : 0
  totals.prompt_tokens += row.prompt_tokens
  totals.cached_tokens += row.cached_tokens
  totals.sent_tokens += row.sent_tokens
  totals.reasoning_tokens += row.reasoning_tokens
}
