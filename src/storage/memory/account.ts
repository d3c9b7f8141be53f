import { assert } from '../../base/assert.ts'
import type { PaymentPart } from '../../money/grant.ts'
import type { BalanceView, GrantTerms } from '../ports.ts'

/** Part name of a tenant's credit line, beside grant ids. */
export const CREDIT = 'credit'

/** What a reservation must cover. Totals, so that an extension asks with its new totals and names what it has already. */
export interface Need {
  readonly tokens: number
  readonly amount_nano: bigint
  /** Smallest useful amount; equal to `amount_nano` when no cap is possible. */
  readonly minimum_nano: bigint
  readonly credit_line_nano: bigint
  readonly now_ms: number
  /** Parts reserved before, empty for a new hold. */
  readonly already: readonly PaymentPart[]
}

/** A reservation that would fit. Nothing has changed yet; `reserve` makes it so. */
export interface Plan {
  readonly amount_nano: bigint
  readonly added: readonly PaymentPart[]
}
export interface Shortage {
  readonly available_nano: bigint
}

interface GrantState {
  terms: GrantTerms
  balance: bigint
  held: bigint
}

/** Money and quota of one tenant. No method waits, so each is atomic. */
export class Account {
  applied_seq = 0
  #grants: GrantState[] = []
  #credit_used = 0n
  #credit_held = 0n
  #held_nano = 0n
  #open_holds = 0

  /**
   * Walks the grants in burn order (SEMANTICS 10). A `requests` grant pays the whole; `tokens` grants that do not cover all
   * tokens reserve what they have while money covers the whole amount; what grants lack comes from the credit line.
   */
  plan(need: Need): Plan | Shortage {
    const walk = startWalk(need)
    const covered = walk.by_request || walk.tokens_missing === 0n || need.amount_nano <= walk.money
    if (covered) return { amount_nano: need.amount_nano, added: [] }
    const affordable = this.#affordable(need)
    const target = need.amount_nano < affordable ? need.amount_nano : affordable
    for (const grant of this.#grants) {
      if (isExpired(grant, need.now_ms)) continue
      const free = grant.balance - grant.held
      if (free <= 0n) continue
      if (grant.terms.unit === 'requests') {
        if (need.already.length > 0) continue
        return { amount_nano: need.amount_nano, added: [{ grant: grant.terms.id, unit: 'requests', amount: 1n }] }
      }
      if (grant.terms.unit === 'tokens') takeTokens(walk, grant.terms.id, free)
      else takeMoney(walk, grant.terms.id, free, target)
      if (walk.tokens_missing === 0n) return { amount_nano: need.amount_nano, added: walk.added }
      if (walk.money === need.amount_nano) break
    }
    if (target < need.minimum_nano) return { available_nano: affordable - walk.money_before }
    if (target > walk.money) walk.added.push({ grant: CREDIT, unit: 'nano_cny', amount: target - walk.money })
    return { amount_nano: target, added: walk.added }
  }

  /** Moves planned parts into held. */
  reserve(parts: readonly PaymentPart[]): void {
    for (const part of parts) this.#hold(part, part.amount)
  }

  /** Gives reserved parts back. */
  free(parts: readonly PaymentPart[]): void {
    for (const part of parts) this.#hold(part, -part.amount)
  }

  /** Takes parts from the balances, verbatim. A grant that is not known here goes below zero rather than being forgotten. */
  charge(parts: readonly PaymentPart[]): void {
    for (const part of parts) this.#spend(part, part.amount)
  }

  /** Undoes {@link charge}. */
  refund(parts: readonly PaymentPart[]): void {
    for (const part of parts) this.#spend(part, -part.amount)
  }

  /** Adds to a grant's balance, or takes away. For {@link CREDIT} a positive `delta` repays what the credit line has paid. */
  credit(terms: GrantTerms, delta: bigint): void {
    if (terms.id === CREDIT) {
      this.#credit_used -= delta
      return
    }
    const grant = this.#grant(terms.id)
    if (grant === undefined) this.#insert({ terms, balance: delta, held: 0n })
    else {
      grant.balance += delta
      this.#grants = this.#grants.filter((other) => other !== grant)
      this.#insert({ ...grant, terms })
    }
  }

  opened(): void {
    this.#open_holds += 1
  }

