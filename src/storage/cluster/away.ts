import type { Clock } from '../../base/clock.ts'
import type { HoldReceipt } from '../../money/event.ts'
import { LimitsUnavailable, type SettleOutcome, type SharedLimits } from '../cluster-ports.ts'
import type {
  BalanceView,
  CreditRequest,
  CreditState,
  ExtendRequest,
  ExtendResult,
  HoldRequest,
  HoldResult,
  LimitRule,
  Limits,
  LimitState,
  SettleRequest,
  SettleState,
} from '../ports.ts'

export interface AwayDeps {
  readonly shared: SharedLimits
  readonly clock: Clock
  /** Gateways that are up, as far as this one knew last: each may give its part of a credit line. At least 1. */
  readonly liveNodes: () => number
}

/** What closing a request takes. */
export type ClosableLimits = Pick<SharedLimits, 'settleEvent' | 'isMine' | 'forget' | 'release'>

interface LocalHold {
  receipt: HoldReceipt
  readonly share_nano: bigint
}

const NO_RATES = { requests: null, tokens: null } as const
/** An outage is over when limits have answered for so long: single timeouts between answers must not lend the same credit again and again. */
const CALM_MS = 10_000
/** Most holds of one process while limits are away. */
const MAX_LOCAL = 10_000

/**
 * Limits for a time when the shared ones are away. Tenants whose contract says `open` go on: each process lends them its part of their
 * credit line, and their events are charged by the ledger's outbox later. Everyone else is refused. Nothing but the credit line is
 * looked at meanwhile; each outage begins anew, when what was lent in the last one has come to its end.
 */
export class AwayLimits implements Limits {
  readonly outlives = true
  readonly #deps: AwayDeps
  readonly #local = new Map<string, LocalHold>()
  /** Lent and used in this outage, by tenant. */
  readonly #used = new Map<string, bigint>()
  #lent_ms = -Infinity
  #onClosed: (() => void) | null = null

  constructor(deps: AwayDeps) {
    this.#deps = deps
  }

  /** Has `listener` called whenever a bucket turns out to be closed. */
  onClosed(listener: (() => void) | null): void {
    this.#onClosed = listener
  }

