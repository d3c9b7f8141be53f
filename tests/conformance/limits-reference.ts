import { tokensCovered, unitsFor } from '../../src/money/grant.ts'
import type { HoldReceipt } from '../../src/money/event.ts'
import type { HeldPart, PaymentPart } from '../../src/money/grant.ts'
import type {
  BalanceView,
  CreditRequest,
  CreditState,
  ExtendRequest,
  ExtendResult,
  GrantTerms,
  HoldRefusal,
  HoldRequest,
  HoldResult,
  LimitRule,
  LimitState,
  RateState,
  RateStates,
  SettleRequest,
  SettleState,
} from '../../src/storage/ports.ts'

const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000
/** SEMANTICS 14: closed holds are remembered so long, and a settle of an unknown hold counts so long after its admission. */
const REMEMBERED_MS = 15 * MINUTE_MS
const SETTLE_AGE_MS = 10 * MINUTE_MS
const CONCURRENCY_RETRY_MS = 1000
const CREDIT = 'credit'

/** `H` held, `X` swept and waiting for its charge, `S` settled, `R` given back. */
type HoldState = 'H' | 'X' | 'S' | 'R'
const MOVES: Readonly<Record<HoldState, string>> = { H: 'XSR', X: 'SR', S: '', R: '' }

interface Charged {
  readonly tokens: number
  readonly amount_nano: bigint
  readonly parts: readonly PaymentPart[]
}
interface Counted {
  readonly rule: LimitRule
  /** End of the window that the admission fell into. */
  readonly end_ms: number
}
export interface ReferenceHold {
  readonly request: HoldRequest
  receipt: HoldReceipt
  state: HoldState
  readonly counted: readonly Counted[]
  charged: Charged | null
  /** It was swept before it was closed: a settle may still replace the sweep's charge. */
  by_sweep: boolean
  closed_at: number
}
interface RateMove {
  readonly key: string
  readonly at: number
  /** The limit that was in the request, or null where none was. */
  readonly limit: bigint | null
  readonly tokens: bigint
}
interface Need {
  readonly tenant: string
  readonly model: string
  readonly tokens: bigint
  readonly minimum_tokens: bigint
  readonly amount_nano: bigint
  readonly minimum_nano: bigint
  readonly line_nano: bigint
  readonly already: readonly HeldPart[]
}
interface Payable {
  readonly amount_nano: bigint
  readonly added: readonly HeldPart[]
}
type Plan = Payable | { readonly available: bigint }

/**
 * What every driver of `Limits` must do, in the plainest code: lists of everything that ever happened, and sums over them.
 * Shares with the drivers only the arithmetic of weights. Time is set from outside.
 */
export class Reference {
  now_ms: number
  readonly holds: ReferenceHold[] = []
  readonly #started_at: number
  readonly #credits: CreditRequest[] = []
  /** Settles of holds that an earlier process had admitted. */
  readonly #foreign: { readonly request: SettleRequest; readonly at: number }[] = []
  readonly #moves: RateMove[] = []
  readonly #blocked = new Set<string>()

  constructor(now_ms: number) {
    this.now_ms = now_ms
    this.#started_at = now_ms
  }

  /** The newest hold with this id that is open or still remembered. */
  known(id: string): ReferenceHold | undefined {
    const hold = this.holds.findLast(({ receipt }) => receipt.id === id)
    if (hold === undefined || isOpen(hold)) return hold
    return hold.closed_at + REMEMBERED_MS > this.now_ms ? hold : undefined
  }

  get open(): readonly ReferenceHold[] {
    return this.holds.filter(isOpen)
  }

  /** Holds that a settle still changes: open ones, and those that a sweep has closed. */
  get settleable(): readonly ReferenceHold[] {
    return this.holds.filter((hold) => isOpen(hold) || (hold.by_sweep && this.known(hold.receipt.id) === hold))
  }

