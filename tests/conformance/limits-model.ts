import { deepStrictEqual, ok } from 'node:assert/strict'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { HoldReceipt } from '../../src/money/event.ts'
import { moneyOfParts, tokensOfParts, walletOf } from '../../src/money/grant.ts'
import { charge, dearest, priceAt, type PriceVersion } from '../../src/money/price.ts'
import { splitPayment } from '../../src/money/split.ts'
import { NO_CALLS, totalTokens } from '../../src/money/usage.ts'
import { windowAround } from '../../src/money/window.ts'
import type {
  BalanceView,
  CreditRequest,
  ExtendRequest,
  GrantTerms,
  HoldRequest,
  HoldResult,
  LimitRule,
  Limits,
  LimitState,
  SettleRequest,
} from '../../src/storage/ports.ts'
import { type TestClock, testClock } from '../support/clock.ts'
import { Reference } from './limits-reference.ts'
import {
  anyStep,
  anyWorld,
  CALENDAR,
  MODELS,
  type PlannedGrant,
  type PlannedRule,
  pricesFrom,
  scopeId,
  type Step,
  TENANTS,
  type Used,
  type World,
} from './limits-steps.ts'

const MAX_STEPS = 80
const HOUR_MS = 3_600_000
const TIMEOUT_MS = 15 * 60_000
/** From so many runs on, everything that can happen has to have happened. */
const ENOUGH_RUNS = 200
const HAPPENINGS = [
  ...['held', 'known', 'rate', 'concurrency', 'window', 'budget', 'balance', 'key_revoked', 'tenant_suspended'].map(
    (name) => `hold ${name}`,
  ),
  ...['extended', 'renewed', 'refused', 'lapsed'].map((name) => `extend ${name}`),
  ...['settled', 'late', 'duplicate'].map((name) => `settle ${name}`),
  ...['applied', 'duplicate', 'gap'].map((name) => `credit ${name}`),
  ...['nano_cny', 'tokens', 'requests', 'credit', 'capped', 'overrun', 'mixed'].map((name) => `paid ${name}`),
]

export interface LimitsModelOptions {
  readonly runs: number
  readonly seed: number
}

/**
 * Random sequences of everything that can be asked of {@link Limits}, held against {@link Reference}: every answer is predicted
 * exactly, and after every step every balance and every limit is what the reference says. Prints what happened how often.
 * `make` gives empty limits that tell the time by the given clock.
 */
export function limitsModel(name: string, make: (clock: TestClock) => Limits | Promise<Limits>, options: LimitsModelOptions): void {
  it(
    `limits: ${name}: no overdraft, no limit passed, nothing twice, after any sequence of calls`,
    async () => {
      const tally = new Map<string, number>()
      const property = fc.asyncProperty(anyWorld, fc.array(anyStep, { maxLength: MAX_STEPS, size: 'max' }), async (world, steps) => {
        const clock = testClock(world.start_ms)
        const run = new Run(world, clock, await make(clock), tally)
        await run.begin()
        for (const step of steps) await run.step(step)
        await run.end()
      })
      await fc.assert(property, { seed: options.seed, numRuns: options.runs, endOnFailure: false })
      console.info(
        `${options.runs} runs: ${[...tally]
          .map(([what, times]) => `${what} ${times}`)
          .toSorted()
          .join(', ')}`,
      )
      if (options.runs >= ENOUGH_RUNS) expect(HAPPENINGS.filter((what) => !tally.has(what))).toEqual([])
    },
    TIMEOUT_MS,
  )
}

/** A call as it was made, so that it can be made again. */
type Made = () => Promise<boolean>

interface Seen {
  readonly views: readonly BalanceView[]
  readonly states: readonly LimitState[]
  readonly open: number
}

class Run {
  readonly #world: World
  readonly #clock: TestClock
  readonly #limits: Limits
  readonly #model: Reference
  readonly #tally: Map<string, number>
  readonly #prices: readonly PriceVersion[]
  readonly #rules: PlannedRule[]
  readonly #seqs = [0, 0]
  readonly #made: Made[] = []
  /** What the callers know of their holds: the first receipt, and how much they asked for. */
  readonly #asked = new Map<string, { readonly first: HoldReceipt; readonly input: number; output: number }>()
  #line_nano: bigint
  #seen: Seen = { views: [], states: [], open: 0 }

