import type { Bagged } from '../base/bag.ts'
import type { CheckpointRow, ExtendRequest, ExtendResult, HoldRefusal, OpenContext, OpenRow } from '../storage/ports.ts'
import type { HoldReceipt } from '../money/event.ts'
import { LEASE_MS, type Admission } from './admit.ts'
import { deliveredTokens } from './meter.ts'
import type { Progress } from './progress.ts'
import { amountFor } from './quote.ts'
import type { StreamTicker } from './ticker.ts'

/** A lease younger than this is not renewed: it is renewed well before it could end. */
const RENEW_AFTER_MS = LEASE_MS / 3

/** An upstream may seem this far beyond the caller's cap, and a quarter of it, before it counts as ignoring it: estimates err. */
const CAP_SLACK_TOKENS = 16
/** Output that is paid for at a time beyond the cap, at least. */
const SMALLEST_SLICE_TOKENS = 256

/** What the relay may do next: go on, wait for an answer about more money, or stop. */
export type Allowance = 'go' | 'wait' | 'stop'

/**
 * The hold of one running request: renewed while it runs, extended before a stream outgrows it, checkpointed as it is delivered.
 * All of it goes out in the ticker's batch.
 */
export class Lease implements Bagged {
  bag_index = -1
  readonly #admission: Admission
  readonly #progress: Progress
  readonly #ticker: StreamTicker
  #receipt: HoldReceipt
  #renewed_at_ms: number
  /** Output tokens, all choices together, that the hold covers. */
  #output_held: number
  /** Output tokens that the extension in progress would cover, or null. */
  #asked_output: number | null = null
  /** The same for the extension whose answer is awaited. */
  #sent_output: number | null = null
  #refusal: HoldRefusal | null = null
  #lapsed = false
  #checkpointed_output = -1
  /** What is kept with the hold has to be corrected. */
  #context_off: boolean
  #onAllowance: (() => void) | null = null
  #onKeepalive: ((now_ms: number) => void) | null = null

  constructor(admission: Admission, progress: Progress, ticker: StreamTicker) {
    this.#admission = admission
    this.#progress = progress
    this.#ticker = ticker
    this.#receipt = admission.receipt
    this.#renewed_at_ms = admission.receipt.admitted_at
    this.#context_off = admission.context_off
    this.#output_held = (admission.capped_tokens ?? admission.quote.output_held) * admission.quote.choices
    ticker.add(this)
  }

  get id(): string {
    return this.#receipt.id
  }

  /** The receipt with every extension so far: what settle and the event use. */
  get receipt(): HoldReceipt {
    return this.#receipt
  }

  /** Why the last extension was refused, once `allowance` says stop. */
  get refusal(): HoldRefusal | null {
    return this.#refusal
  }

  /** Called when an allowance that was `wait` may have changed. */
  whenDecided(listener: () => void): void {
    this.#onAllowance = listener
  }

  /** Called once a second, for keep-alive comments. */
  whenTicked(listener: (now_ms: number) => void): void {
    this.#onKeepalive = listener
  }

  /** May a stream that has delivered `output_tokens` go on? Asks for more at half a slice. */
  allowance(output_tokens: number): Allowance {
    if (this.#lapsed) return 'stop'
    const left = this.#output_held - output_tokens
    if (left > this.#reserve()) return 'go'
    if (this.#refusal !== null) return left > 0 ? 'go' : 'stop'
    if (this.#asked_output === null) {
      this.#asked_output = this.#nextOutputHeld()
      this.#ticker.extendSoon(this)
    }
    return left > 0 ? 'go' : 'wait'
  }

  /**
   * For the ticker: the extension or renewal that is due, or null.
   * @param checkpoint to be kept with the hold, where holds outlive this process; null where there is nothing new
   */
  dueExtension(now_ms: number, checkpoint: CheckpointRow | null = null): ExtendRequest | null {
    const output = this.#asked_output
    if (output === null && checkpoint === null && !this.#context_off && now_ms - this.#renewed_at_ms < RENEW_AFTER_MS) return null
    const { quote, row } = this.#admission
    const kept = { ...(checkpoint === null ? {} : { checkpoint }), ...(this.#context_off ? { context: contextOf(row) } : {}) }
    const { tenant, tokens, amount_nano } = this.#receipt
    if (output === null) return { id: this.id, tenant, tokens, amount_nano, lease_ms: LEASE_MS, ...kept }
    this.#sent_output = output
    return { id: this.id, tenant, tokens: quote.prompt_bound + output, amount_nano: amountFor(quote, output), lease_ms: LEASE_MS, ...kept }
  }

  /** For the ticker: what became of the extension. */
  extended(result: ExtendResult, now_ms: number): void {
    // The answer is to what was sent: more may have been asked for since.
    const sent = this.#sent_output
    this.#sent_output = null
    if (sent !== null) this.#asked_output = null
    if (result.state === 'extended') {
      this.#context_off = false
      this.#receipt = result.receipt
      this.#renewed_at_ms = now_ms
      if (sent !== null) this.#output_held = sent
    }
    if (result.state === 'refused') this.#refusal = result.refusal
    if (result.state === 'lapsed') this.#lapsed = true
    this.#onAllowance?.()
  }

  /** For the ticker: a checkpoint if anything was delivered since the last one. */
  dueCheckpoint(now_ms: number): CheckpointRow | null {
    const { delivered, target } = this.#progress
    if (!delivered || target === null) return null
    const tokens = deliveredTokens(this.#admission.quote.prompt_tokens, this.#progress)
    if (tokens.output === this.#checkpointed_output) return null
    this.#checkpointed_output = tokens.output
    return {
      v: 1,
      id: this.id,
      at: now_ms,
      endpoint: target.id,
      tokens,
      ttfe_ms: this.#progress.ttfe_ms,
      attempts: [...this.#progress.attempts],
      // What was delivered is paid by what was held for it, also when nobody is left who remembers the extension.
      ...(this.#receipt === this.#admission.receipt ? {} : { hold: this.#receipt }),
    }
  }

  tick(now_ms: number): void {
    this.#onKeepalive?.(now_ms)
  }

  /** The request has ended: nothing is renewed any more. */
  end(): void {
    this.#ticker.remove(this)
  }

  /** How much must be left: half a slice, or nothing but the estimate's own error once the caller's cap is covered. */
  #reserve(): number {
    const { quote } = this.#admission
    const limit = quote.output_limit * quote.choices
    if (this.#output_held < limit) return Math.ceil((quote.output_held * quote.choices) / 2)
    return -Math.ceil(limit / 4) - CAP_SLACK_TOKENS
  }

  /** One slice more, up to the cap; beyond the cap when the upstream does not keep to it: it must be paid for all the same. */
  #nextOutputHeld(): number {
    const { quote } = this.#admission
    const limit = quote.output_limit * quote.choices
    const slice = quote.output_held * quote.choices
    if (this.#output_held < limit) return Math.min(limit, this.#output_held + slice)
    return this.#output_held + Math.ceil(limit / 4) + Math.max(SMALLEST_SLICE_TOKENS, slice)
  }
}

function contextOf({ hold: _, ...context }: OpenRow): OpenContext {
  return context
}
