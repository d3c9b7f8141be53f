import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { assert } from '../../base/assert.ts'
import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import { addAmounts, checkBalanced, entriesOf, EntrySums } from '../accounts.ts'
import { inTransaction, type JournalRows, readMeta } from '../journal/rows.ts'
import type { Account, LedgerEntry, LedgerTransaction, PostResult } from '../ports.ts'
import type { GrantRecord } from '../records.ts'
import { RollupBatch } from './rollup-batch.ts'
import type { Rollups } from './rollups.ts'
import { Sealer } from './seal.ts'

const MAX_KNOWN_GRANTS = 10_000

/**
 * The embedded ledger's only writer, in the journal's thread and on its connection: events and entries come from the journal
 * in the same file, so one SQLite transaction moves them and the watermark together.
 */
export class Poster {
  readonly #database: DatabaseSync
  readonly #journal: JournalRows
  readonly #rollups: Rollups
  readonly #statements: PostStatements
  readonly #sealer: Sealer
  readonly #kinds = new Map<string, GrantRecord['kind']>()
  #posted_seq: number

  constructor(database: DatabaseSync, journal: JournalRows, rollups: Rollups) {
    this.#database = database
    this.#journal = journal
    this.#rollups = rollups
    this.#statements = prepareStatements(database)
    this.#sealer = new Sealer(database)
    this.#posted_seq = Number(readMeta(database, 'posted_seq') ?? 0)
  }

