import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { numberEvent } from '../../money/event-json.ts'
import type { Answers, RowMessage } from './protocol.ts'

const DAY_MS = 86_400_000
const DELETE_BATCH = 500

export interface RowBatch {
  readonly at: number
  readonly rows: readonly RowMessage[]
}

/** Changes of one transaction to what is kept in memory; applied after its commit. */
interface Staged {
  next_seq: number
  event_seq: number
  readonly opened: Map<string, number>
  readonly closed: Set<string>
  readonly seqs: number[]
  events: number
}

/**
 * The journal table, for the writer's thread only. Rows get their number here. A batch with a `U` row is fsynced by its
 * commit (`synchronous = FULL`); other batches are handed to the operating system, which survives a kill of the process
 * (`NORMAL`; https://sqlite.org/pragma.html#pragma_synchronous: in WAL mode NORMAL does not sync at commit).
 */
export class JournalRows {
  readonly node: string
  readonly #database: DatabaseSync
  readonly #insert: StatementSync
  readonly #insertEvent: StatementSync
  readonly #closedAs: StatementSync
  /** Requests without U or R, with the seq of their S row, oldest first. */
  readonly #open = new Map<string, number>()
  readonly #left_open: ReadonlySet<string>
  #next_seq: number
  #event_seq: number
  #synchronous: 'FULL' | 'NORMAL' | 'unknown' = 'unknown'

