import { givingEntries } from '../../src/storage/accounts.ts'
import type { Storage } from '../../src/storage/open.ts'
import type { GrantRecord } from '../../src/storage/records.ts'

/** Gives a tenant a grant as the control plane does: record, ledger, limits. A pack of tokens that pays for everything, unless told otherwise. */
export async function giveGrant(
  { storage }: { readonly storage: Storage },
  tenant: string,
  id: string,
  changes: Partial<Omit<GrantRecord, 'id' | 'tenant'>> = {},
): Promise<GrantRecord> {
  const { records, ledger, limits } = storage
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
  const { kind: _, amount, ...terms } = record
  await records.put({ kind: 'grant', record })
  const entries = givingEntries(record, amount)
  if (amount > 0n) await ledger.transact({ id: `grant:${tenant}:${id}`, at: record.created_at, kind: 'grant', note: 'test', entries })
  await limits.credit({ grant: terms, delta: amount, seq: limits.appliedSeq(tenant) + 1 })
  return record
}
