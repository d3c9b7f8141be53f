import type { RowMessage } from './protocol.ts'

/** A row that ends a request: its event, or its release. */
export type EndingRow = Extract<RowMessage, readonly ['U' | 'R', ...unknown[]]>

/** Most rows, and most characters of rows, that are kept for later; the requests of any more are closed by the next start. */
const MAX_ROWS = 100_000
const MAX_CHARACTERS = 128 * 1024 * 1024
/** Rows given again at a time: one commit of some tens of milliseconds. */
const SLICE_ROWS = 1000

/**
 * Ends of requests that the journal refused. Limits have charged or given back what they say, so the journal has to have them too:
 * they are given again once commits work. A row is the same row however often it is given, by id and revision.
 */
export class OwedRows {
  readonly #rows = new Map<string, EndingRow>()
  readonly #max_rows: number
  #characters = 0

  constructor(max_rows = MAX_ROWS) {
    this.#max_rows = max_rows
  }

  get size(): number {
    return this.#rows.size
  }

  /** @returns false if there is no room for it */
  keep(row: EndingRow): boolean {
    const key = keyOf(row)
    if (this.#rows.has(key)) return true
    const characters = charactersOf(row)
    if (this.#rows.size >= this.#max_rows || this.#characters + characters > MAX_CHARACTERS) return false
    this.#rows.set(key, row)
    this.#characters += characters
    return true
  }

  /** The next rows to give, the first refused first: revisions of one event stay in order. */
  next(): readonly EndingRow[] {
    return [...this.#rows.values().take(SLICE_ROWS)]
  }

  all(): readonly EndingRow[] {
    return [...this.#rows.values()]
  }

  /** They are committed. A first revision has nothing to say once the second is: they must never be written the other way round. */
  settle(committed: readonly RowMessage[]): void {
    if (this.#rows.size === 0) return
    for (const row of committed) {
      if (!isEnding(row)) continue
      this.#forget(keyOf(row))
      if (row[0] === 'U' && row[3] > 1) this.#forget(`${row[1]} 1`)
    }
  }

  #forget(key: string): void {
    const row = this.#rows.get(key)
    if (row === undefined) return
    this.#rows.delete(key)
    this.#characters -= charactersOf(row)
  }
}

export function isEnding(row: RowMessage): row is EndingRow {
  return row[0] === 'U' || row[0] === 'R'
}

/** Ends of requests among rows of which none was written. Where the beginning is among them there is nothing to end. */
export function endsOf(refused: readonly RowMessage[]): readonly EndingRow[] {
  const begun = new Set(refused.flatMap(([kind, id]) => (kind === 'S' ? [id] : [])))
  return refused.filter(isEnding).filter(([, id]) => !begun.has(id))
}

function keyOf(row: EndingRow): string {
  return row[0] === 'U' ? `${row[1]} ${row[3]}` : row[1]
}

function charactersOf(row: EndingRow): number {
  return row[2]?.length ?? 0
}
