import { assert } from '../../base/assert.ts'
import { minBig } from '../../money/amount.ts'
import {
  type HeldPart,
  MAX_GRANT_TOKENS,
  moneyOfParts,
  type PaymentPart,
  tokensCovered,
  tokensOfParts,
  unitsFor,
  WEIGHT_ONE_MICRO,
  weightMicroOf,
} from '../../money/grant.ts'
import type { BalanceView, GrantTerms } from '../ports.ts'

/** Part name of a tenant's credit line, beside grant ids. */
export const CREDIT = 'credit'

/** What a reservation must cover. Totals, so that an extension asks with its new totals and names what it has already. */
export interface Need {
  readonly model: string
  /** Tokens that `tokens` grants must cover to pay for all of it. */
  readonly grant_tokens: number
  /** Smallest useful coverage by `tokens` grants; equal to `grant_tokens` when no cap is possible. */
  readonly minimum_tokens: number
  readonly amount_nano: bigint
  /** Smallest useful amount; equal to `amount_nano` when no cap is possible. */
  readonly minimum_nano: bigint
  readonly credit_line_nano: bigint
  readonly now_ms: number
  /** Parts reserved before, empty for a new hold. */
  readonly already: readonly HeldPart[]
}

/** A reservation that would fit. Nothing has changed yet; `reserve` makes it so. */
export interface Plan {
  /** What budgets hold: the whole amount, or what there is of it where money alone pays, for less. */
  readonly amount_nano: bigint
  readonly added: readonly HeldPart[]
}
export interface Shortage {
  readonly available_nano: bigint
}

interface GrantState {
  terms: GrantTerms
  models: ReadonlySet<string> | null
  weights_micro: ReadonlyMap<string, number> | null
  balance: bigint
  held: bigint
  /** It is in the list that admissions walk. */
  walked: boolean
}

/**
 * Money and quota of one tenant. No method waits, so each is atomic.
 *
 * An admission walks only grants that have something left or held and have not expired, in burn order: those that are used up are
 * taken off the list by the charge that empties them, expired ones by the first admission after their expiry, and whatever gives
 * them something again puts them back. A tenant's old packs cost an admission nothing.
 */
export class Account {
  applied_seq = 0
  readonly #grants = new Map<string, GrantState>()
  /** In burn order. */
  #walked: GrantState[] = []
  /** No grant on the list that holds nothing has expired before this. */
  #next_expiry_ms = Infinity
  /** What money grants off the list are overdrawn by. */
  #debt_nano = 0n
  #credit_used = 0n
  #credit_held = 0n
  #held_nano = 0n
  #open_holds = 0