  hold(request: HoldRequest): HoldResult {
    const known = this.known(request.id)
    if (known !== undefined) return { ok: true, receipt: known.receipt, rates: this.#rates(request.rules) }
    const plan = this.#admissible(request)
    if ('reason' in plan) return { ok: false, refusal: plan, rates: this.#rates(request.rules) }
    const { id, tenant, project, key, model, tokens } = request
    const { amount_nano, added: parts } = plan
    const [admitted_at, expires_at] = [this.now_ms, this.now_ms + request.lease_ms]
    const counted = request.rules.map((rule) => ({ rule, end_ms: this.#windowEnd(rule) }))
    const begun = begunOf(counted)
    const plain = { v: 1, id, tenant, project, key, model, admitted_at, expires_at, tokens, amount_nano, parts } as const
    const receipt: HoldReceipt = Object.keys(begun).length === 0 ? plain : { ...plain, begun }
    for (const rule of request.rules) if (isRate(rule)) this.#move(rule, needOf(rule, tokens, amount_nano), rule.limit)
    this.holds.push({ request, receipt, state: 'H', counted, charged: null, by_sweep: false, closed_at: 0 })
    return { ok: true, receipt, rates: this.#rates(request.rules) }
  }

  extend(request: ExtendRequest): ExtendResult {
    const { id } = request
    const hold = this.known(id)
    if (hold?.state !== 'H') return { id, state: 'lapsed' }
    const before = hold.receipt
    const tokens = Math.max(before.tokens, request.tokens)
    const amount_nano = maxOf(before.amount_nano, request.amount_nano)
    let added: readonly HeldPart[] = []
    if (tokens > before.tokens || amount_nano > before.amount_nano) {
      const plan = this.#extensible(hold, tokens, amount_nano)
      if ('reason' in plan) return { id, state: 'refused', refusal: plan }
      added = plan.added
      for (const { rule } of hold.counted) if (rule.kind === 'tokens_per_minute') this.#move(rule, BigInt(tokens - before.tokens))
    }
    const expires_at = Math.max(before.expires_at, this.now_ms + request.lease_ms)
    hold.receipt = { ...before, tokens, amount_nano, expires_at, parts: joined(before.parts, added) }
    return { id, state: 'extended', receipt: hold.receipt }
  }

  settle(request: SettleRequest): SettleState {
    const hold = this.known(request.id)
    if (request.swept === true && hold?.state !== 'X') return 'duplicate'
    if (hold === undefined) return this.#settleUnknown(request)
    const { tokens, amount_nano, parts } = request
    const charged = { tokens, amount_nano, parts }
    if (isOpen(hold)) {
      this.#close(hold, 'S', charged, request.swept === true)
      return 'settled'
    }
    if (!hold.by_sweep || sameCharge(hold.charged, charged)) return 'duplicate'
    this.#close(hold, hold.state, charged, false)
    return 'late'
  }

  release(id: string): boolean {
    const hold = this.known(id)
    if (hold === undefined || !isOpen(hold)) return false
    this.#close(hold, 'R', null, hold.state === 'X')
    return true
  }

  sweep(now_ms: number): readonly HoldReceipt[] {
    const expired = this.holds.filter(({ state, receipt }) => state === 'H' && receipt.expires_at < now_ms)
    for (const hold of expired) hold.state = 'X'
    return expired.map(({ receipt }) => receipt)
  }

  credit(request: CreditRequest): CreditState {
    const { length } = this.#credits.filter(({ grant }) => grant.tenant === request.grant.tenant)
    if (request.seq <= length) return 'duplicate'
    if (request.seq > length + 1) return 'gap'
    this.#credits.push(request)
    return 'applied'
  }

  block(kind: 'key' | 'tenant', id: string, blocked: boolean): void {
    if (blocked) this.#blocked.add(`${kind} ${id}`)
    else this.#blocked.delete(`${kind} ${id}`)
  }

  balance(tenant: string): BalanceView {
    const open = this.open.filter(({ receipt }) => receipt.tenant === tenant)
    const held_nano = sum(open.flatMap(({ receipt }) => receipt.parts).filter(({ unit }) => unit === 'nano_cny'))
    const grants = this.#grants(tenant).map((terms) => ({
      ...terms,
      balance: this.#balance(terms.id, tenant),
      held: this.#held(terms.id, tenant),
    }))
    return { available_nano: this.#money(tenant, null), held_nano, open_holds: open.length, grants }
  }

  /** What is used and held of a window or budget now, in its unit. */
  meter(rule: LimitRule, end_ms = this.#windowEnd(rule)): { readonly used: bigint; readonly held: bigint } {
    let [used, held] = [0n, 0n]
    for (const hold of this.#counting(rule, end_ms)) {
      if (isOpen(hold)) held += needOf(rule, hold.receipt.tokens, hold.receipt.amount_nano)
      else if (hold.charged !== null) used += needOf(rule, hold.charged.tokens, hold.charged.amount_nano)
    }
    return { used, held }
  }

  state(rule: LimitRule): LimitState {
    if (isRate(rule)) {
      const { remaining, reset_ms } = this.#rate(rule)
      return { rule, available: BigInt(remaining), held: 0n, used: null, resets_at_ms: rule.limit === 0n ? null : this.now_ms + reset_ms }
    }
    if (rule.kind === 'concurrency') {
      const held = BigInt(this.#counting(rule, Infinity).filter(isOpen).length)
      return { rule, available: maxOf(0n, rule.limit - held), held, used: null, resets_at_ms: null }
    }
    const end_ms = this.#windowEnd(rule)
    const { used, held } = this.meter(rule)
    const begun = rule.window?.name !== '5h' || this.#counting(rule, end_ms).length > 0
    const resets_at_ms = end_ms === Infinity || !begun ? null : end_ms
    return { rule, available: maxOf(0n, rule.limit - used - held), held, used, resets_at_ms }
  }

  // -------------------------------------------------------------- admission

  #admissible(request: HoldRequest): Payable | HoldRefusal {
    if (this.#blocked.has(`key ${request.key}`)) return blockedBy('key_revoked')
    if (this.#blocked.has(`tenant ${request.tenant}`)) return blockedBy('tenant_suspended')
    const least_nano = leastOf(request)
    let capped_nano = request.amount_nano
    for (const rule of request.rules) {
      const refusal = this.#refusal(rule, needOf(rule, request.tokens, least_nano), this.#windowEnd(rule))
      if (refusal !== null) return { ...refusal, needed: needOf(rule, request.tokens, request.amount_nano) }
      if (rule.kind !== 'budget' && rule.kind !== 'amount_window') continue
      const { used, held } = this.meter(rule)
      capped_nano = minOf(capped_nano, rule.limit - used - held)
    }
    const plan = this.#plan({
      tenant: request.tenant,
      model: request.model,
      tokens: BigInt(request.grant_tokens),
      minimum_tokens: BigInt(request.minimum_tokens),
      amount_nano: capped_nano,
      minimum_nano: least_nano,
      line_nano: request.credit_line_nano,
      already: [],
    })
    if ('added' in plan) return plan
    return {
      reason: 'balance',
      rule: null,
      available: plan.available,
      held: this.balance(request.tenant).held_nano,
      needed: request.amount_nano,
      frees_at_ms: null,
    }
  }

  #extensible({ receipt: before, request, counted }: ReferenceHold, tokens: number, amount_nano: bigint): Payable | HoldRefusal {
    for (const { rule, end_ms } of counted) {
      // An answer that is running is not cut for a rate that refills by itself.
      if (isRate(rule) || rule.kind === 'concurrency') continue
      const more = needOf(rule, tokens, amount_nano) - needOf(rule, before.tokens, before.amount_nano)
      const refusal = more === 0n ? null : this.#refusal(rule, more, end_ms)
      if (refusal !== null) return refusal
    }
    const { tenant, model, credit_line_nano } = request
    const all = { tokens: BigInt(tokens), minimum_tokens: BigInt(tokens), amount_nano, minimum_nano: amount_nano }
    const plan = this.#plan({ tenant, model, ...all, line_nano: credit_line_nano, already: before.parts })
    if ('added' in plan) return plan
    const needed = amount_nano - sum(before.parts.filter(({ unit }) => unit === 'nano_cny'))
    return { reason: 'balance', rule: null, available: plan.available, held: this.balance(tenant).held_nano, needed, frees_at_ms: null }
  }

  /** Why a limit has no room for so much more, or null. */
  #refusal(rule: LimitRule, need: bigint, end_ms: number): HoldRefusal | null {
    if (isRate(rule)) {
      const { scaled, limit } = this.#bucket(rule)
      const missing = need * 60_000n - scaled
      if (missing <= 0n) return null
      const never = need > limit || limit === 0n
      const frees_at_ms = never ? null : this.now_ms + Number((missing + limit - 1n) / limit)
      return { reason: 'rate', rule, available: maxOf(0n, scaled / 60_000n), held: 0n, needed: need, frees_at_ms }
    }
    if (rule.kind === 'concurrency') {
      const held = BigInt(this.#counting(rule, Infinity).filter(isOpen).length)
      if (held < rule.limit) return null
      const frees_at_ms = rule.limit < 1n ? null : this.now_ms + CONCURRENCY_RETRY_MS
      return { reason: 'concurrency', rule, available: rule.limit, held, needed: 1n, frees_at_ms }
    }
    const { used, held } = this.meter(rule, end_ms)
    if (used + held + need <= rule.limit) return null
    const frees = need <= rule.limit && end_ms > this.now_ms && end_ms !== Infinity
    const reason = rule.kind === 'budget' ? 'budget' : 'window'
    return { reason, rule, available: maxOf(0n, rule.limit - used - held), held, needed: need, frees_at_ms: frees ? end_ms : null }
  }

  /** Who pays, by SEMANTICS 10. */
  #plan(need: Need): Plan {
    const { already, amount_nano } = need
    if (already.some(({ unit }) => unit === 'requests')) return { amount_nano, added: [] }
    const before_nano = sum(already.filter(({ unit }) => unit === 'nano_cny'))
    const covered_before = already.filter(({ unit }) => unit === 'tokens').reduce((all, part) => all + tokensOf(part), 0n)
    if (amount_nano <= before_nano || (need.tokens > 0n && covered_before >= need.tokens)) return { amount_nano, added: [] }
    const affordable = maxOf(0n, this.#money(need.tenant, need.model) + need.line_nano) + before_nano
    const target = minOf(amount_nano, affordable)
    const [packs, money]: [HeldPart[], HeldPart[]] = [[], []]
    let missing = need.tokens - covered_before
    let money_nano = before_nano
    const added: HeldPart[] = []
    for (const terms of this.#grants(need.tenant)) {
      const free = this.#balance(terms.id, need.tenant) - this.#held(terms.id, need.tenant)
      if (free <= 0n || this.#isExpired(terms) || !paysFor(terms, need.model)) continue
      if (terms.unit === 'requests') {
        if (already.length === 0) return { amount_nano, added: [{ grant: terms.id, unit: 'requests', amount: 1n }] }
      } else if (terms.unit === 'tokens') {
        if (missing <= 0n) continue
        const weight_micro = weightFor(terms, need)
        const whole = unitsFor(missing, weight_micro)
        const part = partOf(terms.id, minOf(free, whole), weight_micro)
        packs.push(part)
        added.push(part)
        missing = free >= whole ? 0n : missing - tokensOf(part)
        if (missing <= 0n) return { amount_nano, added: packs }
      } else if (target > money_nano) {
        const part = { grant: terms.id, unit: terms.unit, amount: minOf(free, target - money_nano) }
        money.push(part)
        added.push(part)
        money_nano += part.amount
        if (money_nano === amount_nano) break
      }
    }
    const by_tokens = need.minimum_tokens > 0n && need.tokens - missing >= need.minimum_tokens
    if (target >= need.minimum_nano) {
      if (target > money_nano) added.push({ grant: CREDIT, unit: 'nano_cny', amount: target - money_nano })
      return { amount_nano: by_tokens ? amount_nano : target, added }
    }
    if (by_tokens) return { amount_nano, added: packs }
    return { available: affordable - before_nano }
  }

  // -------------------------------------------------------------- closing

  #settleUnknown(request: SettleRequest): SettleState {
    const age_ms = this.now_ms - request.admitted_at
    if (request.admitted_at >= this.#started_at || age_ms > SETTLE_AGE_MS) return 'duplicate'
    if (this.#foreign.some(({ request: other, at }) => other.id === request.id && at + REMEMBERED_MS > this.now_ms)) return 'duplicate'
    this.#foreign.push({ request, at: this.now_ms })
    return 'settled'
  }

  #close(hold: ReferenceHold, state: HoldState, charged: Charged | null, by_sweep: boolean): void {
    const late = !isOpen(hold)
    if (!late && !MOVES[hold.state].includes(state)) throw new Error(`${hold.receipt.id} went from ${hold.state} to ${state}`)
    const takenOf = (rule: LimitRule): bigint => {
      if (!late) return needOf(rule, hold.receipt.tokens, hold.receipt.amount_nano)
      return hold.charged === null ? 0n : needOf(rule, hold.charged.tokens, hold.charged.amount_nano)
    }
    for (const { rule } of hold.counted) {
      if (!isRate(rule)) continue
      const used = charged === null ? 0n : needOf(rule, charged.tokens, charged.amount_nano)
      this.#move(rule, used - takenOf(rule))
    }
    hold.state = late ? 'S' : state
    hold.charged = charged
    hold.by_sweep = by_sweep
    hold.closed_at = this.now_ms
  }

  // -------------------------------------------------------------- sums

  /** The latest terms of every grant, in burn order. */
  #grants(tenant: string): readonly GrantTerms[] {
    const latest = new Map(this.#credits.filter(({ grant }) => grant.tenant === tenant).map(({ grant }) => [grant.id, grant]))
    latest.delete(CREDIT)
    return [...latest.values()].toSorted(burnOrder)
  }

  #balance(grant: string, tenant: string): bigint {
    const given = this.#credits
      .filter((one) => one.grant.tenant === tenant && one.grant.id === grant)
      .reduce((all, { delta }) => all + delta, 0n)
    const charges = [
      ...this.holds.map(({ request, charged }) => ({ request, parts: charged?.parts ?? [] })),
      ...this.#foreign.map(({ request }) => ({ request, parts: request.parts })),
    ]
    const paid = charges
      .filter(({ request }) => request.tenant === tenant)
      .flatMap(({ parts }) => parts)
      .filter((part) => part.grant === grant)
    return given - sum(paid)
  }

  #held(grant: string, tenant: string): bigint {
    return sum(
      this.open
        .filter(({ receipt }) => receipt.tenant === tenant)
        .flatMap(({ receipt }) => receipt.parts)
        .filter((part) => part.grant === grant),
    )
  }

  /** Free money that may pay for a model (null: for any). Debts count always; what the credit line has paid or holds is owed. */
  #money(tenant: string, model: string | null): bigint {
    let money = this.#balance(CREDIT, tenant) - this.#held(CREDIT, tenant)
    for (const terms of this.#grants(tenant)) {
      if (terms.unit !== 'nano_cny') continue
      const free = this.#balance(terms.id, tenant) - this.#held(terms.id, tenant)
      if (free < 0n || (!this.#isExpired(terms) && (model === null || paysFor(terms, model)))) money += free
    }
    return money
  }

  #isExpired({ expires_at }: GrantTerms): boolean {
    return expires_at !== null && expires_at <= this.now_ms
  }

  #counting(rule: LimitRule, end_ms: number): readonly ReferenceHold[] {
    const key = counterOf(rule)
    return this.holds.filter(({ counted }) => counted.some((one) => counterOf(one.rule) === key && one.end_ms === end_ms))
  }

  /** Of the window that now is in. Five hours begin at the first admission after the last five hours. */
  #windowEnd(rule: LimitRule): number {
    const { window } = rule
    if (window === null) return Infinity
    if (window.name !== '5h') return this.now_ms < window.end_ms ? window.end_ms : window.next_end_ms
    const key = counterOf(rule)
    const ends = this.holds
      .flatMap(({ counted }) => counted)
      .filter((one) => counterOf(one.rule) === key)
      .map(({ end_ms }) => end_ms)
    const latest = Math.max(0, ...ends)
    return this.now_ms < latest ? latest : this.now_ms + 5 * HOUR_MS
  }