  constructor(database: DatabaseSync, new_node: string) {
    this.#database = database
    database.prepare("INSERT INTO meta (name, value) VALUES ('node', ?) ON CONFLICT DO NOTHING").run(new_node)
    this.node = readMeta(database, 'node') ?? new_node
    this.#insert = database.prepare('INSERT INTO journal (seq, kind, id, v, at, revision, body) VALUES (?, ?, ?, 1, ?, ?, ?)')
    this.#insertEvent = database.prepare(
      'INSERT INTO journal (seq, kind, id, v, at, revision, day, event_seq, body) ' +
        "VALUES (?, 'U', ?, 1, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    this.#closedAs = database.prepare("SELECT event_seq FROM journal WHERE id = ? AND revision = ? AND kind IN ('U', 'R')")
    const posted_seq = Number(readMeta(database, 'posted_seq') ?? 0)
    this.#next_seq = Math.max(posted_seq, readInteger(database, 'SELECT MAX(seq) AS value FROM journal')) + 1
    const last_event = `SELECT MAX(event_seq) AS value FROM journal WHERE kind = 'U' AND seq > ${posted_seq}`
    this.#event_seq = Math.max(Number(readMeta(database, 'event_seq') ?? 0), readInteger(database, last_event))
    for (const row of this.#readOpen()) this.#open.set(row.id, row.seq)
    this.#left_open = new Set(this.#open.keys())
  }

  /** Every S row below this is closed: where a start begins to look. */
  get open_floor(): number {
    const [first] = this.#open.values()
    return first ?? this.#next_seq
  }

  /** U rows above the watermark of posting. */
  countUnposted(): number {
    const sql = `SELECT COUNT(*) AS value FROM journal WHERE kind = 'U' AND seq > ${Number(readMeta(this.#database, 'posted_seq') ?? 0)}`
    return readInteger(this.#database, sql)
  }

  get last_seq(): number {
    return this.#next_seq - 1
  }

  get last_event_seq(): number {
    return this.#event_seq
  }

  /**
   * Commits batches in one transaction, or none of them.
   * @returns event numbers of the U rows in order (of a duplicate: the number it has), and how many are new
   */
  commit(batches: readonly RowBatch[]): { readonly seqs: readonly number[]; readonly events: number } {
    this.syncFully(batches.some((batch) => batch.rows.some((row) => row[0] === 'U')))
    const staged: Staged = {
      next_seq: this.#next_seq,
      event_seq: this.#event_seq,
      opened: new Map(),
      closed: new Set(),
      seqs: [],
      events: 0,
    }
    inTransaction(this.#database, () => {
      for (const { rows, at } of batches) for (const row of rows) this.#write(row, at, staged)
    })
    this.#next_seq = staged.next_seq
    this.#event_seq = staged.event_seq
    for (const [id, seq] of staged.opened) this.#open.set(id, seq)
    for (const id of staged.closed) this.#open.delete(id)
    return { seqs: staged.seqs, events: staged.events }
  }

  /** Whether the next commits are fsynced. SQLite ignores the pragma inside a transaction. */
  syncFully(fully: boolean): void {
    const wanted = fully ? 'FULL' : 'NORMAL'
    if (wanted === this.#synchronous) return
    this.#database.exec(`PRAGMA synchronous = ${wanted}`)
    this.#synchronous = wanted
  }

  /**
   * Bodies of open requests, each with its last checkpoint, oldest first: those of `ids`, or with null those that were open
   * already when this journal was opened.
   */
  unfinished(ids: readonly string[] | null): Answers['unfinished'] {
    const asked = ids === null ? this.#left_open : new Set(ids)
    const open = [...this.#open].filter(([id]) => asked.has(id))
    const [oldest] = open
    if (oldest === undefined) return []
    const last = new Map<string, string>()
    const checkpoints = this.#database.prepare("SELECT id, body FROM journal WHERE kind = 'C' AND seq >= ? ORDER BY seq")
    for (const row of checkpoints.iterate(oldest[1])) {
      const id = String(row['id'])
      if (asked.has(id)) last.set(id, String(row['body']))
    }
    const opened = this.#database.prepare('SELECT body FROM journal WHERE seq = ?')
    return open.map(([id, seq]) => ({ open: String(opened.get(seq)?.['body']), last: last.get(id) ?? null }))
  }

  /** Events in the order of their rows. */
  eventsAfter(row: number, limit: number): Answers['events_after'] {
    const sql = "SELECT seq, body FROM journal WHERE kind = 'U' AND seq > ? ORDER BY seq LIMIT ?"
    return this.#database
      .prepare(sql)
      .all(row, limit)
      .map(({ seq, body }) => ({ row: Number(seq), body: String(body) }))
  }

  /** Deletes at most one small batch of posted rows older than `keep_days`; returns how many. */
  deleteOld(keep_days: number, now_ms: number): number {
    const posted_seq = Number(readMeta(this.#database, 'posted_seq') ?? 0)
    const below = Math.min(posted_seq, this.open_floor - 1)
    const sql = 'DELETE FROM journal WHERE seq IN (SELECT seq FROM journal WHERE seq <= ? ORDER BY seq LIMIT ?) AND at < ?'
    return Number(this.#database.prepare(sql).run(below, DELETE_BATCH, now_ms - keep_days * DAY_MS).changes)
  }

  #write(row: RowMessage, at: number, staged: Staged): void {
    const [kind, id] = row
    switch (kind) {
      case 'S':
        if (this.#isOpen(id, staged)) return
        this.#insert.run(staged.next_seq, kind, id, at, null, row[2])
        staged.opened.set(id, staged.next_seq)
        staged.next_seq += 1
        return
      case 'C':
        this.#insert.run(staged.next_seq, kind, id, at, null, row[2])
        staged.next_seq += 1
        return
      case 'R':
        if (!this.#isOpen(id, staged)) return
        this.#insert.run(staged.next_seq, kind, id, at, 0, '')
        staged.closed.add(id)
        staged.next_seq += 1
        return
      case 'U':
        this.#writeEvent(row, at, staged)
    }
  }

  #writeEvent(row: Extract<RowMessage, readonly ['U', ...unknown[]]>, at: number, staged: Staged): void {
    const [, id, unnumbered, revision, day] = row
    const event_seq = staged.event_seq + 1
    const body = numberEvent(unnumbered, this.node, event_seq)
    const done = this.#insertEvent.run(staged.next_seq, id, at, revision, day, event_seq, body)
    if (Number(done.changes) === 0) {
      staged.seqs.push(Number(this.#closedAs.get(id, revision)?.['event_seq']))
      return
    }
    staged.closed.add(id)
    staged.next_seq += 1
    staged.event_seq = event_seq
    staged.events += 1
    staged.seqs.push(event_seq)
  }

  #isOpen(id: string, staged: Staged): boolean {
    return (this.#open.has(id) || staged.opened.has(id)) && !staged.closed.has(id)
  }

  #readOpen(): readonly { readonly id: string; readonly seq: number }[] {
    const sql =
      "SELECT seq, id FROM journal AS s WHERE kind = 'S' AND seq >= ? AND NOT EXISTS " +
      "(SELECT 1 FROM journal AS c WHERE c.id = s.id AND c.kind IN ('U', 'R')) ORDER BY seq"
    const rows = this.#database.prepare(sql).all(Number(readMeta(this.#database, 'open_floor') ?? 0))
    return rows.map((row) => ({ id: String(row['id']), seq: Number(row['seq']) }))
  }
}

/** Runs `work` in one write transaction; whatever it throws, nothing of it stays. */
export function inTransaction<T>(database: DatabaseSync, work: () => T): T {
  database.exec('BEGIN IMMEDIATE')
  try {
    const result = work()
    database.exec('COMMIT')
    return result
  } catch (error) {
    // A full disk may have rolled back already.
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

/** A fact about this file, or null before it is known. */
export function readMeta(database: DatabaseSync, name: 'node' | 'posted_seq' | 'open_floor' | 'event_seq'): string | null {
  const value = database.prepare('SELECT value FROM meta WHERE name = ?').get(name)?.['value']
  return value === undefined ? null : String(value)
}

function readInteger(database: DatabaseSync, sql: string): number {
  return Number(database.prepare(sql).get()?.['value'] ?? 0)
}
