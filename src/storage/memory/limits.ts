import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import type { HoldReceipt } from '../../money/event.ts'
import { type HeldPart, moneyOfParts } from '../../money/grant.ts'
import type { Cut } from '../books.ts'
import type {
  BalanceView,
  CreditRequest,
  CreditState,
  ExtendRequest,
  ExtendResult,
  HoldRefusal,
  HoldRequest,
  HoldResult,
  LimitRule,
  Limits,
  LimitState,
  SettleRequest,
  SettleState,
} from '../ports.ts'
import { Account, type Plan } from './account.ts'
import { type Counter, counterFor, counterKey, MeterCounter, type Share } from './counters.ts'
import { Leases } from './leases.ts'
import { begunOf, capByBudgets, type CheckedRule, joined, leastAmount, needOf, ratesOf } from './needs.ts'
import { blockedRefusal, refusalOf, shortOfMoney } from './refusals.ts'
import { Tombstones } from './tombstones.ts'

/** Settles of another process's holds change nothing when older than this: their tombstone may be gone (SEMANTICS 14). */
const MAX_SETTLE_AGE_MS = 10 * 60_000
/** Idle counters looked at per hold: the map shrinks as fast as it grows, at a constant cost. */
const PURGE_PER_HOLD = 2

/** {@link Limits} in this process's memory, with what a start needs to fill it again. */
export interface MemoryLimits extends Limits {
  /** The sequence number of the last credit applied to a tenant; the next one must be one more. */
  appliedSeq(tenant: string): number
  /** Sets what a window or budget had used before this process started. `end_ms` is `Infinity` where there is no window. */
  restore(rule: LimitRule, used: bigint, end_ms: number): void
  /** Corrects what a running process believes was used in the window that ends at `end_ms`; nothing if that one is over. */
  shift(rule: LimitRule, delta: bigint, end_ms: number): void
  /** This moment: every tenant's balances, every open hold, and where `rules` stand. Costs what there are tenants and holds. */
  views(rules: readonly LimitRule[]): Omit<Cut, 'mark'>
}

interface RuleShare {
  readonly rule: LimitRule
  readonly share: Share
}
/** A hold that is not settled: open, or swept and waiting for its charge. */
interface OpenHold {
  receipt: HoldReceipt
  swept: boolean
  readonly credit_line_nano: bigint
  shares: readonly RuleShare[]
}

const NOTHING_MORE: Plan = Object.freeze({ amount_nano: 0n, added: [] })

/**
 * Limits for one process: holds, rates, windows, budgets and grants in memory, atomic because nothing waits in between.
 * `admitted_at` is `clock`'s time. Every operation costs what its own rules and grants cost, whatever the number of keys and holds.
 *
 * Choices this driver makes within the port: an extension may take a token rate into debt (an answer that is running is not cut
 * for a rate that refills by itself) but must fit windows, budgets and money; budgets cap an answer as money does (`minimum_nano`).
 */
export function createMemoryLimits(options: { readonly clock: Clock }): MemoryLimits {
  return new InMemoryLimits(options.clock)
}

class InMemoryLimits implements MemoryLimits {
  readonly #clock: Clock
  readonly #started_at: number
  readonly #accounts = new Map<string, Account>()
  readonly #holds = new Map<string, OpenHold>()
  readonly #leases = new Leases()
  readonly #tombstones = new Tombstones()
  readonly #counters = new Map<string, Counter>()
  readonly #blocked = { key: new Set<string>(), tenant: new Set<string>() }
  #purge = this.#counters.entries()

  constructor(clock: Clock) {
    this.#clock = clock
    this.#started_at = clock.now_ms()
  }