  async hold(request: HoldRequest): Promise<HoldResult> {
    try {
      const result = await this.#heard(this.#deps.shared.hold(request))
      if (this.#used.has(request.tenant)) this.#beginAnew(request.tenant)
      return result
    } catch (error) {
      if (!(error instanceof LimitsUnavailable) || request.when_away !== 'open') throw error
      return this.#lend(request)
    }
  }

  async extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendResult[]> {
    const local = requests.filter(({ id }) => this.#local.has(id)).map((request) => this.#extendLocal(request))
    const others = requests.filter(({ id }) => !this.#local.has(id))
    if (others.length === 0) return local
    try {
      return [...local, ...(await this.#heard(this.#deps.shared.extend(others)))]
    } catch (error) {
      // Those that are left out are asked for again; what was lent here does not depend on them.
      if (local.length > 0 && error instanceof LimitsUnavailable) return local
      throw error
    }
  }

  async settleEvent(request: SettleRequest): Promise<SettleOutcome> {
    const local = this.#local.get(request.id)
    if (local === undefined) return await this.#heard(this.#deps.shared.settleEvent(request))
    this.#end(local, request.amount_nano)
    return { state: 'settled', epoch: null, appended: false, ref: request.event?.ref ?? null, replaced: false }
  }

  async settle(request: SettleRequest): Promise<SettleState> {
    const { state } = await this.settleEvent(request)
    return state === 'expired' ? 'duplicate' : state
  }

  async release(id: string, tenant: string): Promise<void> {
    const local = this.#local.get(id)
    if (local === undefined) return await this.#deps.shared.release(id, tenant)
    this.#end(local, 0n)
  }

  isMine(id: string): boolean {
    return this.#local.has(id) || this.#deps.shared.isMine(id)
  }

  forget(id: string): void {
    const local = this.#local.get(id)
    if (local !== undefined) this.#end(local, local.receipt.amount_nano)
    this.#deps.shared.forget(id)
  }

  sweep(now_ms: number): Promise<readonly HoldReceipt[]> {
    return this.#deps.shared.sweep(now_ms)
  }

  credit(request: CreditRequest): Promise<CreditState> {
    return this.#deps.shared.credit(request)
  }

  block(kind: 'key' | 'tenant', id: string, blocked: boolean): Promise<void> {
    return this.#deps.shared.block(kind, id, blocked)
  }

  balance(tenant: string): Promise<BalanceView> {
    return this.#deps.shared.balance(tenant)
  }

  states(rules: readonly LimitRule[]): Promise<readonly LimitState[]> {
    return this.#deps.shared.states(rules)
  }

  async openHolds(): Promise<number> {
    return this.#local.size + (await this.#deps.shared.openHolds())
  }

  /** Holds that this process has lent, for metrics. */
  get lent(): number {
    return this.#local.size
  }

  async #heard<Result>(answer: Promise<Result>): Promise<Result> {
    try {
      return await answer
    } catch (error) {
      if (error instanceof LimitsUnavailable && error.kind === 'closed') this.#onClosed?.()
      throw error
    }
  }

  #beginAnew(tenant: string): void {
    const calm = this.#deps.clock.monotonic_ms() - this.#lent_ms > CALM_MS
    const owes = (): boolean => [...this.#local.values()].some(({ receipt }) => receipt.tenant === tenant)
    if (calm && !owes()) this.#used.delete(tenant)
  }

  #lend(request: HoldRequest): HoldResult {
    this.#lent_ms = this.#deps.clock.monotonic_ms()
    const { id, tenant, project, key, model, tokens, lease_ms } = request
    const share_nano = request.credit_line_nano / BigInt(Math.max(1, this.#deps.liveNodes()))
    const left = share_nano - (this.#used.get(tenant) ?? 0n)
    const amount_nano = request.amount_nano <= left ? request.amount_nano : left
    const least = request.amount_nano === 0n ? 0n : request.minimum_nano > 0n ? request.minimum_nano : 1n
    if (amount_nano < least || this.#local.size >= MAX_LOCAL) {
      const refusal = { reason: 'balance', rule: null, available: left > 0n ? left : 0n, held: 0n, needed: request.amount_nano } as const
      return { ok: false, refusal: { ...refusal, frees_at_ms: null }, rates: NO_RATES }
    }
    const admitted_at = this.#deps.clock.now_ms()
    const parts = amount_nano === 0n ? [] : [{ grant: 'credit', unit: 'nano_cny', amount: amount_nano } as const]
    const expires_at = admitted_at + lease_ms
    const receipt: HoldReceipt = { v: 1, id, tenant, project, key, model, admitted_at, expires_at, tokens, amount_nano, parts }
    this.#local.set(id, { receipt, share_nano })
    this.#use(tenant, amount_nano)
    return { ok: true, receipt, rates: NO_RATES }
  }

  #extendLocal({ id, tokens, amount_nano, lease_ms }: ExtendRequest): ExtendResult {
    const hold = this.#local.get(id)
    if (hold === undefined) return { id, state: 'lapsed' }
    const { receipt, share_nano } = hold
    const more = amount_nano > receipt.amount_nano ? amount_nano - receipt.amount_nano : 0n
    const left = share_nano - (this.#used.get(receipt.tenant) ?? 0n)
    if (more > left) {
      const refusal = {
        reason: 'balance',
        rule: null,
        available: left,
        held: receipt.amount_nano,
        needed: more,
        frees_at_ms: null,
      } as const
      return { id, state: 'refused', refusal }
    }
    this.#use(receipt.tenant, more)
    const amount = receipt.amount_nano + more
    const parts = amount === 0n ? [] : [{ grant: 'credit', unit: 'nano_cny', amount } as const]
    const expires_at = this.#deps.clock.now_ms() + lease_ms
    hold.receipt = { ...receipt, expires_at, tokens: Math.max(tokens, receipt.tokens), amount_nano: amount, parts }
    return { id, state: 'extended', receipt: hold.receipt }
  }

  #end({ receipt }: LocalHold, used_nano: bigint): void {
    this.#local.delete(receipt.id)
    this.#use(receipt.tenant, used_nano - receipt.amount_nano)
  }

  #use(tenant: string, delta: bigint): void {
    this.#used.set(tenant, (this.#used.get(tenant) ?? 0n) + delta)
  }
}
