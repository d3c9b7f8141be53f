import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import type { GrantUnit } from '../../money/grant.ts'
import { checkBalanced } from '../accounts.ts'
import type {
  AccountCode,
  AuditFacts,
  EventPage,
  EventQuery,
  Ledger,
  LedgerEntry,
  LedgerTransaction,
  PostResult,
  UsageTotalsRow,
} from '../ports.ts'
import { AUDIT_STATEMENTS, auditFactsOf } from './audit.ts'
import { bigOf, numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'

const MAX_PAGE = 1000

/** The writing half of a ledger: what only the database's one writer does. */
export interface LedgerWriter {
  post(): Promise<PostResult>
  transact(transaction: LedgerTransaction): Promise<'posted' | 'duplicate'>
}

/** The embedded ledger: written by the journal's thread, read through the executor. */
export class SqlLedger implements Ledger {
  readonly #executor: SqlExecutor
  readonly #writer: LedgerWriter

  constructor(executor: SqlExecutor, writer: LedgerWriter) {
    this.#executor = executor
    this.#writer = writer
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
    const rows = await this.#read({ sql: 'SELECT code, owner, ref, unit, amount FROM ledger_balances', params: [] })
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

  async events(query: EventQuery): Promise<EventPage> {
    const limit = Math.max(1, Math.min(MAX_PAGE, query.limit))
    const { where, params } = conditionsOf(query)
    const after = query.cursor === undefined ? null : parseCursor(query.cursor)
    const keyset = after === null ? '' : ' AND (admitted_at, id) < (?, ?)'
    const sql = `SELECT body FROM events WHERE ${where}${keyset} ORDER BY admitted_at DESC, id DESC LIMIT ?`
    const rows = await this.#read({ sql, params: [...params, ...(after ?? []), limit + 1] })
    const events = rows.slice(0, limit).map((row) => decodeEvent(textOf(row, 'body')))
    const last = events.at(-1)
    return { events, next_cursor: rows.length > limit && last !== undefined ? `${last.admitted_at}.${last.id}` : null }
  }

  async totals(query: Omit<EventQuery, 'limit' | 'cursor'>): Promise<readonly UsageTotalsRow[]> {
    const { where, params } = conditionsOf(query)
    // SUM of integers raises an error when it leaves 64 bits; it never rounds.
    const sums = ['input', 'cached_input', 'cache_write', 'output', 'reasoning', 'amount_nano', 'cost_nano']
    const sql =
      "SELECT tenant, project, key, model, COUNT(*) AS requests, SUM(status = 'completed') AS completed, " +
      `${sums.map((name) => `SUM(${name}) AS ${name}`).join(', ')} FROM events WHERE ${where} ` +
      'GROUP BY tenant, project, key, model ORDER BY tenant, project, key, model'
    return (await this.#read({ sql, params })).map(totalsRowOf)
  }

  async auditFacts(): Promise<AuditFacts> {
    return auditFactsOf(await this.#executor.read(AUDIT_STATEMENTS))
  }

  async #read(statement: SqlStatement): Promise<readonly SqlRow[]> {
    const [rows] = await this.#executor.read([statement])
    return rows ?? []
  }
}

function conditionsOf(query: Omit<EventQuery, 'limit' | 'cursor'>): {
  readonly where: string
  readonly params: readonly (string | number)[]
} {
  const conditions = ['superseded = 0']
  const params: (string | number)[] = []
  const add = (condition: string, value: string | number | undefined): void => {
    if (value === undefined) return
    conditions.push(condition)
    params.push(value)
  }
  add('tenant = ?', query.tenant)
  add('project = ?', query.project)
  add('key = ?', query.key)
  add('model = ?', query.model)
  add('admitted_at >= ?', query.from_ms)
  add('admitted_at < ?', query.to_ms)
  return { where: conditions.join(' AND '), params }
}

/** A cursor names the last event seen: its time and id. One that is malformed begins anew at the end of time and finds nothing. */
function parseCursor(cursor: string): readonly [number, string] {
  const dot = cursor.indexOf('.')
  const admitted_at = Number(cursor.slice(0, Math.max(0, dot)))
  return [Number.isSafeInteger(admitted_at) ? admitted_at : 0, cursor.slice(dot + 1)]
}

function totalsRowOf(row: SqlRow): UsageTotalsRow {
  return {
    tenant: textOf(row, 'tenant'),
    project: textOf(row, 'project'),
    key: textOf(row, 'key'),
    model: textOf(row, 'model'),
    requests: numberOf(row, 'requests'),
    completed: numberOf(row, 'completed'),
    tokens: {
      input: numberOf(row, 'input'),
      cached_input: numberOf(row, 'cached_input'),
      cache_write: numberOf(row, 'cache_write'),
      output: numberOf(row, 'output'),
      reasoning: numberOf(row, 'reasoning'),
    },
    amount_nano: bigOf(row, 'amount_nano'),
    cost_nano: bigOf(row, 'cost_nano'),
  }
}