  /** Posts the next `most` events as one balanced transaction of the ledger. Posting an event again changes nothing. */
  postSome(most: number): PostResult & { readonly rows: number } {
    const rows = this.#statements.waiting.all(this.#posted_seq, most)
    const last = rows.at(-1)
    if (last === undefined) return { rows: 0, events: 0, transactions: 0 }
    // Rows of other kinds follow the last event too: the next look need not read them again.
    const watermark = rows.length < most ? this.#journal.last_seq : Number(last['seq'])
    const result = inTransaction(this.#database, () => this.#postRows(rows, watermark))
    this.#posted_seq = watermark
    return { rows: rows.length, ...result }
  }

  /** Writes a transaction that is no usage, e.g. a top-up. The same id is posted once. */
  transact(transaction: LedgerTransaction): 'posted' | 'duplicate' {
    return inTransaction(this.#database, () => (this.#write(transaction) ? 'posted' : 'duplicate'))
  }

  /**
   * Writes the events of rows below the watermark again that the ledger lacks or has with another body. Entries and sums follow from
   * all events together (`rebuild-entries.ts`, `rebuild.ts`), so none are posted here.
   */
  repost(seqs: readonly number[]): void {
    inTransaction(this.#database, () => {
      for (const seq of seqs) this.#repostRow(seq)
    })
  }

  #repostRow(seq: number): void {
    const row = this.#statements.row.get(seq)
    // Deleted meanwhile: it was past its time.
    if (row === undefined) return
    const body = String(row['body'])
    const { day, id, revision } = decodeEvent(body)
    this.#statements.deleteEvent.run(day, id, revision)
    this.#postEvent(body, new EntrySums(), new RollupBatch())
    if (revision === 1 && this.#statements.second.get(day, id) !== undefined) this.#statements.supersede.run(day, id)
  }

  #postRows(rows: readonly Record<string, unknown>[], watermark: number): PostResult {
    const [sums, rollups] = [new EntrySums(), new RollupBatch()]
    let events = 0
    for (const row of rows) if (this.#postEvent(String(row['body']), sums, rollups)) events += 1
    this.#rollups.write(rollups)
    const entries = sums.entries()
    const [first, last] = [rows[0], rows.at(-1)]
    assert(first !== undefined && last !== undefined, 'posting nothing')
    const { node } = this.#journal
    const id = `usage-${node}-${String(first['seq'])}-${String(last['seq'])}`
    const transaction: LedgerTransaction = { id, at: Number(last['at']), kind: 'usage', note: `${events} events`, entries }
    if (entries.length > 0) assert(this.#write(transaction), 'a batch of usage was posted twice')
    this.#statements.setMeta.run('posted_seq', String(watermark))
    this.#statements.setMeta.run('event_seq', String(last['event_seq']))
    this.#statements.setMeta.run('open_floor', String(this.#journal.open_floor))
    return { events, transactions: entries.length > 0 ? 1 : 0 }
  }

  /** Returns false if the event is in the ledger already. */
  #postEvent(body: string, sums: EntrySums, rollups: RollupBatch): boolean {
    const event = decodeEvent(body)
    if (this.#archived(event.day)) {
      const { day, id, revision, node, seq, ended_at } = event
      this.#statements.insertLate.run(day, id, revision, node, seq, ended_at, body)
      return false
    }
    if (Number(this.#statements.insertEvent.run(...eventColumns(event, body)).changes) === 0) return false
    const kindOf = (grant: string): GrantRecord['kind'] | undefined => this.#kindOf(grant)
    sums.add(entriesOf(event, kindOf))
    rollups.add(event)
    if (event.revision === 2) {
      const body_of_first = this.#statements.earlier.get(event.day, event.id)?.['body']
      if (body_of_first !== undefined) {
        const earlier = decodeEvent(String(body_of_first))
        sums.add(entriesOf(earlier, kindOf), -1n)
        rollups.add(earlier, -1)
        this.#statements.supersede.run(event.day, event.id)
      }
    }
    return true
  }

  #write(transaction: LedgerTransaction): boolean {
    const { id, at, kind, note, entries } = transaction
    checkBalanced(id, entries)
    const seal = this.#sealer.seal(transaction)
    if (Number(this.#statements.insertTransaction.run(id, at, kind, note, seal.number, seal.digest).changes) === 0) return false
    this.#sealer.wrote(seal)
    for (const entry of entries) this.#writeEntry(id, entry)
    return true
  }

  #writeEntry(transaction: string, { account, amount }: LedgerEntry): void {
    const names = accountColumns(account)
    this.#statements.insertEntry.run(transaction, ...names, amount)
    const known = this.#statements.balance.get(...names)?.['amount']
    this.#statements.setBalance.run(...names, typeof known === 'bigint' ? addAmounts(known, amount) : amount)
  }

  /** The file of its day is written: what comes now must neither be lost nor change what was closed. */
  #archived(day: string): boolean {
    return this.#statements.archived.get(day) !== undefined
  }

  #kindOf(grant: string): GrantRecord['kind'] | undefined {
    const known = this.#kinds.get(grant)
    if (known !== undefined) return known
    const kind = this.#statements.grantKind.get(grant)?.['kind']
    if (kind === undefined) return undefined
    if (this.#kinds.size >= MAX_KNOWN_GRANTS) this.#kinds.clear()
    this.#kinds.set(grant, kind as GrantRecord['kind'])
    return kind as GrantRecord['kind']
  }
}

interface PostStatements {
  readonly waiting: StatementSync
  readonly insertEvent: StatementSync
  readonly earlier: StatementSync
  readonly supersede: StatementSync
  readonly insertTransaction: StatementSync
  readonly insertEntry: StatementSync
  readonly balance: StatementSync
  readonly setBalance: StatementSync
  readonly setMeta: StatementSync
  readonly grantKind: StatementSync
  readonly archived: StatementSync
  readonly insertLate: StatementSync
  readonly row: StatementSync
  readonly deleteEvent: StatementSync
  readonly second: StatementSync
}

function prepareStatements(database: DatabaseSync): PostStatements {
  const balance = database.prepare('SELECT amount FROM ledger_balances WHERE code = ? AND owner = ? AND ref = ? AND unit = ?')
  balance.setReadBigInts(true)
  return {
    waiting: database.prepare("SELECT seq, at, event_seq, body FROM journal WHERE kind = 'U' AND seq > ? ORDER BY seq LIMIT ?"),
    insertEvent: database.prepare(
      'INSERT INTO events (day, id, revision, admitted_at, tenant, project, key, model, endpoint, provider, status, usage_source, ' +
        'input, cached_input, cache_write, output, reasoning, amount_nano, cost_nano, node, seq, body, end_user, overrun_nano) ' +
        'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
    ),
    earlier: database.prepare('SELECT body FROM events WHERE day = ? AND id = ? AND revision = 1'),
    supersede: database.prepare('UPDATE events SET superseded = 1 WHERE day = ? AND id = ? AND revision = 1'),
    insertTransaction: database.prepare(
      'INSERT INTO ledger_transactions (id, at, kind, note, number, digest) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING',
    ),
    insertEntry: database.prepare('INSERT INTO ledger_entries (transaction_id, code, owner, ref, unit, amount) VALUES (?, ?, ?, ?, ?, ?)'),
    balance,
    setBalance: database.prepare(
      'INSERT INTO ledger_balances (code, owner, ref, unit, amount) VALUES (?, ?, ?, ?, ?) ' +
        'ON CONFLICT (code, owner, ref, unit) DO UPDATE SET amount = excluded.amount',
    ),
    setMeta: database.prepare('INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value'),
    grantKind: database.prepare('SELECT kind FROM grants WHERE id = ?'),
    archived: database.prepare('SELECT 1 FROM archives WHERE day = ?'),
    insertLate: database.prepare(
      'INSERT INTO late_events (day, id, revision, node, seq, at, body) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
    ),
    row: database.prepare("SELECT body FROM journal WHERE kind = 'U' AND seq = ?"),
    deleteEvent: database.prepare('DELETE FROM events WHERE day = ? AND id = ? AND revision = ?'),
    second: database.prepare('SELECT 1 FROM events WHERE day = ? AND id = ? AND revision = 2'),
  }
}

function eventColumns(event: UsageEvent, body: string): readonly (string | number | bigint | null)[] {
  const { tokens } = event
  return [
    event.day,
    event.id,
    event.revision,
    event.admitted_at,
    event.tenant,
    event.project,
    event.key,
    event.model,
    event.endpoint,
    event.provider,
    event.status,
    event.usage_source,
    tokens.input,
    tokens.cached_input,
    tokens.cache_write,
    tokens.output,
    tokens.reasoning,
    event.amount_nano,
    event.cost_nano,
    event.node,
    event.seq,
    body,
    event.end_user,
    event.overrun_nano,
  ]
}

function accountColumns(account: Account): readonly [string, string, string, string] {
  return [account.code, account.owner, account.ref, account.unit]
}
