import { assert } from '../base/assert.ts'
import type { UsageEvent } from '../money/event.ts'
import type { GrantUnit, PaymentPart } from '../money/grant.ts'
import type { Account, AccountCode, LedgerEntry } from './ports.ts'
import type { GrantRecord } from './records.ts'

/** Amounts are stored in 64-bit integers. */
const MAX_AMOUNT = 2n ** 63n - 1n

/** Entries that do not sum to zero in some unit, or an amount outside 64 bits. Nothing was posted. */
export class UnbalancedTransaction extends Error {
  override name = 'UnbalancedTransaction'
}

/**
 * The account that holds what is left of a grant, as a credit balance. Tokens and requests are always a prepaid grant.
 * Promo money sits in the wallet liability like other wallet money; its expense was booked to `promo` when it was given.
 */
export function grantAccount(kind: GrantRecord['kind'] | undefined, unit: GrantUnit): AccountCode {
  if (unit !== 'nano_cny') return 'prepaid_grant'
  switch (kind) {
    case 'subscription':
    case 'pack':
      return 'prepaid_grant'
    case 'contract':
      return 'contract_commitment'
    case 'wallet':
    case 'promo':
    case undefined:
      return 'wallet_liability'
  }
}

/**
 * What an event posts: each part debits its grant's account (the credit line: receivable) and credits usage revenue in the
 * same unit; its cost debits supplier cost and credits supplier payable.
 */
export function entriesOf(
  event: Pick<UsageEvent, 'tenant' | 'parts' | 'provider' | 'cost_nano'>,
  kindOf: (grant: string) => GrantRecord['kind'] | undefined,
): readonly LedgerEntry[] {
  const entries: LedgerEntry[] = []
  for (const part of event.parts) {
    entries.push({ account: payingAccount(event.tenant, part, kindOf), amount: part.amount })
    entries.push({ account: { code: 'usage_revenue', owner: event.tenant, ref: '', unit: part.unit }, amount: -part.amount })
  }
  if (event.cost_nano !== 0n) {
    const supplier = { owner: event.provider, ref: '', unit: 'nano_cny' } as const
    entries.push({ account: { code: 'supplier_cost', ...supplier }, amount: event.cost_nano })
    entries.push({ account: { code: 'supplier_payable', ...supplier }, amount: -event.cost_nano })
  }
  return entries
}

function payingAccount(tenant: string, part: PaymentPart, kindOf: (grant: string) => GrantRecord['kind'] | undefined): Account {
  if (part.grant === 'credit') return { code: 'receivable', owner: tenant, ref: '', unit: part.unit }
  return { code: grantAccount(kindOf(part.grant), part.unit), owner: tenant, ref: part.grant, unit: part.unit }
}

/** Moves `amount` from the credit side of one account to that of another: debits `debit`, credits `credit`. */
function transfer(debit: Account, credit: Account, amount: bigint): readonly LedgerEntry[] {
  return [
    { account: debit, amount },
    { account: credit, amount: -amount },
  ]
}

/** What of a grant its entries need. */
export type GrantOnBooks = Pick<GrantRecord, 'id' | 'tenant' | 'kind' | 'unit'>

/**
 * What giving a grant posts, in the grant's unit: what was sold debits cash clearing, what is a present debits promo, and money that a
 * contract promises to pay debits receivable under the grant's id (the receivable without an id is the credit line).
 */
export function givingEntries(grant: GrantOnBooks, amount: bigint): readonly LedgerEntry[] {
  return transfer(givingAccount(grant), accountOf(grant), amount)
}

/**
 * What the unused rest of an expired grant posts: it becomes breakage. The rest of a contract's commitment was never owed, so it
 * leaves the receivable instead.
 */
export function lapseEntries(grant: GrantOnBooks, rest: bigint): readonly LedgerEntry[] {
  const to = isCommitment(grant) ? givingAccount(grant) : plainAccount('breakage', grant)
  return transfer(accountOf(grant), to, rest)
}

