import { countMeters, MeteredSettings, type MeterOptions } from '../meters.ts'
import type { GrantTerms, Ledger, LedgerEntry } from '../ports.ts'
import type { GrantRecord, Records } from '../records.ts'
import { CREDIT } from './account.ts'
import type { MemoryLimits } from './limits.ts'

/**
 * Fills empty limits from what is durable: every grant's remaining balance and the credit line's use from the ledger's accounts,
 * budgets and current windows from the events, blocks from revoked keys and suspended tenants. Post the journal first.
 * Rates and concurrency start empty. A `5h` window began when the receipt of its latest event says.
 *
 * @returns the sequence number of the last credit applied, per tenant; the next credit of a tenant is one more
 */
export async function rebuildLimits(
  limits: MemoryLimits,
  records: Pick<Records, 'load'>,
  ledger: Ledger,
  options: MeterOptions,
): Promise<ReadonlyMap<string, number>> {
  const revoked: string[] = []
  const metered = new MeteredSettings()
  const { tenants, projects, grants } = await records.load((keys) => {
    for (const { id, tenant, limits: own, revoked_at } of keys) {
      if (revoked_at !== null) revoked.push(id)
      metered.add(tenant, 'key', id, own)
    }
  })
  for (const { id, tenant, limits: own } of projects) metered.add(tenant, 'project', id, own)
  for (const { id, limits: own } of tenants) metered.add(id, 'tenant', id, own)
  const seqs = await rebuildBalances(limits, grants, await ledger.balances())
  for (const tenant of tenants) if (tenant.status === 'suspended') await limits.block('tenant', tenant.id, true)
  for (const id of revoked) await limits.block('key', id, true)
  for (const tenant of tenants) {
    const settings = metered.of(tenant.id)
    if (settings.length > 0)
      await countMeters((rule, used, end_ms) => limits.restore(rule, used, end_ms), ledger, tenant, settings, options)
  }
  return seqs
}

async function rebuildBalances(
  limits: MemoryLimits,
  grants: readonly GrantRecord[],
  balances: readonly LedgerEntry[],
): Promise<ReadonlyMap<string, number>> {
  const seqs = new Map<string, number>()
  const left = leftOfGrants(balances)
  const credit = async (grant: GrantTerms, delta: bigint): Promise<void> => {
    const seq = limits.appliedSeq(grant.tenant) + 1
    const state = await limits.credit({ grant, delta, seq })
    if (state !== 'applied') throw new Error(`the balance of grant ${grant.id} was not applied: ${state}`)
    seqs.set(grant.tenant, seq)
  }
  for (const { kind: _, amount: __, ...terms } of grants) {
    await credit(terms, left.get(grantKey(terms.tenant, terms.id, terms.unit)) ?? 0n)
  }
  for (const { account, amount } of balances) {
    if (account.code !== 'receivable' || account.unit !== 'nano_cny' || account.ref !== '' || amount === 0n) continue
    const unrestricted = { priority: 0, expires_at: null, created_at: 0, models: null, weights: null }
    const terms = { id: CREDIT, tenant: account.owner, unit: account.unit, ...unrestricted }
    await credit(terms, -amount)
  }
  return seqs
}

/** What is left of a grant is the credit balance of the accounts that carry its id. */
function leftOfGrants(balances: readonly LedgerEntry[]): ReadonlyMap<string, bigint> {
  const left = new Map<string, bigint>()
  for (const { account, amount } of balances) {
    const { code, owner, ref, unit } = account
    if (code !== 'wallet_liability' && code !== 'prepaid_grant' && code !== 'contract_commitment') continue
    const key = grantKey(owner, ref, unit)
    left.set(key, (left.get(key) ?? 0n) - amount)
  }
  return left
}

function grantKey(tenant: string, grant: string, unit: string): string {
  return `${tenant}\n${grant}\n${unit}`
}
