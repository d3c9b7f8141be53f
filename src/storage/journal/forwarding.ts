import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { inTransaction, type JournalRows, readMeta } from './rows.ts'
import type { ChargeNote, UnpostedRow } from './protocol.ts'

/**
 * The journal as a source for a ledger that is elsewhere, for the writer's thread only: which events it may lack, what is known of their
 * charges, and the watermark below which it lacks none.
 */
export class Forwarding {
  readonly #database: DatabaseSync
  readonly #journal: JournalRows
  readonly #unposted: StatementSync
  readonly #note: StatementSync
  readonly #event: StatementSync
  readonly #setMeta: StatementSync
  readonly #forgetNotes: StatementSync

  constructor(database: DatabaseSync, journal: JournalRows) {
    this.#database = database
    this.#journal = journal
    this.#unposted = database.prepare(
      'SELECT j.seq, j.event_seq, j.id, j.revision, j.day, j.at, j.body, c.epoch, c.appended, c.void FROM journal AS j ' +
        "LEFT JOIN charges AS c ON c.id = j.id AND c.revision = j.revision WHERE j.kind = 'U' AND j.seq > ? ORDER BY j.seq LIMIT ?",
    )
    this.#note = database.prepare(
      'INSERT INTO charges (id, revision, epoch, appended, void) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id, revision) DO UPDATE SET ' +
        'epoch = excluded.epoch, appended = MAX(appended, excluded.appended), void = MAX(void, excluded.void)',
    )
    this.#event = database.prepare("SELECT body FROM journal WHERE id = ? AND revision = ? AND kind = 'U'")
    this.#setMeta = database.prepare('INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value')
    this.#forgetNotes = database.prepare(
      "DELETE FROM charges WHERE (id, revision) IN (SELECT id, revision FROM journal WHERE kind = 'U' AND seq > ? AND seq <= ?)",
    )
  }

  unposted(after: number, limit: number): readonly UnpostedRow[] {
    return this.#unposted.all(Math.max(after, this.#postedSeq()), limit).map((row) => {
      const [id, revision] = [String(row['id']), Number(row['revision'])]
      const note =
        row['epoch'] === null
          ? null
          : { id, revision, epoch: Number(row['epoch']), appended: row['appended'] === 1, void: row['void'] === 1 }
      const { seq, event_seq, day, at, body } = row
      return { seq: Number(seq), event_seq: Number(event_seq), id, revision, day: String(day), at: Number(at), body: String(body), note }
    })
  }

  note(notes: readonly ChargeNote[]): void {
    inTransaction(this.#database, () => {
      for (const { id, revision, epoch, appended, void: is_void } of notes) {
        this.#note.run(id, revision, epoch, Number(appended), Number(is_void))
      }
    })
  }

  event(id: string, revision: number): string | null {
    const body = this.#event.get(id, revision)?.['body']
    return body === undefined ? null : String(body)
  }

  /** Moves the watermark up; it never goes back. */
  posted(seq: number): void {
    const before = this.#postedSeq()
    if (seq <= before) return
    inTransaction(this.#database, () => {
      this.#forgetNotes.run(before, seq)
      this.#setMeta.run('posted_seq', String(seq))
      this.#setMeta.run('event_seq', String(this.#journal.last_event_seq))
      this.#setMeta.run('open_floor', String(this.#journal.open_floor))
    })
  }

  #postedSeq(): number {
    return Number(readMeta(this.#database, 'posted_seq') ?? 0)
  }
}