  hold(request: HoldRequest): Promise<HoldResult> {
    return settled(() => this.#hold(request))
  }

  extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendResult[]> {
    return settled(() => requests.map((request) => this.#extend(request)))
  }

  settle(request: SettleRequest): Promise<SettleState> {
    return settled(() => this.#settle(request))
  }

  release(id: string, tenant: string): Promise<void> {
    return settled(() => this.#release(id, tenant))
  }

  sweep(now_ms: number): Promise<readonly HoldReceipt[]> {
    return settled(() => this.#leases.expired(now_ms).flatMap((id) => this.#sweepOne(id)))
  }

  credit(request: CreditRequest): Promise<CreditState> {
    return settled(() => {
      const account = this.#account(request.grant.tenant)
      if (request.seq <= account.applied_seq) return 'duplicate'
      if (request.seq > account.applied_seq + 1) return 'gap'
      account.credit(request.grant, request.delta)
      account.applied_seq = request.seq
      return 'applied'
    })
  }

  block(kind: 'key' | 'tenant', id: string, blocked: boolean): Promise<void> {
    return settled(() => {
      if (blocked) this.#blocked[kind].add(id)
      else this.#blocked[kind].delete(id)
    })
  }

  balance(tenant: string): Promise<BalanceView> {
    return settled(() => this.#account(tenant).view(this.#clock.now_ms()))
  }

  states(rules: readonly LimitRule[]): Promise<readonly LimitState[]> {
    const now_ms = this.#clock.now_ms()
    return settled(() => rules.map((rule) => this.#state(rule, now_ms)))
  }

  /** A counter that nobody has used yet is not made: looking changes nothing. */
  #state(rule: LimitRule, now_ms: number): LimitState {
    return { rule, ...(this.#counters.get(counterKey(rule)) ?? counterFor(rule)).standing(rule, now_ms) }
  }

  views(rules: readonly LimitRule[]): Omit<Cut, 'mark'> {
    const now_ms = this.#clock.now_ms()
    const balances = new Map([...this.#accounts].map(([tenant, account]) => [tenant, account.view(now_ms)]))
    return { balances, holds: new Set(this.#holds.keys()), states: rules.map((rule) => this.#state(rule, now_ms)) }
  }

  openHolds(): Promise<number> {
    return Promise.resolve(this.#holds.size)
  }

  appliedSeq(tenant: string): number {
    return this.#account(tenant).applied_seq
  }

  restore(rule: LimitRule, used: bigint, end_ms: number): void {
    const counter = this.#counter(rule)
    assert(counter instanceof MeterCounter, 'only windows and budgets are restored')
    counter.restore(used, end_ms)
  }

  shift(rule: LimitRule, delta: bigint, end_ms: number): void {
    const counter = this.#counter(rule)
    assert(counter instanceof MeterCounter, 'only windows and budgets are corrected')
    counter.shift(rule, delta, end_ms, this.#clock.now_ms())
  }

  #hold(request: HoldRequest): HoldResult {
    const now_ms = this.#clock.now_ms()
    const known = this.#holds.get(request.id)?.receipt ?? this.#tombstones.receipt(request.id, now_ms)
    if (known !== undefined) return { ok: true, receipt: known, rates: ratesOf(this.#checkedRules(request.rules), now_ms) }
    this.#purgeIdle(now_ms)
    const rules = this.#checkedRules(request.rules)
    const found = this.#admissible(request, rules, now_ms)
    if ('reason' in found) return { ok: false, refusal: found, rates: ratesOf(rules, now_ms) }
    return { ok: true, receipt: this.#open(request, rules, found, now_ms), rates: ratesOf(rules, now_ms) }
  }

  /** Decides without changing anything. */
  #admissible(request: HoldRequest, rules: readonly CheckedRule[], now_ms: number): Plan | HoldRefusal {
    if (this.#blocked.key.has(request.key)) return blockedRefusal('key_revoked')
    if (this.#blocked.tenant.has(request.tenant)) return blockedRefusal('tenant_suspended')
    const least_nano = leastAmount(request)
    for (const { rule, counter } of rules) {
      const room = counter.check(rule, needOf(rule, request.tokens, least_nano), now_ms)
      if (room !== null) return refusalOf(rule, room, needOf(rule, request.tokens, request.amount_nano))
    }
    const amount_nano = capByBudgets(request.amount_nano, rules, now_ms)
    const account = this.#account(request.tenant)
    const { model, grant_tokens, minimum_tokens, credit_line_nano } = request
    const need = { model, grant_tokens, minimum_tokens, amount_nano, minimum_nano: least_nano, credit_line_nano, now_ms, already: [] }
    const plan = account.plan(need)
    return 'added' in plan ? plan : shortOfMoney(plan.available_nano, account.held_nano, request.amount_nano)
  }

  #open(request: HoldRequest, rules: readonly CheckedRule[], plan: Plan, now_ms: number): HoldReceipt {
    const account = this.#account(request.tenant)
    const shares = rules.map(({ rule, counter }) => ({
      rule,
      share: counter.take(rule, needOf(rule, request.tokens, plan.amount_nano), now_ms),
    }))
    account.reserve(plan.added)
    account.opened()
    const { id, tenant, project, key, model, tokens } = request
    const expires_at = now_ms + request.lease_ms
    const { amount_nano, added: parts } = plan
    const known = { v: 1, id, tenant, project, key, model, admitted_at: now_ms, expires_at, tokens, amount_nano, parts } as const
    const begun = begunOf(rules)
    const receipt: HoldReceipt = begun === null ? known : { ...known, begun }
    this.#holds.set(id, { receipt, swept: false, credit_line_nano: request.credit_line_nano, shares })
    this.#leases.set(id, expires_at)
    return receipt
  }

  #extend(request: ExtendRequest): ExtendResult {
    const now_ms = this.#clock.now_ms()
    const hold = this.#holds.get(request.id)
    if (hold === undefined || hold.swept || hold.receipt.tenant !== request.tenant) return { id: request.id, state: 'lapsed' }
    const before = hold.receipt
    const tokens = Math.max(before.tokens, request.tokens)
    const amount_nano = request.amount_nano > before.amount_nano ? request.amount_nano : before.amount_nano
    const grows = tokens > before.tokens || amount_nano > before.amount_nano
    // A renewal asks for nothing, so nothing can refuse it: a capped hold covers less than its totals, and may go on with that.
    const found = grows ? this.#extensible(hold, tokens, amount_nano, now_ms) : NOTHING_MORE
    if ('reason' in found) return { id: request.id, state: 'refused', refusal: found }
    if (grows) this.#grow(hold, tokens, amount_nano, found.added, now_ms)
    const expires_at = Math.max(before.expires_at, now_ms + request.lease_ms)
    hold.receipt = { ...hold.receipt, expires_at }
    this.#leases.set(request.id, expires_at)
    return { id: request.id, state: 'extended', receipt: hold.receipt }
  }

  #grow(hold: OpenHold, tokens: number, amount_nano: bigint, added: readonly HeldPart[], now_ms: number): void {
    const before = hold.receipt
    for (const { rule, share } of hold.shares) {
      share.grow(needOf(rule, tokens, amount_nano) - needOf(rule, before.tokens, before.amount_nano), now_ms)
    }
    this.#account(before.tenant).reserve(added)
    hold.receipt = { ...before, tokens, amount_nano, parts: joined(before.parts, added) }
  }

  #extensible(hold: OpenHold, tokens: number, amount_nano: bigint, now_ms: number): Plan | HoldRefusal {
    const before = hold.receipt
    for (const { rule, share } of hold.shares) {
      const more = needOf(rule, tokens, amount_nano) - needOf(rule, before.tokens, before.amount_nano)
      const room = more === 0n ? null : share.check(more, now_ms)
      if (room !== null) return refusalOf(rule, room, more)
    }
    const account = this.#account(before.tenant)
    const { model, parts: already } = before
    const whole = { grant_tokens: tokens, minimum_tokens: tokens, amount_nano, minimum_nano: amount_nano }
    const plan = account.plan({ model, ...whole, credit_line_nano: hold.credit_line_nano, now_ms, already })
    // Money pays for all or nothing of what tokens do not cover: the whole, less the money that is held already.
    return 'added' in plan ? plan : shortOfMoney(plan.available_nano, account.held_nano, amount_nano - moneyOfParts(already))
  }

  #settle(request: SettleRequest): SettleState {
    const now_ms = this.#clock.now_ms()
    const hold = this.#holds.get(request.id)
    if (request.swept === true && hold?.swept !== true) return 'duplicate'
    if (hold === undefined) return this.#settleClosed(request, now_ms)
    assert(hold.receipt.tenant === request.tenant, 'a settle names another tenant than its hold')
    this.#close(hold)
    this.#account(request.tenant).charge(request.parts)
    for (const { rule, share } of hold.shares) share.settle(needOf(rule, request.tokens, request.amount_nano), now_ms)
    if (request.swept === true || request.orphan === true) this.#tombstones.addSwept(request, { ...hold }, now_ms)
    else this.#tombstones.addSettled(hold.receipt, now_ms)
    // An old table of the map of holds may keep this one alive until a full collection.
    hold.shares = []
    return 'settled'
  }

  /** The hold is not open: settled already, swept before, or admitted by an earlier process. */
  #settleClosed(request: SettleRequest, now_ms: number): SettleState {
    if (request.replaces !== undefined) {
      if (!this.#tombstones.replace(request.id, now_ms)) return 'duplicate'
      this.#account(request.tenant).refund(request.replaces)
      this.#account(request.tenant).charge(request.parts)
      return 'late'
    }
    const swept = this.#tombstones.swept(request.id, now_ms)
    if (swept !== undefined) {
      if (request.orphan === true || samePayment(swept.charged, request)) return 'duplicate'
      const account = this.#account(request.tenant)
      account.refund(swept.charged.parts)
      account.charge(request.parts)
      for (const { rule, share } of swept.shares) share.settle(needOf(rule, request.tokens, request.amount_nano), now_ms)
      this.#tombstones.replaced(request.id, swept.receipt, now_ms)
      return 'late'
    }
    // Holds of this process are never forgotten while open, so one of its own that is unknown has been closed.
    if (request.admitted_at >= this.#started_at || this.#tombstones.has(request.id, now_ms)) return 'duplicate'
    if (now_ms - request.admitted_at > MAX_SETTLE_AGE_MS) return 'duplicate'
    this.#account(request.tenant).charge(request.parts)
    this.#tombstones.addForeign(request.id, now_ms)
    return 'settled'
  }

  #release(id: string, tenant: string): void {
    const hold = this.#holds.get(id)
    if (hold === undefined || hold.receipt.tenant !== tenant) return
    this.#close(hold)
    const now_ms = this.#clock.now_ms()
    for (const { share } of hold.shares) share.release(now_ms)
    const nothing = { id, tenant, admitted_at: hold.receipt.admitted_at, tokens: 0, amount_nano: 0n, parts: [] }
    if (hold.swept) this.#tombstones.addSwept(nothing, hold, now_ms)
    else this.#tombstones.addSettled(hold.receipt, now_ms)
  }

  #close(hold: OpenHold): void {
    const account = this.#account(hold.receipt.tenant)
    account.free(hold.receipt.parts)
    account.closed()
    this.#holds.delete(hold.receipt.id)
    this.#leases.delete(hold.receipt.id)
  }

  #sweepOne(id: string): readonly HoldReceipt[] {
    const hold = this.#holds.get(id)
    assert(hold !== undefined && !hold.swept, 'a lease without its hold')
    hold.swept = true
    return [hold.receipt]
  }

  #account(tenant: string): Account {
    const known = this.#accounts.get(tenant)
    if (known !== undefined) return known
    const account = new Account()
    this.#accounts.set(tenant, account)
    return account
  }

  #checkedRules(rules: readonly LimitRule[]): readonly CheckedRule[] {
    return rules.map((rule) => ({ rule, counter: this.#counter(rule) }))
  }

  #counter(rule: LimitRule): Counter {
    const key = counterKey(rule)
    const known = this.#counters.get(key)
    if (known !== undefined) return known
    const counter = counterFor(rule)
    this.#counters.set(key, counter)
    return counter
  }

  #purgeIdle(now_ms: number): void {
    for (let looked = 0; looked < PURGE_PER_HOLD; looked += 1) {
      const next = this.#purge.next()
      if (next.done === true) {
        this.#purge = this.#counters.entries()
        return
      }
      const [key, counter] = next.value
      if (counter.idle(now_ms)) this.#counters.delete(key)
    }
  }
}

/** Runs at once, so that two calls never interleave; a thrown invariant becomes a rejection. */
function settled<T>(work: () => T): Promise<T> {
  try {
    return Promise.resolve(work())
  } catch (error) {
    return Promise.reject(error)
  }
}

function samePayment(a: SettleRequest, b: SettleRequest): boolean {
  if (a.tokens !== b.tokens || a.amount_nano !== b.amount_nano || a.parts.length !== b.parts.length) return false
  return a.parts.every((part, index) => {
    const other = b.parts[index]
    return other !== undefined && other.grant === part.grant && other.unit === part.unit && other.amount === part.amount
  })
}