  closed(): void {
    this.#open_holds -= 1
    assert(this.#open_holds >= 0, 'more holds closed than opened')
  }

  /** Money as the tenant owns it: without the credit line, whose size only a hold knows; what the line has paid counts as owed. */
  view(now_ms: number): BalanceView {
    return {
      available_nano: this.#ownMoney(now_ms),
      held_nano: this.#held_nano,
      open_holds: this.#open_holds,
      grants: this.#grants.map((grant) => ({ ...grant.terms, balance: grant.balance, held: grant.held })),
    }
  }

  get held_nano(): bigint {
    return this.#held_nano
  }

  /** How much money a hold may have in total: what it holds already plus what is free, the credit line included. */
  #affordable(need: Need): bigint {
    const free = this.#ownMoney(need.now_ms) + need.credit_line_nano
    return (free > 0n ? free : 0n) + moneyOf(need.already)
  }

  #ownMoney(now_ms: number): bigint {
    let total = -this.#credit_used - this.#credit_held
    for (const grant of this.#grants) {
      if (grant.terms.unit !== 'nano_cny') continue
      const free = grant.balance - grant.held
      // An expired grant pays nothing more, but what it owes is still owed.
      if (free < 0n || !isExpired(grant, now_ms)) total += free
    }
    return total
  }

  #hold(part: PaymentPart, delta: bigint): void {
    if (part.unit === 'nano_cny') this.#held_nano += delta
    assert(this.#held_nano >= 0n, 'held money below zero')
    if (part.grant === CREDIT) {
      this.#credit_held += delta
      assert(this.#credit_held >= 0n, 'held credit below zero')
      return
    }
    const grant = this.#grant(part.grant)
    assert(grant !== undefined, 'a reserved grant is missing')
    grant.held += delta
    assert(grant.held >= 0n, 'held below zero')
  }

  #spend(part: PaymentPart, amount: bigint): void {
    if (part.grant === CREDIT) {
      this.#credit_used += amount
      return
    }
    const grant = this.#grant(part.grant)
    if (grant !== undefined) grant.balance -= amount
    else this.#insert({ terms: unknownTerms(part), balance: -amount, held: 0n })
  }

  #grant(id: string): GrantState | undefined {
    return this.#grants.find((grant) => grant.terms.id === id)
  }

  #insert(grant: GrantState): void {
    this.#grants.push(grant)
    this.#grants.sort((a, b) => burnOrder(a.terms, b.terms))
  }
}

/** Priority, then soonest expiry, then age, then id so that equals have one order. */
function burnOrder(a: GrantTerms, b: GrantTerms): number {
  if (a.priority !== b.priority) return a.priority - b.priority
  const [a_expires, b_expires] = [a.expires_at ?? Number.MAX_VALUE, b.expires_at ?? Number.MAX_VALUE]
  if (a_expires !== b_expires) return a_expires - b_expires
  if (a.created_at !== b.created_at) return a.created_at - b.created_at
  return a.id < b.id ? -1 : 1
}

function isExpired(grant: GrantState, now_ms: number): boolean {
  return grant.terms.expires_at !== null && grant.terms.expires_at <= now_ms
}

function unknownTerms(part: PaymentPart): GrantTerms {
  return {
    id: part.grant,
    tenant: '',
    unit: part.unit,
    priority: Number.MAX_SAFE_INTEGER,
    expires_at: null,
    created_at: 0,
    models: null,
    weights: null,
  }
}

interface Walk {
  readonly by_request: boolean
  readonly money_before: bigint
  money: bigint
  tokens_missing: bigint
  readonly added: PaymentPart[]
}

function startWalk(need: Need): Walk {
  const money = moneyOf(need.already)
  const tokens = sumOf(need.already, 'tokens')
  const missing = BigInt(need.tokens) - tokens
  // A request without tokens is never covered by a token pack: -1 keeps it from looking covered.
  const tokens_missing = need.tokens === 0 ? -1n : missing > 0n ? missing : 0n
  return { by_request: need.already.some((part) => part.unit === 'requests'), money_before: money, money, tokens_missing, added: [] }
}

function takeTokens(walk: Walk, grant: string, free: bigint): void {
  if (walk.tokens_missing <= 0n) return
  const amount = free < walk.tokens_missing ? free : walk.tokens_missing
  walk.added.push({ grant, unit: 'tokens', amount })
  walk.tokens_missing -= amount
}

function takeMoney(walk: Walk, grant: string, free: bigint, target: bigint): void {
  const wanted = target - walk.money
  if (wanted <= 0n) return
  const amount = free < wanted ? free : wanted
  walk.added.push({ grant, unit: 'nano_cny', amount })
  walk.money += amount
}

function moneyOf(parts: readonly PaymentPart[]): bigint {
  return sumOf(parts, 'nano_cny')
}

function sumOf(parts: readonly PaymentPart[], unit: PaymentPart['unit']): bigint {
  let sum = 0n
  for (const part of parts) if (part.unit === unit) sum += part.amount
  return sum
}
