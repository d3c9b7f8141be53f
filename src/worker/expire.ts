import type { Clock } from '../base/clock.ts'
import { lapseEntries } from '../storage/accounts.ts'
import { lapseId, lapsesOf } from '../storage/grants.ts'
import type { Ledger, LedgerTransaction, Limits, Turns } from '../storage/ports.ts'
import type { ExpiredGrantsSlice, GrantRecord, Records } from '../storage/records.ts'

/** What the worker needs that lets grants lapse. */
export interface ExpireDeps {
  readonly records: Pick<Records, 'expiredGrants'>
  readonly ledger: Pick<Ledger, 'transaction'>
  readonly limits: Pick<Limits, 'balance'>
  /** Of tenants that are owed something, limits say what was left before: their grants lapse later. */
  readonly owes: (tenant: string) => Promise<boolean>
  readonly clock: Clock
  /** A tenant's grants change in its turn. */
  readonly turns: Turns
  /** Posts a transaction once, and tells the limits. */
  readonly apply: (transaction: LedgerTransaction) => Promise<unknown>
  /** Hears of a grant that could not lapse; the others do, and it is tried again. */
  readonly on_trouble: (error: unknown, grant: string) => void
}

/** Grants looked at in one query: some milliseconds of the database. */
const SLICE_GRANTS = 500

/**
 * Lets the unused rest of grants lapse that expired since `from_ms`: what is left of each, once nothing of it is held any more. The
 * ledger has it first, so that a kill at any moment loses nothing and does nothing twice; what is still held lapses at a later call.
 *
 * @returns how many grants lapsed
 */
export async function expireGrants(from_ms: number, deps: ExpireDeps, slice_grants = SLICE_GRANTS): Promise<number> {
  const to_ms = deps.clock.now_ms()
  let lapsed = 0
  let after: ExpiredGrantsSlice['last'] = null
  do {
    const slice: ExpiredGrantsSlice = await deps.records.expiredGrants({ from_ms, to_ms, after, limit: slice_grants })
    for (const grant of slice.grants) if (await tryOne(grant, deps)) lapsed += 1
    after = slice.last
  } while (after !== null)
  return lapsed
}

async function tryOne(grant: GrantRecord, deps: ExpireDeps): Promise<boolean> {
  try {
    return await deps.turns.run(grant.tenant, () => expireOne(grant, deps))
  } catch (error) {
    deps.on_trouble(error, grant.id)
    return false
  }
}

async function expireOne(grant: GrantRecord, deps: ExpireDeps): Promise<boolean> {
  if (await deps.owes(grant.tenant)) return false
  const now_ms = deps.clock.now_ms()
  const view = (await deps.limits.balance(grant.tenant)).grants.find(({ id }) => id === grant.id)
  // Its expiry may have been moved after the slice was read.
  if (view === undefined || view.expires_at === null || view.expires_at > now_ms) return false
  if (view.held !== 0n || view.balance <= 0n) return false
  const number = (await lapsesOf(grant.id, deps.ledger)).length + 1
  const entries = lapseEntries(grant, view.balance)
  await deps.apply({ id: lapseId(grant.id, number), at: now_ms, kind: 'expiry', note: 'unused', entries })
  return true
}
