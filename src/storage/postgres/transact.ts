import { checkBalanced, EntrySums, grantDeltas } from '../accounts.ts'
import { assert } from '../../base/assert.ts'
import { bucketOf } from '../cluster-ports.ts'
import type { LedgerEntry, LedgerTransaction } from '../ports.ts'
import { numberOf } from '../sql/executor.ts'
import { sealOf } from '../sql/seal.ts'
import { OutboxSums } from './charges.ts'
import type { Database } from './database.ts'
import { addBalances, type BalanceChange, insertEntries, insertTransaction } from './entries.ts'
import { putOutbox } from './outbox.ts'
import type { Session } from './session.ts'

const THERE = 'SELECT 1 FROM ledger_transactions WHERE id = $1'
const NEXT_NUMBER = "SELECT next_number('ledger_number') AS number"

/** Another transaction has taken the id meanwhile: everything of this one is taken back, its number too. */
class IdTaken extends Error {}

/**
 * Writes a transaction that is no usage, e.g. a top-up, and what it means for limits into the outbox. The same id is posted once.
 * `usage` is only for what makes up for entries of usage: limits know of the usage itself, and its number is none.
 *
 * @throws UnbalancedTransaction unless the entries of each unit sum to zero and fit 64 bits
 * @throws RangeError for a balance that leaves 64 bits; nothing stays
 */
export async function transact(transaction: LedgerTransaction, database: Database): Promise<'posted' | 'duplicate'> {
  checkBalanced(transaction.id, transaction.entries)
  try {
    return await database.transaction((session) => write(session, transaction))
  } catch (error) {
    if (error instanceof IdTaken) return 'duplicate'
    throw error
  }
}

async function write(session: Session, transaction: LedgerTransaction): Promise<'posted' | 'duplicate'> {
  const { id, at, kind, note, entries } = transaction
  // Asked before the number is taken, which every other transaction would have to wait for.
  if ((await session.prepared(THERE, [id])).rows.length > 0) return 'duplicate'
  const seal = kind === 'usage' ? { number: null, digest: null } : sealOf(await nextNumber(session), transaction)
  if (!(await insertTransaction(session, { id, at, kind, note, ...seal }))) throw new IdTaken()
  await insertEntries(session, [{ id, entries }])
  await addBalances(session, balanceChanges(entries))
  if (kind !== 'usage') {
    const outbox = new OutboxSums()
    for (const delta of grantDeltas(entries)) outbox.put(delta)
    await putOutbox(session, outbox.deltas())
  }
  return 'posted'
}

async function nextNumber(session: Session): Promise<number> {
  const [row] = (await session.prepared(NEXT_NUMBER, [])).rows
  assert(row !== undefined, 'a transaction got no number')
  return numberOf(row, 'number')
}

/** A tenant's accounts are in its bucket; a supplier's share is booked in that of the tenant who used it. */
function balanceChanges(entries: readonly LedgerEntry[]): readonly BalanceChange[] {
  const sums = new EntrySums()
  sums.add(entries)
  const user = entries.find(({ account }) => !isSupplier(account.code))?.account.owner
  return sums.entries().map((entry) => {
    const { code, owner } = entry.account
    return { ...entry, bucket: bucketOf(isSupplier(code) ? (user ?? owner) : owner) }
  })
}

function isSupplier(code: string): boolean {
  return code === 'supplier_cost' || code === 'supplier_payable'
}