  // -------------------------------------------------------------- rates

  #move(rule: LimitRule, tokens: bigint, limit: bigint | null = null): void {
    this.#moves.push({ key: counterOf(rule), at: this.now_ms, limit, tokens })
  }

  /** A bucket's level now, in units × 60 000, by going through everything that ever moved it. */
  #bucket(rule: LimitRule): { readonly scaled: bigint; readonly limit: bigint } {
    const key = counterOf(rule)
    let [scaled, limit, at] = [0n, 0n, 0]
    for (const move of [...this.#moves, { key, at: this.now_ms, limit: rule.limit, tokens: 0n }]) {
      if (move.key !== key) continue
      scaled = minOf(limit * 60_000n, scaled + limit * BigInt(move.at - at))
      at = move.at
      scaled += ((move.limit ?? limit) - limit) * 60_000n
      limit = move.limit ?? limit
      scaled = minOf(limit * 60_000n, scaled - move.tokens * 60_000n)
    }
    return { scaled, limit }
  }

  #rates(rules: readonly LimitRule[]): RateStates {
    const tightest = (kind: LimitRule['kind']): RateState | null => {
      const states = rules.filter((rule) => rule.kind === kind).map((rule) => this.#rate(rule))
      return states.toSorted((a, b) => a.remaining * b.limit - b.remaining * a.limit)[0] ?? null
    }
    return { requests: tightest('requests_per_minute'), tokens: tightest('tokens_per_minute') }
  }

  #rate(rule: LimitRule): RateState {
    const { scaled, limit } = this.#bucket(rule)
    const missing = limit * 60_000n - scaled
    const reset_ms = limit === 0n ? 0 : Number((missing + limit - 1n) / limit)
    return { limit: Number(limit), remaining: Number(maxOf(0n, scaled / 60_000n)), reset_ms }
  }
}