  constructor(world: World, clock: TestClock, limits: Limits, tally: Map<string, number>) {
    this.#world = world
    this.#clock = clock
    this.#limits = limits
    this.#tally = tally
    this.#model = new Reference(world.start_ms)
    this.#prices = pricesFrom(world.start_ms)
    this.#rules = [...world.rules]
    this.#line_nano = BigInt(world.line)
  }

  /** Every tenant has a wallet and some other grants, not all of them with something in it. */
  async begin(): Promise<void> {
    for (const tenant of TENANTS.keys()) {
      for (const [index, { given }] of [...this.#world.grants, { given: this.#world.wallet }].entries()) {
        await this.#credit({ grant: this.#terms(tenant, index, null), delta: BigInt(given), seq: index + 1 })
      }
    }
    await this.#look()
  }

  async step(step: Step): Promise<void> {
    const before = this.#seen
    const may_change = await this.#apply(step)
    await this.#look()
    if (!may_change) deepStrictEqual(this.#seen, before, `${step.do} changed something`)
  }

  /** At rest nothing is held. */
  async end(): Promise<void> {
    for (const { receipt } of this.#model.open) {
      await this.#settle(this.#settlement(receipt.id, { input_percent: 100, output_percent: 50, cached: 0, requests: 1 }, false, false))
    }
    await this.#look()
    for (const { held_nano, open_holds, grants } of this.#seen.views) {
      deepStrictEqual([held_nano, open_holds, grants.filter(({ held }) => held !== 0n)], [0n, 0, []])
    }
    deepStrictEqual([this.#seen.open, this.#seen.states.filter(({ held }) => held !== 0n)], [0, []])
  }

  /** Compares everything that can be seen with the reference. */
  async #look(): Promise<void> {
    const rules = this.#rules.map((rule) => this.#rule(rule, 0))
    const views: BalanceView[] = []
    for (const tenant of TENANTS) views.push(sorted(await this.#limits.balance(tenant)))
    this.#seen = { views, states: await this.#limits.states(rules), open: await this.#limits.openHolds() }
    deepStrictEqual(this.#seen, {
      views: TENANTS.map((tenant) => sorted(this.#model.balance(tenant))),
      states: rules.map((rule) => this.#model.state(rule)),
      open: this.#model.open.length,
    })
  }

  #count(what: string): void {
    this.#tally.set(what, (this.#tally.get(what) ?? 0) + 1)
  }

  /** @returns false where nothing may have changed */
  #apply(step: Step): Promise<boolean> {
    switch (step.do) {
      case 'hold':
        return this.#make(() => this.#hold(this.#holdRequest(step), step))
      case 'extend': {
        const requests = step.ids.map((id) => this.#extension(this.#aimed(id, step.aim), step.more, step.lease_ms))
        return this.#make(() => this.#extend(requests))
      }
      case 'settle': {
        const request = this.#settlement(this.#aimed(step.id, step.aim), step, step.stale, step.swept)
        return this.#make(() => this.#settle(request))
      }
      case 'release': {
        const id = this.#aimed(step.id, step.aim)
        return this.#make(() => this.#release(id))
      }
      case 'sweep':
        return this.#sweep(step)
      case 'credit': {
        const seq = (this.#seqs[step.tenant] ?? 0) + 1 + step.seq_off
        const request = { grant: this.#terms(step.tenant, step.grant, step.changed), delta: BigInt(step.delta), seq }
        return this.#make(() => this.#credit(request))
      }
      case 'block':
        return this.#make(() => this.#block(step.kind, step.which, step.on))
      case 'foreign':
        return this.#make(() => this.#settle(this.#foreign(step)))
      case 'repeat':
        this.#count('repeat')
        return this.#made.at(-1 - step.back)?.() ?? Promise.resolve(false)
      default:
        return Promise.resolve(this.#turn(step))
    }
  }

  #make(call: Made): Promise<boolean> {
    this.#made.push(call)
    return call()
  }

  /** Time, limits and credit lines: what changes without a call. */
  #turn(step: Extract<Step, { do: 'clock' | 'boundary' | 'limit' | 'line' }>): boolean {
    if (step.do === 'clock') this.#clock.advance(step.by_ms)
    if (step.do === 'boundary') {
      const by_ms = this.#instantOf(step) - step.before_ms - this.#clock.now_ms()
      this.#clock.advance(Math.max(0, by_ms))
    }
    if (step.do === 'line') this.#line_nano = BigInt(step.line)
    const rule = step.do === 'limit' ? this.#rules[step.rule] : undefined
    if (step.do === 'limit' && rule !== undefined)
      this.#rules[step.rule] = { ...rule, limit: Math.min(step.limit, rule.limit <= 5 ? 5 : 400) }
    this.#model.now_ms = this.#clock.now_ms()
    return true
  }

  #instantOf({ of, zone }: Extract<Step, { do: 'boundary' }>): number {
    const now_ms = this.#clock.now_ms()
    const next = (instants: readonly number[]): number => Math.min(...instants.filter((at) => at >= now_ms), now_ms + HOUR_MS)
    if (of === 'lease') return next(this.#model.open.map(({ receipt }) => receipt.expires_at))
    if (of === 'expiry') return next(this.#seen.views.flatMap(({ grants }) => grants.map(({ expires_at }) => expires_at ?? Infinity)))
    return windowAround(of, this.#world.zones[zone] ?? 'UTC', now_ms).end_ms
  }

  // -------------------------------------------------------------- calls

  async #hold(request: HoldRequest, asked: { readonly input: number; readonly output: number }): Promise<boolean> {
    const known = this.#model.known(request.id) !== undefined
    // Whoever asks again computes the boundaries of windows again.
    const current = { ...request, rules: request.rules.map((rule) => this.#again(rule)) }
    const predicted = this.#model.hold(current)
    deepStrictEqual(await this.#limits.hold(current), predicted)
    this.#count(`hold ${predicted.ok ? (known ? 'known' : 'held') : predicted.refusal.reason}`)
    if (!predicted.ok || known) return false
    this.#asked.set(request.id, { first: predicted.receipt, input: asked.input, output: asked.output })
    this.#checkAdmitted(request, predicted)
    return true
  }

  /** What promise 3 says of every admission, apart from the reference's own decisions. */
  #checkAdmitted(request: HoldRequest, { receipt }: Extract<HoldResult, { ok: true }>): void {
    const { tenant, rules, credit_line_nano } = request
    const money_nano = this.#checkCovered(receipt, request.minimum_tokens)
    if (money_nano > 0n) ok(this.#model.balance(tenant).available_nano >= -credit_line_nano, 'the credit line was passed')
    for (const rule of rules) {
      if (rule.kind.endsWith('per_minute') || rule.kind === 'concurrency') continue
      const { used, held } = this.#model.meter(rule)
      ok(used + held <= rule.limit, `${rule.kind} admitted above its limit`)
    }
    if (receipt.amount_nano < request.amount_nano) this.#count('paid capped')
  }

  /** What was reserved pays: one request, tokens for as many as were asked for at least, or money for the whole amount. @returns the money */
  #checkCovered({ parts, amount_nano }: HoldReceipt, tokens: number): bigint {
    const units = new Set(parts.map(({ unit }) => unit))
    for (const { grant, unit, amount } of parts) {
      ok(amount > 0n, 'an empty part')
      this.#count(`paid ${grant === 'credit' ? grant : unit}`)
    }
    if (units.size === 2) this.#count('paid mixed')
    const money_nano = moneyOfParts(parts)
    const by_tokens = units.has('tokens') && tokensOfParts(parts) >= BigInt(tokens)
    ok(units.has('requests') || by_tokens || money_nano === amount_nano, 'what was reserved does not pay')
    return money_nano
  }

  async #extend(requests: readonly ExtendRequest[]): Promise<boolean> {
    const before = requests.map(({ id }) => this.#model.known(id)?.receipt)
    const predicted = requests.map((request) => this.#model.extend(request))
    deepStrictEqual(await this.#limits.extend(requests), predicted)
    let changed = false
    for (const [index, result] of predicted.entries()) {
      const grew =
        result.state === 'extended' &&
        result.receipt.tokens + Number(result.receipt.amount_nano) > (before[index]?.tokens ?? 0) + Number(before[index]?.amount_nano ?? 0)
      this.#count(`extend ${result.state === 'extended' && !grew ? 'renewed' : result.state}`)
      changed ||= grew
      if (grew) this.#checkCovered(result.receipt, result.receipt.tokens)
    }
    return changed
  }

  async #settle(request: SettleRequest): Promise<boolean> {
    const predicted = this.#model.settle(request)
    deepStrictEqual(await this.#limits.settle(request), predicted)
    this.#count(`settle ${predicted}`)
    return predicted !== 'duplicate'
  }

  async #release(id: string): Promise<boolean> {
    const changed = this.#model.release(id)
    await this.#limits.release(id, tenantOf(id))
    return changed
  }

  /** Takes what expired and, as the sweeper does, charges it or gives it back. */
  async #sweep(step: Extract<Step, { do: 'sweep' }>): Promise<boolean> {
    this.#turn({ do: 'clock', by_ms: step.after_ms })
    const now_ms = this.#clock.now_ms()
    const predicted = this.#model.sweep(now_ms)
    const swept = await this.#limits.sweep(now_ms)
    deepStrictEqual(swept.toSorted(byId), predicted.toSorted(byId))
    let changed = step.after_ms > 0
    if (!step.charge) return changed
    for (const { id } of swept) {
      changed = (step.requests === 1 ? await this.#settle(this.#settlement(id, step, false, true)) : await this.#release(id)) || changed
    }
    return changed
  }

  async #credit(request: CreditRequest): Promise<boolean> {
    const predicted = this.#model.credit(request)
    deepStrictEqual(await this.#limits.credit(request), predicted)
    this.#count(`credit ${predicted}`)
    if (predicted === 'applied') this.#seqs[TENANTS[0] === request.grant.tenant ? 0 : 1] = request.seq
    return predicted === 'applied'
  }

  async #block(kind: 'key' | 'tenant', which: number, on: boolean): Promise<boolean> {
    const id = kind === 'tenant' ? scopeId(kind, which, 0) : scopeId(kind, which, 1)
    this.#model.block(kind, id, on)
    await this.#limits.block(kind, id, on)
    return false
  }

  // -------------------------------------------------------------- requests

  #holdRequest(step: Extract<Step, { do: 'hold' }>): HoldRequest {
    const { input, lease_ms, free } = step
    const id = holdId(step.id)
    const tenant = tenantOf(id)
    const index = step.id % 2
    const [project, key] = [scopeId('project', index, step.project), scopeId('key', index, step.key)]
    const model = MODELS[step.model] ?? MODELS[0]
    const smallest = Math.min(step.output, step.smallest)
    const cost = (output: number): bigint => (free ? 0n : dearest(this.#priceAt(this.#clock.now_ms()), { input, output }))
    const ours = this.#rules.filter(
      (rule) => rule.tenant === index && [tenant, project, key].includes(rule.scope_id) && (rule.model ?? model) === model,
    )
    return {
      v: 1,
      id,
      tenant,
      project,
      key,
      model,
      lease_ms,
      tokens: input + smallest,
      grant_tokens: input + step.output,
      minimum_tokens: input + smallest,
      amount_nano: cost(step.output),
      minimum_nano: cost(smallest),
      rules: ours.map((rule) => this.#rule(rule, step.skew_ms)),
      credit_line_nano: this.#line_nano,
    }
  }

  #aimed(id: number, aim: boolean): string {
    const { settleable } = this.#model
    return (aim ? settleable[id % Math.max(1, settleable.length)]?.receipt.id : undefined) ?? holdId(id)
  }

  #extension(id: string, more: number, lease_ms: number): ExtendRequest {
    const asked = this.#asked.get(id)
    const [input, output] = [asked?.input ?? 10, Math.max(0, (asked?.output ?? 10) + more)]
    if (asked !== undefined) asked.output = Math.max(asked.output, output)
    const price = this.#priceAt(asked?.first.admitted_at ?? this.#clock.now_ms())
    return { id, tenant: tenantOf(id), tokens: input + output, amount_nano: dearest(price, { input, output }), lease_ms }
  }

  /** The charge of an answer at the price of its admission, split by the receipt that its caller has. */
  #settlement(id: string, used: Used, stale: boolean, swept: boolean): SettleRequest {
    const asked = this.#asked.get(id)
    const receipt = stale ? asked?.first : (this.#model.known(id)?.receipt ?? asked?.first)
    const input = Math.floor(((asked?.input ?? 10) * used.input_percent) / 100)
    const cached_input = Math.min(input, used.cached)
    const output = Math.floor(((asked?.output ?? 10) * used.output_percent) / 100)
    const tokens = { input: input - cached_input, cached_input, cache_write: 0, output, reasoning: 0 }
    const admitted_at = receipt?.admitted_at ?? this.#clock.now_ms()
    const { amount_nano } = charge(this.#priceAt(admitted_at), tokens, NO_CALLS, { admitted_at, thinking: false }, CALENDAR)
    const tenant = tenantOf(id)
    const none = {
      v: 1,
      id,
      tenant,
      project: '',
      key: '',
      model: '',
      admitted_at,
      expires_at: 0,
      tokens: 0,
      amount_nano: 0n,
      parts: [],
    } as const
    const actual = { amount_nano, tokens: totalTokens(tokens), requests: used.requests }
    const { parts, overrun_nano } = splitPayment(receipt ?? none, actual, walletOf(tenant))
    if (overrun_nano > 0n && receipt !== undefined) this.#count('paid overrun')
    const units = new Set(receipt?.parts.map(({ unit }) => unit))
    const money_nano = parts.reduce((sum, { unit, amount }) => (unit === 'nano_cny' ? sum + amount : sum), 0n)
    if (!units.has('tokens') && !units.has('requests'))
      deepStrictEqual(money_nano, amount_nano, 'the parts of a split do not sum to its amount')
    return { id, tenant, admitted_at, tokens: totalTokens(tokens), amount_nano, parts, ...(swept ? { swept } : {}) }
  }

  /** A settle of a request that an earlier process had admitted. */
  #foreign({ id, age_ms, amount }: Extract<Step, { do: 'foreign' }>): SettleRequest {
    const amount_nano = BigInt(amount)
    const parts = amount === 0 ? [] : [{ grant: walletOf(TENANTS[0]), unit: 'nano_cny' as const, amount: amount_nano }]
    return { id: `earlier-${id}`, tenant: TENANTS[0], admitted_at: this.#world.start_ms - 1 - age_ms, tokens: 1, amount_nano, parts }
  }

  #priceAt(at_ms: number): PriceVersion {
    const version = priceAt(this.#prices, at_ms)
    ok(version !== null)
    return version
  }

  #terms(tenant: number, grant: number, changed: Pick<PlannedGrant, 'priority' | 'expires_in_ms'> | null): GrantTerms {
    const owner = TENANTS[tenant] ?? TENANTS[0]
    const unlimited = { unit: 'nano_cny', priority: 100, expires_at: null, created_at: 1, models: null, weights: null } as const
    if (grant === 6) return { ...unlimited, id: 'credit', tenant: owner }
    const planned = this.#world.grants[grant]
    if (planned === undefined) return { ...unlimited, id: walletOf(owner), tenant: owner }
    const { unit, created_at, models, weights } = planned
    const { priority, expires_in_ms } = changed ?? planned
    const expires_at = expires_in_ms === null ? null : this.#world.start_ms + expires_in_ms
    return { id: `grant-${grant}`, tenant: owner, unit, priority, expires_at, created_at, models, weights }
  }

  /** A planned limit as a request carries it; the caller's clock may be behind. */
  #rule({ tenant, scope, scope_id, model, kind, limit, window }: PlannedRule, skew_ms: number): LimitRule {
    const zone = this.#world.zones[tenant] ?? 'UTC'
    const span = window === null ? null : windowAround(window, zone, this.#clock.now_ms() - skew_ms)
    return { scope, scope_id, model, kind, limit: BigInt(limit), window: span }
  }

  #again(rule: LimitRule): LimitRule {
    const { window } = rule
    if (window === null || this.#clock.now_ms() < window.next_end_ms) return rule
    const tenant = rule.scope_id.startsWith(TENANTS[0]) ? 0 : 1
    return { ...rule, window: windowAround(window.name, this.#world.zones[tenant] ?? 'UTC', this.#clock.now_ms()) }
  }
}

/** Ids of one tenant are even, of the other odd. */
function holdId(id: number): string {
  return `h${id}`
}

function tenantOf(id: string): string {
  return TENANTS[Number(id.slice(1)) % 2] ?? TENANTS[0]
}

function byId(a: { readonly id: string }, b: { readonly id: string }): number {
  return a.id < b.id ? -1 : 1
}

function sorted(view: BalanceView): BalanceView {
  return { ...view, grants: view.grants.toSorted(byId) }
}
