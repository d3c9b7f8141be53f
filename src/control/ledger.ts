import * as z from 'zod'
import type { GrantUnit } from '../money/grant.ts'
import { amountText, unitName } from '../storage/grants.ts'
import { BadCursor, type LedgerEntry, type LedgerTransaction, type TransactionPage } from '../storage/ports.ts'
import type { ControlDeps } from './deps.ts'
import { DEFAULT_TIME_ZONE, tenantOrThrow } from './find.ts'
import { Instant, instantOf } from './instants.ts'
import { AdminProblem, isoOf, parse } from './problem.ts'

const PAGE_ACCOUNTS = 1000
const MAX_PAGE_ACCOUNTS = 10_000
const PAGE_TRANSACTIONS = 50
const MAX_PAGE_TRANSACTIONS = 200

const BalancesQuery = z.strictObject({
  tenant: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_ACCOUNTS).default(PAGE_ACCOUNTS),
  cursor: z.string().max(1024).optional(),
})

/**
 * Balances of the ledger's accounts, each on its side (debit or credit), posted up to now; with a tenant, of the tenant's accounts.
 * `totals` are of everything that was asked for, per unit: over all accounts both sides are equal.
 *
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function ledgerBalances(query: unknown, deps: ControlDeps): Promise<object> {
  const { tenant, limit, cursor } = parse(BalancesQuery, query)
  if (tenant !== undefined) await tenantOrThrow(tenant, deps)
  await deps.ledger.post()
  const all = (await deps.ledger.balances()).filter(({ account, amount }) => amount !== 0n && isOwnedBy(account, tenant))
  const keyed = all.map((entry) => ({ key: keyOf(entry), entry })).toSorted((a, b) => (a.key < b.key ? -1 : 1))
  const rest = keyed.filter(({ key }) => cursor === undefined || key > cursor)
  const page = rest.slice(0, limit)
  return {
    object: 'list',
    data: page.map(({ entry }) => entryView(entry)),
    next_cursor: rest.length > limit ? (page.at(-1)?.key ?? null) : null,
    totals: totalsOf(all),
  }
}

/** A supplier's accounts have the provider for their owner, which may be called like a tenant. */
function isOwnedBy({ code, owner }: LedgerEntry['account'], tenant: string | undefined): boolean {
  return tenant === undefined || (owner === tenant && code !== 'supplier_cost' && code !== 'supplier_payable')
}

function keyOf({ account: { code, owner, ref, unit } }: LedgerEntry): string {
  return [owner, code, ref, unit].join(' ')
}

function totalsOf(entries: readonly LedgerEntry[]): readonly object[] {
  const sums = new Map<GrantUnit, { debit: bigint; credit: bigint }>()
  for (const { account, amount } of entries) {
    const sum = sums.get(account.unit) ?? { debit: 0n, credit: 0n }
    sums.set(account.unit, sum)
    if (amount > 0n) sum.debit += amount
    else sum.credit -= amount
  }
  return [...sums].map(([unit, { debit, credit }]) => ({
    unit: unitName(unit),
    debit: amountText(unit, debit),
    credit: amountText(unit, credit),
  }))
}

function entryView({ account: { code, owner, ref, unit }, amount }: LedgerEntry): object {
  return {
    account: code,
    owner,
    ref,
    unit: unitName(unit),
    debit: amount > 0n ? amountText(unit, amount) : null,
    credit: amount > 0n ? null : amountText(unit, -amount),
  }
}

const TransactionsQuery = z.strictObject({
  tenant: z.string().optional(),
  kind: z.enum(['usage', 'top_up', 'promo', 'grant', 'expiry', 'reversal', 'adjustment']).optional(),
  from: Instant.optional(),
  to: Instant.optional(),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_TRANSACTIONS).default(PAGE_TRANSACTIONS),
  cursor: z.string().max(512).optional(),
})

/** A page of the ledger's transactions with their entries, newest first. A date in `to` is included whole. @throws AdminProblem `invalid_request`, `not_found` */
export async function listTransactions(query: unknown, deps: ControlDeps): Promise<object> {
  const { tenant, from, to, ...rest } = parse(TransactionsQuery, query)
  const time_zone = tenant === undefined ? DEFAULT_TIME_ZONE : (await tenantOrThrow(tenant, deps)).time_zone
  await deps.ledger.post()
  const { kind, limit, cursor } = rest
  const page = await pageOrProblem(() =>
    deps.ledger.transactions({
      limit,
      ...(tenant === undefined ? {} : { tenant }),
      ...(kind === undefined ? {} : { kind }),
      ...(cursor === undefined ? {} : { cursor }),
      ...(from === undefined ? {} : { from_ms: instantOf(from, time_zone, 'start_ms') }),
      ...(to === undefined ? {} : { to_ms: instantOf(to, time_zone, 'end_ms') }),
    }),
  )
  return { object: 'list', data: page.transactions.map(transactionView), next_cursor: page.next_cursor }
}

async function pageOrProblem(ask: () => Promise<TransactionPage>): Promise<TransactionPage> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof BadCursor) throw new AdminProblem('invalid_request', `cursor: ${error.message}`, 'cursor')
    throw error
  }
}

function transactionView({ id, at, kind, note, entries }: LedgerTransaction): object {
  return { object: 'transaction', id, at: isoOf(at), kind, note, entries: entries.map(entryView) }
}