function isOpen({ state }: ReferenceHold): boolean {
  return state === 'H' || state === 'X'
}

function isRate({ kind }: LimitRule): boolean {
  return kind === 'requests_per_minute' || kind === 'tokens_per_minute'
}

function counterOf({ kind, scope, scope_id, model, window }: LimitRule): string {
  return [kind, scope, scope_id, model, window?.name].join('|')
}

function needOf({ kind }: LimitRule, tokens: number, amount_nano: bigint): bigint {
  if (kind === 'budget' || kind === 'amount_window') return amount_nano
  return kind === 'tokens_per_minute' || kind === 'tokens_window' ? BigInt(tokens) : 1n
}

/** When the five hours of each limit began. */
function begunOf(counted: readonly Counted[]): Readonly<Record<string, number>> {
  const five_hours = counted.filter(({ rule }) => rule.window?.name === '5h')
  return Object.fromEntries(
    five_hours.map(({ rule: { scope, kind, model }, end_ms }) => [
      `${scope} ${kind}${model === null ? '' : ` ${model}`}`,
      end_ms - 5 * HOUR_MS,
    ]),
  )
}

/** Something that costs money is never admitted on nothing. */
function leastOf({ amount_nano, minimum_nano }: HoldRequest): bigint {
  return amount_nano === 0n ? 0n : minOf(amount_nano, maxOf(1n, minimum_nano))
}

