/** Transactions, their entries and the running balances, inside the caller's database transaction. */
import type { Account, LedgerEntry, LedgerTransaction } from '../ports.ts'
import { bigints, texts } from './arrays.ts'
import type { Session } from './session.ts'

/** Now, in Unix ms, as the database's clock has it. */
export const NOW_MS = '(extract(epoch FROM clock_timestamp()) * 1000)::bigint'

const INSERT_TRANSACTION =
  'INSERT INTO ledger_transactions (id, at, kind, note, number, digest) ' +
  `VALUES ($1, COALESCE($2::bigint, ${NOW_MS}), $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING`

/** What is written of a transaction besides its entries; without a time it is now. */
export interface TransactionRow extends Omit<LedgerTransaction, 'entries' | 'at'> {
  readonly at: number | null
  readonly number: number | null
  readonly digest: string | null
}

/** @returns false if the id is taken */
export async function insertTransaction(session: Session, row: TransactionRow): Promise<boolean> {
  const { id, at, kind, note, number, digest } = row
  return (await session.prepared(INSERT_TRANSACTION, [id, at, kind, note, number, digest])).count > 0
}

const INSERT_ENTRIES =
  'INSERT INTO ledger_entries (transaction_id, line, code, owner, ref, unit, amount) ' +
  'SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])'

export async function insertEntries(
  session: Session,
  transactions: ReadonlyArray<{ readonly id: string; readonly entries: readonly LedgerEntry[] }>,
): Promise<void> {
  const lines = transactions.flatMap(({ id, entries }) => entries.map((entry, line) => ({ id, line, ...entry })))
  if (lines.length === 0) return
  await session.prepared(INSERT_ENTRIES, [
    texts(lines.map(({ id }) => id)),
    bigints(lines.map(({ line }) => line)),
    ...accountColumns(lines.map(({ account }) => account)),
    bigints(lines.map(({ amount }) => amount)),
  ])
}

const ADD_BALANCES =
  'INSERT INTO ledger_balances (bucket, code, owner, ref, unit, amount) ' +
  'SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) ' +
  'ON CONFLICT (bucket, code, owner, ref, unit) DO UPDATE SET amount = ledger_balances.amount + excluded.amount'

export interface BalanceChange extends LedgerEntry {
  readonly bucket: number
}

/**
 * Adds to balances, each account once, in one order for everybody: whoever waits for a row has none that another waits for.
 * @throws RangeError for a balance that leaves 64 bits
 */
export async function addBalances(session: Session, changes: readonly BalanceChange[]): Promise<void> {
  if (changes.length === 0) return
  const ordered = changes.toSorted(inOrder)
  await session.prepared(ADD_BALANCES, [
    bigints(ordered.map(({ bucket }) => bucket)),
    ...accountColumns(ordered.map(({ account }) => account)),
    bigints(ordered.map(({ amount }) => amount)),
  ])
}

function accountColumns(accounts: readonly Account[]): readonly Buffer[] {
  return (['code', 'owner', 'ref', 'unit'] as const).map((name) => texts(accounts.map((account) => account[name])))
}

function inOrder(a: BalanceChange, b: BalanceChange): number {
  if (a.bucket !== b.bucket) return a.bucket - b.bucket
  const [one, other] = [nameOf(a.account), nameOf(b.account)]
  return one < other ? -1 : Number(one > other)
}

function nameOf({ code, owner, ref, unit }: Account): string {
  return `${code}\n${owner}\n${ref}\n${unit}`
}
