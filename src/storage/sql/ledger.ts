import { dayOf } from '../../base/clock.ts'
import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import type { GrantUnit } from '../../money/grant.ts'
import { checkBalanced } from '../accounts.ts'
import type { AuditFacts, UsageMark } from '../books.ts'
import {
  type AccountCode,
  BadCursor,
  type EventPage,
  type EventQuery,
  type Ledger,
  type LedgerEntry,
  type LedgerTransaction,
  type PostResult,
  type TransactionPage,
  type TransactionQuery,
  type UsagePage,
  type UsageQuery,
} from '../ports.ts'
import { readAuditFacts } from './audit.ts'
import { BALANCES } from './balances.ts'
import { type SqlDialect, SQLITE } from './dialect.ts'
import { bigOf, instantOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'
import { transactionsOf, transactionsStatement, transactionStatement } from './transactions.ts'
import { USAGE_FLOORS, type UsageFloors, usageFloorsOf, usagePageOf, usageStatement } from './usage.ts'

const MAX_PAGE = 1000
/** The year 9999: later instants have no date of four digits. */
const LATEST_MS = 253_370_000_000_000
/** A transaction of usage has a line for every account of its batch. */
const MAX_TRANSACTIONS = 200
const FLOOR_ATTEMPTS = 5

/** The writing half of a ledger: what only the database's one writer does. */
export interface LedgerWriter {
  post(): Promise<PostResult>
  transact(transaction: LedgerTransaction): Promise<'posted' | 'duplicate'>
}

/** The embedded ledger: written by the journal's thread, read through the executor. */
export class SqlLedger implements Ledger {
  readonly #executor: SqlExecutor
  readonly #writer: LedgerWriter
  readonly #auditing: Pick<SqlExecutor, 'read'>
  readonly #searching: Pick<SqlExecutor, 'read'>
  readonly #dialect: SqlDialect
  /** As far as this reader knows. */
  #floors: UsageFloors = { minutes_ms: 0, events_ms: 0 }

  /**
   * @param auditing reads that take seconds; on a connection of their own, so that reports need not wait for them
   * @param searching reads that callers can make take seconds; on one more, so that neither reports nor audits wait for them
   */
  constructor(
    executor: SqlExecutor,
    writer: LedgerWriter,
    auditing: Pick<SqlExecutor, 'read'> = executor,
    searching: Pick<SqlExecutor, 'read'> = executor,
    dialect: SqlDialect = SQLITE,
  ) {
    this.#executor = executor
    this.#writer = writer
    this.#auditing = auditing
    this.#searching = searching
    this.#dialect = dialect
  }

  post(): Promise<PostResult> {
    return this.#writer.post()
  }

  /** @throws UnbalancedTransaction unless the entries of each unit sum to zero */
  async transact(transaction: LedgerTransaction): Promise<'posted' | 'duplicate'> {
    checkBalanced(transaction.id, transaction.entries)
    return this.#writer.transact(transaction)
  }

  async balances(): Promise<readonly LedgerEntry[]> {
    const rows = await this.#read({ sql: BALANCES, params: [] })
    return rows.map((row) => ({
      account: {
        code: textOf(row, 'code') as AccountCode,
        owner: textOf(row, 'owner'),
        ref: textOf(row, 'ref'),
        unit: textOf(row, 'unit') as GrantUnit,
      },
      amount: bigOf(row, 'amount'),
    }))
  }

  /** Looks once per day that has events: the primary key begins with the day, and an index on ids alone would cost every posting. */
  async event(id: string): Promise<UsageEvent | null> {
    const sql =
      'WITH RECURSIVE days (day) AS (SELECT MIN(day) FROM events UNION ALL ' +
      'SELECT (SELECT MIN(e.day) FROM events AS e WHERE e.day > days.day) FROM days WHERE days.day IS NOT NULL) ' +
      'SELECT e.body FROM days CROSS JOIN events AS e ON e.day = days.day AND e.id = ? ORDER BY e.revision DESC LIMIT 1'
    const [row] = await this.#read({ sql, params: [id] })
    return row === undefined ? null : decodeEvent(textOf(row, 'body'))
  }

  /** @throws BadCursor */
  async events(query: EventQuery): Promise<EventPage> {
    const limit = pageLimit(query.limit)
    const { where, params } = conditionsOf(query, this.#dialect)
    const after = query.cursor === undefined ? null : parseCursor(query.cursor)
    const keyset = after === null ? '' : ' AND (admitted_at, id) < (?, ?)'
    const table = query.overrun === true ? this.#dialect.indexed('events', 'events_overrun') : 'events'
    const sql = `SELECT body FROM ${table} WHERE ${where}${keyset} ORDER BY admitted_at DESC, id DESC LIMIT ?`
    const reader = isSearch(query) ? this.#searching : this.#executor
    const [rows = []] = await reader.read([{ sql, params: [...params, ...(after ?? []), limit + 1] }])
    const events = rows.slice(0, limit).map((row) => decodeEvent(textOf(row, 'body')))
    const last = events.at(-1)
    return { events, next_cursor: rows.length > limit && last !== undefined ? `${last.admitted_at}.${last.id}` : null }
  }

  /** @throws RangeError, BadCursor as the port says */
  async usage(query: UsageQuery): Promise<UsagePage> {
    // Over all tenants it reads rows of each in each period: then nobody else waits for it.
    const reader = query.tenant === undefined ? this.#auditing : this.#executor
    for (let attempt = 0; attempt < FLOOR_ATTEMPTS; attempt += 1) {
      const planned = this.#floors
      const [floors, rows = []] = await reader.read([USAGE_FLOORS, usageStatement(query, planned, this.#dialect)])
      // Read in the same transaction: a plan made for other floors would look for rows that are gone.
      this.#floors = usageFloorsOf(floors?.[0])
      const { minutes_ms, events_ms } = this.#floors
      if (minutes_ms === planned.minutes_ms && events_ms === planned.events_ms) return usagePageOf(rows, query)
    }
    throw new Error(`details of usage were deleted during each of ${FLOOR_ATTEMPTS} reads`)
  }

  async transaction(id: string): Promise<LedgerTransaction | null> {
    const rows = await this.#read(transactionStatement(id, this.#dialect))
    return transactionsOf(rows)[0] ?? null
  }

  /** @throws BadCursor */
  async transactions(query: TransactionQuery): Promise<TransactionPage> {
    const limit = Math.min(MAX_TRANSACTIONS, pageLimit(query.limit))
    const after = query.cursor === undefined ? null : parseCursor(query.cursor)
    const transactions = transactionsOf(await this.#read(transactionsStatement(query, after, limit + 1, this.#dialect)))
    const page = transactions.slice(0, limit)
    const last = page.at(-1)
    return { transactions: page, next_cursor: transactions.length > limit && last !== undefined ? `${last.at}.${last.id}` : null }
  }

  async archivedDays({ from_ms, to_ms }: { readonly from_ms?: number; readonly to_ms?: number }): Promise<readonly string[]> {
    const params = [dayWithin(from_ms ?? 0), dayWithin((to_ms ?? LATEST_MS) - 1)]
    const rows = await this.#read({ sql: 'SELECT day FROM archives WHERE day >= ? AND day <= ? ORDER BY day', params })
    return rows.map((row) => textOf(row, 'day'))
  }

  auditFacts(mark?: UsageMark): Promise<AuditFacts> {
    return readAuditFacts(this.#auditing, mark)
  }

  async #read(statement: SqlStatement): Promise<readonly SqlRow[]> {
    const [rows] = await this.#executor.read([statement])
    return rows ?? []
  }
}

function dayWithin(at_ms: number): string {
  return dayOf(Math.min(Math.max(0, at_ms), LATEST_MS))
}

function pageLimit(limit: number): number {
  return Math.max(1, Math.min(MAX_PAGE, limit))
}

/** Filters that no index knows: where few events pass them, every one of the period is looked at. */
function isSearch({ project, key, model, endpoint, end_user, tag }: EventQuery): boolean {
  return [project, key, model, endpoint, end_user, tag].some((filter) => filter !== undefined)
}

function conditionsOf(query: EventQuery, dialect: SqlDialect): { readonly where: string; readonly params: readonly (string | number)[] } {
  const conditions = ['superseded = 0']
  const params: (string | number)[] = []
  const add = (condition: string, ...values: readonly (string | number | undefined)[]): void => {
    const known = values.filter((value) => value !== undefined)
    if (known.length < values.length) return
    conditions.push(condition)
    params.push(...known)
  }
  add('tenant = ?', query.tenant)
  add('project = ?', query.project)
  add('key = ?', query.key)
  add('model = ?', query.model)
  add('endpoint = ?', query.endpoint)
  add('end_user = ?', query.end_user)
  const tags = dialect.jsonMembers('body', 'tags', 't')
  add(`EXISTS (SELECT 1 FROM ${tags} WHERE t.key = ? AND t.value = ?)`, query.tag?.name, query.tag?.value)
  if (query.from_ms !== undefined) add('admitted_at >= ?', instantOf(query.from_ms))
  if (query.to_ms !== undefined) add('admitted_at < ?', instantOf(query.to_ms))
  if (dialect.day_partitions && query.from_ms !== undefined) add('day >= ?', dayWithin(query.from_ms))
  if (dialect.day_partitions && query.to_ms !== undefined) add('day <= ?', dayWithin(query.to_ms))
  if (query.overrun === true) add('overrun_nano > 0')
  return { where: conditions.join(' AND '), params }
}

/** A cursor names the last one seen: its time and id. */
function parseCursor(cursor: string): readonly [number, string] {
  const [, at, id] = /^(\d{1,16})\.(.+)$/s.exec(cursor) ?? []
  if (at === undefined || id === undefined || !Number.isSafeInteger(Number(at))) throw new BadCursor('the cursor is not one of this query')
  return [Number(at), id]
}
