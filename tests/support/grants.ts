import { givingEntries } from '../../src/storage/accounts.ts'
import type { Storage } from '../../src/storage/open.ts'
import type { GrantRecord } from '../../src/storage/records.ts'

/** Gives a tenant a grant as the control plane does: record, ledger, limits. A pack of tokens that pays for everything, unless told otherwise. */
export async function giveGrant(
  { storage }: { readonly storage: Pick<Storage, 'records' | 'ledger' | 'credits'> },
  tenant: string,
  id: string,
  changes: Partial<Omit<GrantRecord, 'id' | 'tenant'>> = {},
): Promise<GrantRecord> {
  const { records, ledger, credits } = storage
  const record: GrantRecord = {
    id,
    tenant,
    kind: 'pack',
    unit: 'tokens',
    amount: 0n,
    priority: 10,
    models: null,
    weights: null,
    expires_at: null,
    created_at: Date.now(),
    ...changes,
  }
  const { amount } = record
  await records.put({ kind: 'grant', record })
  const entries = givingEntries(record, amount)
  const transaction = { id: `grant:${tenant}:${id}`, at: record.created_at, kind: 'grant', note: 'test', entries } as const
  if (amount === 0n) await credits.changeTerms(record)
  else {
    await ledger.transact(transaction)
    await credits.deliver(transaction)
  }
  return record
}
