import * as z from 'zod'
import { cnyFromNano } from '../money/amount.ts'
import { walletOf } from '../money/grant.ts'
import type { GrantRecord, LedgerTransaction } from '../storage/ports.ts'
import type { ControlDeps, CreditableLimits } from './deps.ts'
import { CnyAmount, isoOf, parse } from './problem.ts'
import { tenantOrThrow } from './find.ts'

/** Packs and promotions burn before the wallet. */
const WALLET_PRIORITY = 100
/** A credit is numbered by what was applied before it; this often the number is read again when another credit came first. */
const MAX_TRIES = 10
/** Most credits whose outcome is unknown that are remembered. */
const MAX_UNCERTAIN = 10_000

const NewCredit = z.strictObject({
  id: z.string().regex(/^[\w.:-]{1,128}$/, 'use 1 to 128 letters, digits, "_", ".", ":" or "-"; the same id again changes nothing'),
  amount_cny: CnyAmount.refine((nano) => nano > 0n, 'must be above zero'),
  kind: z.enum(['top_up', 'promo']).default('top_up'),
  note: z.string().trim().max(500).default(''),
})

type CreditDeps = Pick<ControlDeps, 'records' | 'ledger' | 'clock'> & { readonly limits: CreditableLimits }

/** Credits that failed with an unknown outcome, by limits: if the ledger has one when it is tried again, the limits still lack it. */
const UNCERTAIN = new WeakMap<CreditableLimits, Set<string>>()

/**
 * Adds money to a tenant's wallet, once per `id`. The ledger is the truth: it is written first, and what limits would miss after a crash
 * in between is there again when they are rebuilt at the next start.
 *
 * @param body `{id, amount_cny, kind?, note?}`
 * @returns `state` is `posted`, or `duplicate` when this id had been posted before (nothing has changed, whatever the amount now says)
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function creditTenant(tenant: string, body: unknown, deps: CreditDeps): Promise<object> {
  const { id, amount_cny: amount_nano, kind, note } = parse(NewCredit, body)
  await tenantOrThrow(tenant, deps)
  const state = await creditWallet(tenant, { id, amount_nano, kind, note }, deps)
  return { object: 'credit', id, tenant, kind, state, amount_cny: cnyFromNano(amount_nano) }
}

/** The same with a validated amount. */
export async function creditWallet(
  tenant: string,
  credit: { readonly id: string; readonly amount_nano: bigint; readonly kind: 'top_up' | 'promo'; readonly note: string },
  deps: CreditDeps,
): Promise<'posted' | 'duplicate'> {
  const wallet = await ensureWallet(tenant, deps)
  const transaction = creditTransaction(tenant, wallet.id, credit, deps.clock.now_ms())
  const uncertain = uncertainOf(deps.limits)
  let state: 'posted' | 'duplicate'
  try {
    state = await deps.ledger.transact(transaction)
  } catch (error) {
    if (uncertain.size < MAX_UNCERTAIN) uncertain.add(transaction.id)
    throw error
  }
  const missed = uncertain.delete(transaction.id)
  if (state === 'posted' || missed) await applyCredit(wallet, credit.amount_nano, deps.limits)
  return state
}

/** A tenant's wallet, made if it is missing, known to the limits either way. */
export async function ensureWallet(tenant: string, deps: Pick<CreditDeps, 'records' | 'limits' | 'clock'>): Promise<GrantRecord> {
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
  await applyCredit(record, 0n, deps.limits)
  return record
}

function creditTransaction(
  tenant: string,
  wallet: string,
  { id, amount_nano, kind, note }: { id: string; amount_nano: bigint; kind: 'top_up' | 'promo'; note: string },
  at: number,
): LedgerTransaction {
  const from = kind === 'promo' ? 'promo' : 'cash_clearing'
  return {
    id: `credit:${tenant}:${id}`,
    at,
    kind,
    note,
    entries: [
      { account: { code: from, owner: tenant, ref: '', unit: 'nano_cny' }, amount: amount_nano },
      { account: { code: 'wallet_liability', owner: tenant, ref: wallet, unit: 'nano_cny' }, amount: -amount_nano },
    ],
  }
}

async function applyCredit({ kind: _, amount: __, ...terms }: GrantRecord, delta: bigint, limits: CreditableLimits): Promise<void> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const seq = limits.appliedSeq(terms.tenant) + 1
    if ((await limits.credit({ grant: terms, delta, seq })) === 'applied') return
  }
  throw new Error(`a credit of ${terms.id} is in the ledger but was not applied to the limits; restart to rebuild them`)
}

function uncertainOf(limits: CreditableLimits): Set<string> {
  const known = UNCERTAIN.get(limits)
  if (known !== undefined) return known
  const fresh = new Set<string>()
  UNCERTAIN.set(limits, fresh)
  return fresh
}

/** What a tenant may spend now: money and quota as admission sees them. @throws AdminProblem `not_found` */
export async function balanceOf(tenant: string, deps: ControlDeps): Promise<object> {
  const { credit_line_nano } = await tenantOrThrow(tenant, deps)
  const { available_nano, held_nano, open_holds, grants } = await deps.limits.balance(tenant)
  const plain = (unit: string, amount: bigint): string => (unit === 'nano_cny' ? cnyFromNano(amount) : String(amount))
  return {
    object: 'balance',
    tenant,
    available_cny: cnyFromNano(available_nano),
    held_cny: cnyFromNano(held_nano),
    credit_line_cny: cnyFromNano(credit_line_nano),
    open_requests: open_holds,
    grants: grants.map(({ id, unit, priority, expires_at, balance, held }) => ({
      id,
      unit: unit === 'nano_cny' ? 'cny' : unit,
      priority,
      expires_at: isoOf(expires_at),
      balance: plain(unit, balance),
      held: plain(unit, held),
    })),
  }
}
