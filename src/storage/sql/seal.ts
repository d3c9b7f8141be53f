import { createHash } from 'node:crypto'
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import type { LedgerTransaction } from '../ports.ts'
import { type SqlDialect, SQLITE } from './dialect.ts'
import { bigOf, numberOf, type SqlExecutor, type SqlRow, textOf } from './executor.ts'

/** Between the fields of an entry, and between entries: no name has these characters. */
const [FIELD, LINE] = ['\u001F', '\u001E']
/** Transactions read at once: their entries are hashed in the thread that asked. */
const PAGE = 200
const MOST = 10

function entriesText({ joined, entry_order }: SqlDialect): string {
  const fields = ['code', 'owner', 'ref', 'unit', 'amount'].map((name) => `e.${name}`).join(` || '${FIELD}' || `)
  return joined(fields, LINE, `e.${entry_order}`)
}

/** A transaction's number and what seals it, or that nothing does because it is usage. */
export interface Seal {
  readonly number: number | null
  readonly digest: string | null
}

type Sealed = Omit<LedgerTransaction, 'entries'>

function digestOf(number: number, { id, at, kind, note }: Sealed, entries: string): string {
  return createHash('sha256')
    .update(JSON.stringify([number, id, at, kind, note, entries]))
    .digest('hex')
}

/** The seal of a transaction that is no usage. */
export function sealOf(
  number: number,
  { entries, ...transaction }: LedgerTransaction,
): { readonly number: number; readonly digest: string } {
  const lines = entries.map(({ account: { code, owner, ref, unit }, amount }) => [code, owner, ref, unit, String(amount)].join(FIELD))
  return { number, digest: digestOf(number, transaction, lines.join(LINE)) }
}

/** Numbers and seals transactions that are no usage, for the database's writer, inside its transactions. */
export class Sealer {
  readonly #next: StatementSync
  readonly #setLast: StatementSync

  constructor(database: DatabaseSync) {
    this.#next = database.prepare(
      "SELECT MAX(CAST(COALESCE((SELECT value FROM meta WHERE name = 'ledger_number'), '0') AS INTEGER), " +
        'COALESCE((SELECT MAX(number) FROM ledger_transactions), 0)) + 1 AS next',
    )
    this.#setLast = database.prepare(
      "INSERT INTO meta (name, value) VALUES ('ledger_number', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    if (database.prepare("SELECT 1 FROM meta WHERE name = 'ledger_number'").get() === undefined) this.#sealOlder(database)
  }

  seal(transaction: LedgerTransaction): Seal {
    if (transaction.kind === 'usage') return { number: null, digest: null }
    return sealOf(Number(this.#next.get()?.['next'] ?? 1), transaction)
  }

  /** To be called once a sealed transaction is written. */
  wrote({ number }: Seal): void {
    if (number !== null) this.#setLast.run(String(number))
  }

  /** Transactions of a release that did not number them. */
  #sealOlder(database: DatabaseSync): void {
    database.exec('BEGIN IMMEDIATE')
    try {
      const older = database.prepare(
        "SELECT rowid AS row, id, at, kind, note FROM ledger_transactions WHERE kind <> 'usage' ORDER BY rowid",
      )
      const entries = database.prepare(
        `SELECT COALESCE(${entriesText(SQLITE)}, '') AS entries FROM ledger_entries AS e WHERE transaction_id = ?`,
      )
      const set = database.prepare('UPDATE ledger_transactions SET number = ?, digest = ? WHERE rowid = ?')
      let number = 0
      for (const row of older.all()) {
        number += 1
        const [id, at, kind, note] = [String(row['id']), Number(row['at']), String(row['kind']) as Sealed['kind'], String(row['note'])]
        const digest = digestOf(number, { id, at, kind, note }, String(entries.get(id)?.['entries']))
        set.run(number, digest, Number(row['row']))
      }
      this.#setLast.run(String(number))
      database.exec('COMMIT')
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw error
    }
  }
}

function nextPage(dialect: SqlDialect): string {
  const fields = ['number', 'digest', 'id', 'at', 'kind', 'note'].map((name) => `t.${name}`).join(', ')
  return (
    `SELECT ${fields}, COALESCE(${entriesText(dialect)}, '') AS entries ` +
    'FROM (SELECT * FROM ledger_transactions WHERE number > ? ORDER BY number LIMIT ?) AS t ' +
    `LEFT JOIN ledger_entries AS e ON e.transaction_id = t.id GROUP BY ${fields} ORDER BY t.number`
  )
}

const LAST = "SELECT CAST(COALESCE((SELECT value FROM meta WHERE name = 'ledger_number'), '0') AS BIGINT) AS last"

const UNNUMBERED = `SELECT id FROM ledger_transactions WHERE number IS NULL AND kind <> 'usage' LIMIT ${MOST}`

/**
 * Every transaction that is no usage against its seal, by the page, in sentences. What is posted meanwhile is judged too.
 * @returns at most 10 of missing and 10 of changed ones
 */
export async function brokenSeals(executor: Pick<SqlExecutor, 'read'>, dialect: SqlDialect): Promise<readonly string[]> {
  const [lasts, unnumbered = []] = await executor.read([
    { sql: LAST, params: [] },
    { sql: UNNUMBERED, params: [] },
  ])
  const last = lasts?.[0] === undefined ? 0 : numberOf(lasts[0], 'last')
  const [missing, changed]: [string[], string[]] = [[], unnumbered.map((row) => `${textOf(row, 'id')} has no number`)]
  let before: { readonly number: number; readonly id: string } = { number: 0, id: 'the first' }
  const sql = nextPage(dialect)
  for (;;) {
    const [rows = []] = await executor.read([{ sql, params: [before.number, PAGE] }])
    for (const row of rows) {
      const here = { number: numberOf(row, 'number'), id: textOf(row, 'id') }
      if (here.number > before.number + 1) missing.push(missingWords(before.number + 1, here.number - 1, `before ${here.id}`))
      if (!isSealed(row)) changed.push(`${here.id} is not what was posted`)
      before = here
    }
    if (rows.length < PAGE) break
  }
  if (before.number < last) missing.push(missingWords(before.number + 1, last, `after ${before.id}`))
  return [...missing.slice(0, MOST), ...changed.slice(0, MOST)]
}

function isSealed(row: SqlRow): boolean {
  const [id, note, kind] = [textOf(row, 'id'), textOf(row, 'note'), textOf(row, 'kind') as Sealed['kind']]
  return row['digest'] === digestOf(numberOf(row, 'number'), { id, at: Number(bigOf(row, 'at')), kind, note }, textOf(row, 'entries'))
}

function missingWords(first: number, last: number, where: string): string {
  return `${first === last ? `number ${first}` : `numbers ${first}–${last}`} (${where}) ${first === last ? 'is' : 'are'} missing`
}