  /**
   * Walks the grants in burn order (SEMANTICS 10), past those that do not pay for the model.
   *
   * - A `requests` grant pays the whole.
   * - `tokens` grants that cover all tokens, alone or one after the other, pay the whole, and no money is reserved.
   * - Else money must cover the amount, or at least the minimum: then all that was met is reserved, tokens and money, and what
   *   the grants lack comes from the credit line.
   * - Else `tokens` grants that cover the minimum are reserved alone (a capped answer).
   *
   * For the budgets the amount stays whole wherever tokens cover the minimum: they may pay for a longer answer than the money.
   */
  plan(need: Need): Plan | Shortage {
    this.#dropExpired(need.now_ms)
    const walk = new Walk(need)
    if (walk.covered) return { amount_nano: need.amount_nano, added: [] }
    for (const grant of this.#walked) {
      const free = grant.balance - grant.held
      if (free <= 0n || !paysFor(grant, need.model) || isExpired(grant, need.now_ms)) continue
      const { id, unit } = grant.terms
      if (unit === 'requests') {
        if (need.already.length > 0) continue
        return { amount_nano: need.amount_nano, added: [{ grant: id, unit, amount: 1n }] }
      }
      if (unit === 'tokens') walk.takeTokens(id, free, weightOf(grant, need))
      else walk.takeMoney(id, free, (walk.target_nano ??= this.#target(need)))
      if (walk.covered) return { amount_nano: need.amount_nano, added: walk.tokens_cover ? walk.tokenParts() : walk.added }
    }
    return this.#capped(need, walk)
  }

  /** Grants do not cover the whole: the credit line, or a capped answer, or a refusal. */
  #capped(need: Need, walk: Walk): Plan | Shortage {
    const target = (walk.target_nano ??= this.#target(need))
    const by_tokens = need.minimum_tokens > 0 && walk.tokens_covered >= need.minimum_tokens
    if (target >= need.minimum_nano) {
      if (target > walk.money_nano) walk.added.push({ grant: CREDIT, unit: 'nano_cny', amount: target - walk.money_nano })
      return { amount_nano: by_tokens ? need.amount_nano : target, added: walk.added }
    }
    if (by_tokens) return { amount_nano: need.amount_nano, added: walk.tokenParts() }
    return { available_nano: this.#affordable(need) - moneyOfParts(need.already) }
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
    const known = this.#grants.get(terms.id)
    if (known === undefined) {
      this.#move(this.#add(terms), delta, 0n)
      return
    }
    const state = stateOf(terms)
    this.#leaveWalk(known)
    Object.assign(known, state)
    this.#move(known, delta, 0n)
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
      available_nano: this.#ownMoney(null, now_ms),
      held_nano: this.#held_nano,
      open_holds: this.#open_holds,
      grants: [...this.#grants.values()]
        .toSorted((a, b) => burnOrder(a.terms, b.terms))
        .map((grant) => ({ ...grant.terms, balance: grant.balance, held: grant.held })),
    }
  }

  get held_nano(): bigint {
    return this.#held_nano
  }

  /** How much money a hold is to have in total. */
  #target(need: Need): bigint {
    return minBig(need.amount_nano, this.#affordable(need))
  }

  /** How much money a hold may have in total: what it holds already plus what is free for its model, the credit line included. */
  #affordable(need: Need): bigint {
    const free = this.#ownMoney(need.model, need.now_ms) + need.credit_line_nano
    return (free > 0n ? free : 0n) + moneyOfParts(need.already)
  }

  /** Free money, for one model or for any. */
  #ownMoney(model: string | null, now_ms: number): bigint {
    let total = -this.#credit_used - this.#credit_held - this.#debt_nano
    for (const grant of this.#walked) {
      if (grant.terms.unit !== 'nano_cny') continue
      const free = grant.balance - grant.held
      // A grant that is expired or for other models pays nothing here, but what it owes is still owed.
      if (free < 0n || (!isExpired(grant, now_ms) && (model === null || paysFor(grant, model)))) total += free
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
    const grant = this.#grants.get(part.grant)
    assert(grant !== undefined, 'a reserved grant is missing')
    this.#move(grant, 0n, delta)
  }

  #spend(part: PaymentPart, amount: bigint): void {
    if (part.grant === CREDIT) this.#credit_used += amount
    else this.#move(this.#grants.get(part.grant) ?? this.#add(unknownTerms(part)), -amount, 0n)
  }

  #add(terms: GrantTerms): GrantState {
    const grant: GrantState = { ...stateOf(terms), balance: 0n, held: 0n, walked: false }
    this.#grants.set(terms.id, grant)
    return grant
  }

  /** The only place where a grant's figures change: keeps the walked list and the debt of what is not on it. */
  #move(grant: GrantState, balance: bigint, held: bigint): void {
    this.#debt_nano -= unwalkedDebt(grant)
    grant.balance += balance
    grant.held += held
    this.#debt_nano += unwalkedDebt(grant)
    assert(grant.held >= 0n, 'held below zero')
    if (grant.balance <= 0n && grant.held === 0n) this.#leaveWalk(grant)
    else this.#joinWalk(grant)
  }

  #joinWalk(grant: GrantState): void {
    if (grant.held === 0n) this.#next_expiry_ms = Math.min(this.#next_expiry_ms, grant.terms.expires_at ?? Infinity)
    if (grant.walked) return
    this.#debt_nano -= unwalkedDebt(grant)
    grant.walked = true
    const next = this.#walked.findIndex((other) => burnOrder(grant.terms, other.terms) < 0)
    this.#walked.splice(next === -1 ? this.#walked.length : next, 0, grant)
  }

  #leaveWalk(grant: GrantState): void {
    if (!grant.walked) return
    this.#walked.splice(this.#walked.indexOf(grant), 1)
    grant.walked = false
    this.#debt_nano += unwalkedDebt(grant)
  }

  /** Looks at the list only when something on it has expired. */
  #dropExpired(now_ms: number): void {
    if (now_ms < this.#next_expiry_ms) return
    this.#next_expiry_ms = Infinity
    for (const grant of [...this.#walked]) {
      if (grant.held > 0n) continue
      if (isExpired(grant, now_ms)) this.#leaveWalk(grant)
      else this.#next_expiry_ms = Math.min(this.#next_expiry_ms, grant.terms.expires_at ?? Infinity)
    }
  }
}

