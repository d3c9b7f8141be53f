import { assert } from '../base/assert.ts'
import type { UsageEvent } from '../money/event.ts'
import type { GrantUnit, PaymentPart } from '../money/grant.ts'
import type { Account, AccountCode, GrantRecord, LedgerEntry } from './ports.ts'

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
export function entriesOf(event: UsageEvent, kindOf: (grant: string) => GrantRecord['kind'] | undefined): readonly LedgerEntry[] {
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
