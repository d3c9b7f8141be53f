import { assert } from '../base/assert.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { GrantUnit } from '../money/grant.ts'
import { grantDeltas, type GrantDelta } from './accounts.ts'
import type { BalanceView, GrantTerms, Ledger, LedgerTransaction } from './ports.ts'
import type { GrantRecord, Records } from './records.ts'

/** Ids of ledger transactions, which make each of them happen once. */
export function givingId(grant: string): string {
  return `grant:${grant}`
}

/** A grant lapses more than once only where something came back to it after it had: each time has its number, from 1. */
export function lapseId(grant: string, number: number): string {
  return `expiry:${grant}:${number}`
}

/** `reversed` is the id of a usage event or of a ledger transaction. */
export function reversalId(reversed: string): string {
  return `reversal:${reversed}`
}

/** What limits need to know of a grant. */
export function termsOf({ kind: _, amount: __, ...terms }: GrantRecord): GrantTerms {
  return terms
}

/** The terms of the credit line, and of a grant that has no record: it pays last. */
export function plainTerms(id: string, tenant: string, unit: GrantUnit): GrantTerms {
  return { id, tenant, unit, priority: Number.MAX_SAFE_INTEGER, expires_at: null, created_at: 0, models: null, weights: null }
}

/** The terms of the grant that a change is about. */
export async function termsFor({ tenant, grant, unit }: GrantDelta, records: Pick<Records, 'grants'>): Promise<GrantTerms> {
  const record = (await records.grants(tenant)).find(({ id }) => id === grant)
  return record === undefined ? plainTerms(grant, tenant, unit) : termsOf(record)
}

/** Most times that one grant is seen to lapse. */
const MAX_LAPSES = 100

/** Every lapse of a grant so far, the first one first. */
export async function lapsesOf(grant: string, ledger: Pick<Ledger, 'transaction'>): Promise<readonly LedgerTransaction[]> {
  const lapses: LedgerTransaction[] = []
  for (;;) {
    const lapse = await ledger.transaction(lapseId(grant, lapses.length + 1))
    if (lapse === null) return lapses
    lapses.push(lapse)
    assert(lapses.length < MAX_LAPSES, `grant ${grant} has lapsed ${MAX_LAPSES} times`)
  }
}

/** What became of a grant, in its own unit: `amount = balance + used + lapsed`, unless it was taken back. */
export interface GrantFate {
  /** Paid for requests, less what came back by reversals. */
  readonly used: bigint
  /** Expired unused. */
  readonly lapsed: bigint
  /** The grant was reversed: its whole amount was taken back. */
  readonly reversed: boolean
}

/** What became of a grant of which `balance` is left; null for a wallet, which is given no amount of its own. */
export async function fateOf(grant: GrantRecord, balance: bigint, ledger: Pick<Ledger, 'transaction'>): Promise<GrantFate | null> {
  if (grant.kind === 'wallet') return null
  const given = await ledger.transaction(givingId(grant.id))
  const reversed = (await ledger.transaction(reversalId(givingId(grant.id)))) !== null
  const lapses = grant.expires_at === null ? [] : await lapsesOf(grant.id, ledger)
  const lapsed = lapses.reduce((sum, lapse) => sum + changeOf(grant.id, lapse), 0n)
  const left = given === null || reversed ? 0n : grant.amount
  return { used: left - lapsed - balance, lapsed, reversed }
}

function changeOf(grant: string, { entries }: LedgerTransaction): bigint {
  return -(grantDeltas(entries).find((change) => change.grant === grant)?.delta ?? 0n)
}

/** A grant as people read it, tenant and operator alike. Money is decimal CNY, counts are digits. */
export interface GrantView {
  readonly id: string
  readonly kind: GrantRecord['kind']
  readonly unit: 'cny' | 'tokens' | 'requests'
  /** What was given; null for a wallet, as are the other figures of what became of it. */
  readonly amount: string | null
  /** What is left, the held part included. */
  readonly balance: string
  readonly held: string
  readonly used: string | null
  readonly lapsed: string | null
  readonly reversed: boolean
  readonly priority: number
  readonly models: readonly string[] | null
  readonly weights: Readonly<Record<string, string>> | null
  readonly expires_at: string | null
  readonly expired: boolean
}

/** Shows one grant; `view` is what admission knows of its tenant. */
export async function viewGrant(
  grant: GrantRecord,
  view: BalanceView,
  ledger: Pick<Ledger, 'transaction'>,
  now_ms: number,
): Promise<GrantView> {
  const { balance = 0n, held = 0n } = view.grants.find(({ id }) => id === grant.id) ?? {}
  const { id, kind, unit, priority, models, weights, expires_at } = grant
  const fate = await fateOf(grant, balance, ledger)
  return {
    id,
    kind,
    unit: unitName(unit),
    amount: fate === null ? null : amountText(unit, grant.amount),
    balance: amountText(unit, balance),
    held: amountText(unit, held),
    used: fate === null ? null : amountText(unit, fate.used),
    lapsed: fate === null ? null : amountText(unit, fate.lapsed),
    reversed: fate?.reversed ?? false,
    priority,
    models,
    weights,
    expires_at: expires_at === null ? null : new Date(expires_at).toISOString(),
    expired: isExpired(grant, now_ms),
  }
}

/** Grants that expired longer ago, with nothing left, are history. */
const SHOWN_AFTER_EXPIRY_MS = 31 * 86_400_000

/** What a tenant may spend from, in the order in which it is spent, with what expired in the last 31 days. */
export async function balanceGrants(
  grants: readonly GrantRecord[],
  view: BalanceView,
  ledger: Pick<Ledger, 'transaction'>,
  now_ms: number,
): Promise<readonly GrantView[]> {
  const left = new Set(view.grants.filter(({ balance, held }) => balance !== 0n || held !== 0n).map(({ id }) => id))
  const shown = grants.filter((grant) => left.has(grant.id) || !isExpired(grant, now_ms - SHOWN_AFTER_EXPIRY_MS)).toSorted(burnOrder)
  const views: GrantView[] = []
  for (const grant of shown) views.push(await viewGrant(grant, view, ledger, now_ms))
  return views
}

/** Priority, then soonest expiry, then age, then id. */
function burnOrder(a: GrantTerms, b: GrantTerms): number {
  const expiry = ({ expires_at }: GrantTerms): number => expires_at ?? Number.MAX_VALUE
  return a.priority - b.priority || expiry(a) - expiry(b) || a.created_at - b.created_at || (a.id < b.id ? -1 : 1)
}

function isExpired({ expires_at }: Pick<GrantTerms, 'expires_at'>, now_ms: number): boolean {
  return expires_at !== null && expires_at <= now_ms
}

/** A unit as people name it. */
export function unitName(unit: GrantUnit): GrantView['unit'] {
  return unit === 'nano_cny' ? 'cny' : unit
}

/** An amount as people read it: CNY or a count. */
export function amountText(unit: GrantUnit, amount: bigint): string {
  return unit === 'nano_cny' ? cnyFromNano(amount) : String(amount)
}