/** The same entries the other way round. */
export function reversedEntries(entries: readonly LedgerEntry[]): readonly LedgerEntry[] {
  return entries.map(({ account, amount }) => ({ account, amount: -amount }))
}

function accountOf({ kind, unit, tenant, id }: GrantOnBooks): Account {
  return { code: grantAccount(kind, unit), owner: tenant, ref: id, unit }
}

function givingAccount(grant: GrantOnBooks): Account {
  if (grant.kind === 'promo') return plainAccount('promo', grant)
  if (isCommitment(grant)) return { code: 'receivable', owner: grant.tenant, ref: grant.id, unit: grant.unit }
  return plainAccount('cash_clearing', grant)
}

function plainAccount(code: AccountCode, { tenant, unit }: GrantOnBooks): Account {
  return { code, owner: tenant, ref: '', unit }
}

function isCommitment({ kind, unit }: GrantOnBooks): boolean {
  return kind === 'contract' && unit === 'nano_cny'
}

const GRANT_ACCOUNTS: ReadonlySet<AccountCode> = new Set(['wallet_liability', 'prepaid_grant', 'contract_commitment'])

/** By how much entries change what is left of one grant, or, for `credit`, repay (positive) or use the credit line. */
export interface GrantDelta {
  readonly tenant: string
  readonly grant: string
  readonly unit: GrantUnit
  readonly delta: bigint
}

/** What entries mean for the limits: one change per grant, none of them zero. */
export function grantDeltas(entries: readonly LedgerEntry[]): readonly GrantDelta[] {
  const sums = new EntrySums()
  sums.add(entries)
  return sums.entries().flatMap(({ account: { code, owner, ref, unit }, amount }) => {
    const credit_line = code === 'receivable' && ref === '' && unit === 'nano_cny'
    if (!credit_line && !GRANT_ACCOUNTS.has(code)) return []
    return [{ tenant: owner, grant: credit_line ? 'credit' : ref, unit, delta: -amount }]
  })
}

/** Whether two lists of entries post the same. */
export function sameEntries(a: readonly LedgerEntry[], b: readonly LedgerEntry[]): boolean {
  const sums = new EntrySums()
  sums.add(a)
  sums.add(b, -1n)
  return sums.entries().length === 0
}

/** Sums entries per account, so that a batch of any size posts one line per account. Accounts that come to zero are left out. */
export class EntrySums {
  readonly #sums = new Map<string, { readonly account: Account; amount: bigint }>()

  add(entries: readonly LedgerEntry[], sign: 1n | -1n = 1n): void {
    for (const { account, amount } of entries) {
      const key = `${account.code}\n${account.owner}\n${account.ref}\n${account.unit}`
      const known = this.#sums.get(key)
      if (known === undefined) this.#sums.set(key, { account, amount: sign * amount })
      else known.amount += sign * amount
    }
  }

  entries(): readonly LedgerEntry[] {
    return [...this.#sums.values()].filter((entry) => entry.amount !== 0n)
  }
}

/** @throws UnbalancedTransaction unless the entries of each unit sum to zero and fit 64 bits */
export function checkBalanced(id: string, entries: readonly LedgerEntry[]): void {
  const sums = new Map<GrantUnit, bigint>()
  for (const { account, amount } of entries) {
    if (!fitsAmount(amount)) throw new UnbalancedTransaction(`transaction ${id}: an amount of ${account.code} does not fit 64 bits`)
    sums.set(account.unit, (sums.get(account.unit) ?? 0n) + amount)
  }
  for (const [unit, sum] of sums) {
    if (sum !== 0n) throw new UnbalancedTransaction(`transaction ${id}: its entries in ${unit} sum to ${sum}, not to zero`)
  }
}

/** Adds amounts that are stored in 64 bits; never wraps around. */
export function addAmounts(a: bigint, b: bigint): bigint {
  const sum = a + b
  assert(fitsAmount(sum), 'an amount left 64 bits')
  return sum
}

function fitsAmount(amount: bigint): boolean {
  return amount <= MAX_AMOUNT && amount >= -MAX_AMOUNT
}
