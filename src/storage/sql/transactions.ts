import type { GrantUnit } from '../../money/grant.ts'
import type { AccountCode, LedgerEntry, LedgerTransaction, TransactionQuery } from '../ports.ts'
import type { SqlDialect } from './dialect.ts'
import { bigOf, instantOf, numberOf, type SqlRow, type SqlStatement, textOf } from './executor.ts'

/** A supplier's accounts have a provider for their owner, which may be called like a tenant. */
const OF_TENANT =
  'EXISTS (SELECT 1 FROM ledger_entries AS o WHERE o.owner = ? AND o.transaction_id = t.id ' +
  "AND o.code NOT IN ('supplier_cost', 'supplier_payable'))"

/** One transaction with its entries. */
export function transactionStatement(id: string, dialect: SqlDialect): SqlStatement {
  return { sql: withEntries('SELECT * FROM ledger_transactions AS t WHERE id = ?', dialect), params: [id] }
}

/** The newest transactions with their entries. `after` is the time and id of the last one seen. */
export function transactionsStatement(
  query: TransactionQuery,
  after: readonly [number, string] | null,
  limit: number,
  dialect: SqlDialect,
): SqlStatement {
  const conditions = ['1 = 1']
  const params: (string | number)[] = []
  const add = (condition: string, ...values: readonly (string | number)[]): void => {
    conditions.push(condition)
    params.push(...values)
  }
  if (query.kind !== undefined) add('t.kind = ?', query.kind)
  if (query.from_ms !== undefined) add('t.at >= ?', instantOf(query.from_ms))
  if (query.to_ms !== undefined) add('t.at < ?', instantOf(query.to_ms))
  if (after !== null) add('(t.at, t.id) < (?, ?)', ...after)
  if (query.tenant !== undefined) add(OF_TENANT, query.tenant)
  const sql = `SELECT * FROM ledger_transactions AS t WHERE ${conditions.join(' AND ')} ORDER BY t.at DESC, t.id DESC LIMIT ?`
  return { sql: withEntries(sql, dialect), params: [...params, limit] }
}

function withEntries(transactions: string, { entry_order }: SqlDialect): string {
  return (
    'SELECT x.id, x.at, x.kind, x.note, e.code, e.owner, e.ref, e.unit, e.amount ' +
    `FROM (${transactions}) AS x LEFT JOIN ledger_entries AS e ON e.transaction_id = x.id ORDER BY x.at DESC, x.id DESC, e.${entry_order}`
  )
}

/** Transactions from rows that have one of their entries each. */
export function transactionsOf(rows: readonly SqlRow[]): readonly LedgerTransaction[] {
  return [...Map.groupBy(rows, (row) => textOf(row, 'id')).values()].flatMap((lines) => {
    const [first] = lines
    if (first === undefined) return []
    return {
      id: textOf(first, 'id'),
      at: numberOf(first, 'at'),
      kind: textOf(first, 'kind') as LedgerTransaction['kind'],
      note: textOf(first, 'note'),
      entries: lines.filter((line) => line['code'] !== null).map(entryOf),
    }
  })
}

function entryOf(row: SqlRow): LedgerEntry {
  return {
    account: {
      code: textOf(row, 'code') as AccountCode,
      owner: textOf(row, 'owner'),
      ref: textOf(row, 'ref'),
      unit: textOf(row, 'unit') as GrantUnit,
    },
    amount: bigOf(row, 'amount'),
  }
}
