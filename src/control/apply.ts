import { sameEntries } from '../storage/accounts.ts'
import type { LedgerTransaction } from '../storage/ports.ts'
import type { ControlDeps } from './deps.ts'
import { AdminProblem } from './problem.ts'

export type ApplyDeps = Pick<ControlDeps, 'ledger' | 'credits'>

/**
 * Posts a transaction that is no usage, once per id, and tells the limits what it means for the tenant's grants. The ledger is the
 * truth: it is written first. Call it in the tenant's turn.
 *
 * @returns `duplicate` when the same transaction had been posted before; nothing has changed
 * @throws AdminProblem `conflict` when its id was used for another transaction; notes are not compared
 */
export async function applyTransaction(transaction: LedgerTransaction, { ledger, credits }: ApplyDeps): Promise<'posted' | 'duplicate'> {
  const { id } = transaction
  if ((await ledger.transaction(id)) === null) {
    const state = await ledger.transact(transaction).catch((error: unknown) => {
      // It may have been written all the same.
      credits.doubt(transaction)
      throw error
    })
    if (state === 'posted') {
      await credits.deliver(transaction)
      return 'posted'
    }
  }
  // Posted before; the limits lack it only if that try seemed to have failed.
  await credits.makeUp(id)
  refuseOther(await ledger.transaction(id), transaction)
  return 'duplicate'
}

function refuseOther(known: LedgerTransaction | null, wanted: LedgerTransaction): void {
  if (known === null) throw new Error(`the ledger has and has not the transaction ${wanted.id}`)
  if (known.kind === wanted.kind && sameEntries(known.entries, wanted.entries)) return
  throw new AdminProblem('conflict', `${wanted.id} was posted before with other contents; nothing has changed`, 'id')
}
