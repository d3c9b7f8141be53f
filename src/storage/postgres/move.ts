/** Takes the books of another database in, page by page, each page with the position after it in one commit. */
import { bigOf, type SqlRow, textOf } from '../sql/executor.ts'
import type { MovedNumbers, MovedTable, TableShape } from '../sql/moved.ts'
import { bigints, texts } from './arrays.ts'
import type { Database } from './database.ts'
import { NOW_MS } from './entries.ts'
import { beat } from './nodes.ts'
import type { Partitions } from './partitions.ts'
import type { Session } from './session.ts'

/** These books cannot take others in. Says why. */
export class MoveRefused extends Error {
  override name = 'MoveRefused'
}

/** `meta` rows while books are being moved here: from where, and how far each table is. */
const SOURCE = 'move_source'
const positionName = (table: string): string => `move_at_${table}`

/** Columns that these tables have here alone. */
const ADDED: Partial<Record<MovedTable, { readonly name: string; readonly value: string }>> = {
  ledger_balances: { name: 'bucket', value: 'bucket_of(owner)' },
  usage_stale: { name: 'bucket', value: 'bucket_of(tenant)' },
}

/** A process that was heard of this lately may be running. */
const LIVE_MS = 30_000
const BUSY =
  'SELECT CASE WHEN EXISTS (SELECT 1 FROM tenants) OR EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM ledger_transactions) ' +
  `OR EXISTS (SELECT 1 FROM events) THEN 'books' WHEN EXISTS (SELECT 1 FROM nodes WHERE NOT stopped AND beat_at > ${NOW_MS} - ${LIVE_MS}) ` +
  "THEN 'nodes' ELSE '' END AS busy"
const SET_META = 'INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value'

/** The source whose books are being moved into this schema by a run that has not ended, or null. */
export async function unfinishedMove(database: Database): Promise<string | null> {
  return await database.use((session) => metaOf(session, SOURCE))
}

async function metaOf(session: Session, name: string): Promise<string | null> {
  const [row] = (await session.run('SELECT value FROM meta WHERE name = $1', [name])).rows
  return row === undefined ? null : textOf(row, 'value')
}

/** What a source has when everything of it is here. */
export interface MovedSource {
  readonly node: string
  readonly version: string
  readonly event_seq: number
  readonly numbers: MovedNumbers
}

export class MoveTarget {
  readonly #database: Database
  readonly #partitions: Partitions

  constructor(database: Database, partitions: Partitions) {
    this.#database = database
    this.#partitions = partitions
  }

  /**
   * Begins, or goes on where another run of the same source stopped.
   * @returns false if everything of this source is here already
   * @throws MoveRefused if there are other books, or processes that use them
   */
  async begin(node: string): Promise<boolean> {
    return await this.#database.transaction(async (session) => {
      const source = await metaOf(session, SOURCE)
      if (source === node) return true
      if (source !== null) throw new MoveRefused(`another installation (${source}) is being moved into this database`)
      if ((await metaOf(session, `moved_${node}`)) !== null) return false
      const [row = {}] = (await session.run(BUSY)).rows
      const busy = textOf(row, 'busy')
      if (busy === 'books')
        throw new MoveRefused('this database has tenants, keys or events already: an installation moves into an empty one')
      if (busy === 'nodes') throw new MoveRefused('processes of a cluster use this database: stop them first')
      await session.run(SET_META, [SOURCE, node])
      return true
    })
  }

  /** The text that was given with the last page of a table, or null. */
  async position(table: MovedTable): Promise<string | null> {
    return await this.#database.use((session) => metaOf(session, positionName(table)))
  }

  async put({ table, columns }: TableShape, rows: readonly SqlRow[], position: string): Promise<void> {
    if (table === 'events') await this.#partitions.ensure(rows.map((row) => textOf(row, 'day')))
    const added = ADDED[table]
    const names = columns.map(({ name }) => name).join(', ')
    const arrays = columns.map(({ kind }, index) => `$${index + 1}::${kind === 'text' ? 'text' : 'bigint'}[]`).join(', ')
    const sql =
      `INSERT INTO ${table} (${names}${added === undefined ? '' : `, ${added.name}`}) ` +
      `SELECT ${names}${added === undefined ? '' : `, ${added.value}`} FROM unnest(${arrays}) AS moved (${names}) ON CONFLICT DO NOTHING`
    const values = columns.map(({ name, kind }) => (kind === 'text' ? texts(rows.map(textsOf(name))) : bigints(rows.map(integersOf(name)))))
    await this.#database.transaction(async (session) => {
      await session.run(sql, values)
      await session.run(SET_META, [positionName(table), position])
    })
  }

  async rows(table: MovedTable): Promise<number> {
    const { rows } = await this.#database.use((session) => session.run(`SELECT COUNT(*) AS rows FROM ${table}`))
    return Number(bigOf(rows[0] ?? {}, 'rows'))
  }

  /** Every row is here: numbers go on where the source stopped, and the source is a node that has stopped. */
  async complete({ node, version, event_seq, numbers }: MovedSource): Promise<void> {
    await this.#database.transaction(async (session) => {
      for (const [name, value] of Object.entries(numbers)) await session.run(SET_META, [name, String(value)])
      await session.run(SECONDS)
    })
    await beat({ node, roles: ROLES, version, last_seq: event_seq, unposted: 0, stopped: true }, this.#database)
    await this.#database.use((session) => session.run('ANALYZE'))
  }

  /** The move has ended: processes may use these books. */
  async finish(node: string): Promise<void> {
    await this.#database.transaction(async (session) => {
      await session.run(SET_META, [`moved_${node}`, 'all'])
      await session.run(`DELETE FROM meta WHERE name = $1 OR name LIKE 'move\\_at\\_%'`, [SOURCE])
    })
  }
}

/** What an embedded process does. */
const ROLES = ['gateway', 'control', 'worker']
const SECONDS =
  'INSERT INTO second_revisions (day, id, charged, early) SELECT day, id, NULL, false FROM events WHERE revision > 1 ON CONFLICT DO NOTHING'
const textsOf =
  (name: string) =>
  (row: SqlRow): string | null =>
    row[name] === null ? null : textOf(row, name)

const integersOf =
  (name: string) =>
  (row: SqlRow): bigint | null =>
    row[name] === null ? null : bigOf(row, name)
