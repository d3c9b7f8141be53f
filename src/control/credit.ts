import * as z from 'zod'
import { cnyFromNano } from '../money/amount.ts'
import { walletOf } from '../money/grant.ts'
import { givingEntries } from '../storage/accounts.ts'
import { balanceGrants } from '../storage/grants.ts'
import type { LedgerTransaction } from '../storage/ports.ts'
import type { GrantRecord } from '../storage/records.ts'
import { applyTransaction, type ApplyDeps } from './apply.ts'
import type { ControlDeps } from './deps.ts'
import { CnyAmount, parse, TransactionName } from './problem.ts'
import { tenantOrThrow } from './find.ts'

/** Every grant burns before the wallet unless it was given a larger number. */
const WALLET_PRIORITY = 100

const NewCredit = z.strictObject({
  id: TransactionName,
  amount_cny: CnyAmount.refine((nano) => nano > 0n, 'must be above zero'),
  kind: z.enum(['top_up', 'promo']).default('top_up'),
  note: z.string().trim().max(500).default(''),
})

type CreditDeps = ApplyDeps & Pick<ControlDeps, 'records' | 'turns' | 'clock'>

interface Credit {
  readonly id: string
  readonly amount_nano: bigint
  readonly kind: 'top_up' | 'promo'
  readonly note: string
}

/**
 * Adds money to a tenant's wallet, once per `id`.
 *
 * @param body `{id, amount_cny, kind?, note?}`
 * @returns `state` is `posted`, or `duplicate` when the same credit had been posted before (nothing has changed)
 * @throws AdminProblem `invalid_request`, `not_found`, `conflict` when this id was used for another amount or kind
 */
export async function creditTenant(tenant: string, body: unknown, deps: CreditDeps): Promise<object> {
  const { id, amount_cny: amount_nano, kind, note } = parse(NewCredit, body)
  await tenantOrThrow(tenant, deps)
  const state = await creditWallet(tenant, { id, amount_nano, kind, note }, deps)
  return { object: 'credit', id, tenant, kind, state, amount_cny: cnyFromNano(amount_nano), transaction: creditId(tenant, id) }
}

/** The same with a validated amount. */
export function creditWallet(tenant: string, credit: Credit, deps: CreditDeps): Promise<'posted' | 'duplicate'> {
  return deps.turns.run(tenant, async () => {
    const wallet = await ensureWallet(tenant, deps)
    return await applyTransaction(creditTransaction(wallet, credit, deps.clock.now_ms()), deps)
  })
}

/** A tenant's wallet, made if it is missing, known to the limits either way. */
export async function ensureWallet(tenant: string, deps: Pick<CreditDeps, 'records' | 'credits' | 'clock'>): Promise<GrantRecord> {
  const id = walletOf(tenant)
  const known = (await deps.records.grants(tenant)).find((grant) => grant.id === id)
  if (known !== undefined) return known
  const record: GrantRecord = {
    id,
    tenant,
    kind: 'wallet',
    unit: 'nano_cny',
    amount: 0n,
    priority: WALLET_PRIORITY,
    models: null,
    weights: null,
    expires_at: null,
    created_at: deps.clock.now_ms(),
  }
  await deps.records.put({ kind: 'grant', record })
  await deps.credits.changeTerms(record)
  return record
}

function creditId(tenant: string, id: string): string {
  return `credit:${tenant}:${id}`
}

function creditTransaction(wallet: GrantRecord, { id, amount_nano, kind, note }: Credit, at: number): LedgerTransaction {
  const given = kind === 'promo' ? { ...wallet, kind } : wallet
  return { id: creditId(wallet.tenant, id), at, kind, note, entries: givingEntries(given, amount_nano) }
}

/** What a tenant may spend now: money and quota as admission sees them. @throws AdminProblem `not_found` */
export async function balanceOf(tenant: string, deps: ControlDeps): Promise<object> {
  const { credit_line_nano } = await tenantOrThrow(tenant, deps)
  const view = await deps.limits.balance(tenant)
  return {
    object: 'balance',
    tenant,
    available_cny: cnyFromNano(view.available_nano),
    held_cny: cnyFromNano(view.held_nano),
    credit_line_cny: cnyFromNano(credit_line_nano),
    open_requests: view.open_holds,
    grants: await balanceGrants(await deps.records.grants(tenant), view, deps.ledger, deps.clock.now_ms()),
  }
}
