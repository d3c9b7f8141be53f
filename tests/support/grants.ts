import { givingEntries } from '../../src/storage/accounts.ts'
import type { Storage } from '../../src/storage/open.ts'
import type { GrantRecord } from '../../src/storage/ports.ts'

/** A pack of tokens or requests that pays for everything, unless told otherwise; amounts in its unit. */
export type TestGrant = Pick<GrantRecord, 'id' | 'tenant' | 'unit' | 'amount'> & Partial<GrantRecord>

/** Gives a grant as the control plane does: record, ledger, limits. */
export async function giveGrant({ records, ledger, limits }: Storage, given: TestGrant): Promise<GrantRecord> {
  const record: GrantRecord = {
    kind: 'pack',
    priority: 10,
    models: null,
    weights: null,
    expires_at: null,
    created_at: Date.now(),
    ...given,
  }
  const { kind: _, amount, ...terms } = record
  await records.put({ kind: 'grant', record })
  const entries = givingEntries(record, amount)
  await ledger.transact({ id: `grant:${record.id}`, at: record.created_at, kind: 'grant', note: 'test', entries })
  await limits.credit({ grant: terms, delta: amount, seq: limits.appliedSeq(record.tenant) + 1 })
  return record
}