function paysFor({ models }: GrantTerms, model: string): boolean {
  return models === null || models.includes(model)
}

/** Millionths of a unit that a token takes; of a part that is held already, as when it was held. */
function weightFor({ id, weights }: GrantTerms, { model, already }: Need): number {
  const held = already.find(({ grant, unit }) => grant === id && unit === 'tokens')
  return held === undefined ? Math.round(Number(weights?.[model] ?? '1') * 1_000_000) : (held.weight_micro ?? 1_000_000)
}

function partOf(grant: string, amount: bigint, weight_micro: number): HeldPart {
  return weight_micro === 1_000_000 ? { grant, unit: 'tokens', amount } : { grant, unit: 'tokens', amount, weight_micro }
}

function tokensOf(part: HeldPart): bigint {
  return tokensCovered(part.amount, part.weight_micro ?? 1_000_000)
}

function burnOrder(a: GrantTerms, b: GrantTerms): number {
  const order = a.priority - b.priority || (a.expires_at ?? Infinity) - (b.expires_at ?? Infinity) || a.created_at - b.created_at
  return Number.isNaN(order) || order === 0 ? (a.id < b.id ? -1 : 1) : order
}

function joined(parts: readonly HeldPart[], added: readonly HeldPart[]): readonly HeldPart[] {
  const more = (part: HeldPart): bigint => sum(added.filter(({ grant, unit }) => grant === part.grant && unit === part.unit))
  const fresh = added.filter(({ grant, unit }) => !parts.some((part) => part.grant === grant && part.unit === unit))
  return [...parts.map((part) => ({ ...part, amount: part.amount + more(part) })), ...fresh]
}

function sameCharge(a: Charged | null, b: Charged): boolean {
  const text = ({ tokens, amount_nano, parts }: Charged): string =>
    [tokens, amount_nano, ...parts.map(({ grant, unit, amount }) => `${grant} ${unit} ${amount}`)].join('|')
  return text(a ?? { tokens: 0, amount_nano: 0n, parts: [] }) === text(b)
}

function blockedBy(reason: 'key_revoked' | 'tenant_suspended'): HoldRefusal {
  return { reason, rule: null, available: 0n, held: 0n, needed: 0n, frees_at_ms: null }
}

function sum(parts: readonly PaymentPart[]): bigint {
  return parts.reduce((total, { amount }) => total + amount, 0n)
}

function minOf(a: bigint, b: bigint): bigint {
  return a < b ? a : b
}

function maxOf(a: bigint, b: bigint): bigint {
  return a > b ? a : b
}