/** What the grants walked so far would pay. */
class Walk {
  readonly added: HeldPart[] = []
  /** How much money the hold is to have in total, once money is asked for. */
  target_nano: bigint | null = null
  money_nano: bigint
  tokens_covered: bigint
  readonly #amount_nano: bigint
  readonly #tokens: bigint
  readonly #by_request: boolean

  constructor(need: Need) {
    this.money_nano = moneyOfParts(need.already)
    this.tokens_covered = tokensOfParts(need.already)
    this.#amount_nano = need.amount_nano
    this.#tokens = BigInt(need.grant_tokens)
    this.#by_request = need.already.some((part) => part.unit === 'requests')
  }

  get covered(): boolean {
    return this.#by_request || this.tokens_cover || this.money_nano >= this.#amount_nano
  }

  /** Tokens grants pay for everything. A request without tokens is never theirs. */
  get tokens_cover(): boolean {
    return this.#tokens > 0n && this.tokens_covered >= this.#tokens
  }

  /** What is missing, or all that is free, which may end in a part of a token. */
  takeTokens(grant: string, free: bigint, weight_micro: number): void {
    const missing = minBig(this.#tokens, BigInt(MAX_GRANT_TOKENS)) - this.tokens_covered
    if (missing <= 0n) return
    const wanted = unitsFor(missing, weight_micro)
    const amount = minBig(free, wanted)
    this.tokens_covered += free >= wanted ? missing : tokensCovered(free, weight_micro)
    const part = { grant, unit: 'tokens', amount } as const
    this.added.push(weight_micro === WEIGHT_ONE_MICRO ? part : { ...part, weight_micro })
  }

  takeMoney(grant: string, free: bigint, target_nano: bigint): void {
    const wanted = target_nano - this.money_nano
    if (wanted <= 0n) return
    const amount = minBig(free, wanted)
    this.added.push({ grant, unit: 'nano_cny', amount })
    this.money_nano += amount
  }

  tokenParts(): readonly HeldPart[] {
    return this.added.filter((part) => part.unit === 'tokens')
  }
}

/** Priority, then soonest expiry, then age, then id so that equals have one order. */
export function burnOrder(a: GrantTerms, b: GrantTerms): number {
  if (a.priority !== b.priority) return a.priority - b.priority
  const [a_expires, b_expires] = [a.expires_at ?? Number.MAX_VALUE, b.expires_at ?? Number.MAX_VALUE]
  if (a_expires !== b_expires) return a_expires - b_expires
  if (a.created_at !== b.created_at) return a.created_at - b.created_at
  return a.id < b.id ? -1 : 1
}

function isExpired(grant: GrantState, now_ms: number): boolean {
  return grant.terms.expires_at !== null && grant.terms.expires_at <= now_ms
}

function paysFor(grant: GrantState, model: string): boolean {
  return grant.models === null || grant.models.has(model)
}

/** The weight of a part that is held already stays what it was. */
function weightOf(grant: GrantState, need: Need): number {
  const held = need.already.find((part) => part.grant === grant.terms.id && part.unit === 'tokens')
  if (held !== undefined) return held.weight_micro ?? WEIGHT_ONE_MICRO
  return grant.weights_micro?.get(need.model) ?? WEIGHT_ONE_MICRO
}

/** What a money grant that admissions do not walk owes. */
function unwalkedDebt(grant: GrantState): bigint {
  return !grant.walked && grant.balance < 0n && grant.terms.unit === 'nano_cny' ? -grant.balance : 0n
}

/** Terms as the walk asks them. @throws RangeError for a weight that is none */
function stateOf(terms: GrantTerms): Pick<GrantState, 'terms' | 'models' | 'weights_micro'> {
  const { models, weights } = terms
  return {
    terms,
    models: models === null ? null : new Set(models),
    weights_micro: weights === null ? null : new Map(Object.entries(weights).map(([model, text]) => [model, weightMicroOf(text)])),
  }
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
