import type { ErrorCode } from '../base/errors.ts'
import { WeirError } from '../base/errors.ts'
import type { EventStatus } from '../money/event.ts'
import { walletOf } from '../money/grant.ts'
import { charge } from '../money/price.ts'
import { splitPayment } from '../money/split.ts'
import { totalTokens } from '../money/usage.ts'
import type { ClosingEvent } from '../storage/ports.ts'
import type { Admission } from './admit.ts'
import type { Call } from './call.ts'
import { Lease } from './lease.ts'
import { meter } from './meter.ts'
import type { Plane } from './plane.ts'
import { type Earlier, newProgress, type Progress } from './progress.ts'

/** How a request ended, as its event will say. */
export interface Ending {
  readonly status: Exclude<EventStatus, 'swept'>
  readonly code: ErrorCode | null
}

/** Closes one hold exactly once, whatever the exit: the only place that does. */
export interface Settlement {
  readonly progress: Progress
  readonly lease: Lease
  /** Resolves when the event is durable (or the hold released, if no upstream was reached). Later calls get the first one's answer. */
  close(ending: Ending): Promise<void>
  /** For an answer of which nothing left because its event is not durable: its charge goes back, and a second revision says so. */
  withdraw(): Promise<void>
  /** The closed event, for the log line; null while open or when released. */
  event(): ClosingEvent | null
}

/** Opens the settlement of an admitted request; `earlier` is what models before this one have left behind. */
export function settleOnce(call: Call, admission: Admission, plane: Plane, earlier: Earlier): Settlement {
  const progress = newProgress(earlier)
  const lease = new Lease(admission, progress, plane.ticker)
  let closing: Promise<void> | null = null
  let event: ClosingEvent | null = null

  async function close(ending: Ending): Promise<void> {
    lease.end()
    if (!progress.reached) return await plane.closing.release(admission.receipt.id, admission.receipt.tenant)
    event = closingEvent(call, admission, lease, progress, ending, plane)
    try {
      event = await plane.closing.close(event)
    } catch (cause) {
      throw new WeirError('admission_unavailable', { cause })
    }
    plane.metrics.event(event)
  }
  return {
    progress,
    lease,
    close: (ending) => (closing ??= close(ending)),
    withdraw: async () => {
      if (event !== null) event = await plane.closing.withdraw(event)
    },
    event: () => event,
  }
}

function closingEvent(call: Call, admission: Admission, lease: Lease, progress: Progress, ending: Ending, plane: Plane): ClosingEvent {
  const { row, quote, price: version, costs, snapshot } = admission
  const { calendar } = snapshot.configuration.prices
  const metered = meter(quote.prompt_tokens, progress)
  const target = row.targets.find(({ endpoint }) => endpoint === progress.target?.id) ?? row.targets[0]
  if (target === undefined) throw new WeirError('internal_error')
  const when = { admitted_at: row.hold.admitted_at, thinking: row.thinking || metered.tokens.reasoning > 0 }
  const price = charge(version, metered.tokens, metered.calls, when, calendar)
  const cost = costs.get(target.endpoint)
  const cost_nano = cost === undefined ? 0n : charge(cost, metered.tokens, metered.calls, when, calendar).amount_nano
  const receipt = lease.receipt
  const actual = {
    amount_nano: price.amount_nano,
    tokens: totalTokens(metered.tokens),
    requests: progress.delivered || progress.drained ? 1 : 0,
  }
  const split = splitPayment(receipt, actual, walletOf(receipt.tenant))
  const { hold: _, targets: __, prompt_tokens: ___, thinking: ____, v, ...known } = row
  return {
    ...known,
    v,
    id: receipt.id,
    revision: 1,
    admitted_at: receipt.admitted_at,
    ended_at: plane.clock.now_ms(),
    tenant: receipt.tenant,
    project: receipt.project,
    key: receipt.key,
    zone: target.zone,
    model: target.model,
    endpoint: target.endpoint,
    provider: target.provider,
    filing: target.filing,
    dialect: target.dialect,
    status: ending.status,
    code: ending.code,
    finish_reason: progress.observe?.().finish_reason ?? null,
    usage_source: metered.source,
    tokens: metered.tokens,
    calls: metered.calls,
    ttfe_ms: progress.ttfe_ms,
    duration_ms: Math.round(plane.clock.monotonic_ms() - call.started_ms),
    attempts: withCost(progress, cost_nano),
    price_version: version.id,
    price_rule: price.rule,
    amount_nano: price.amount_nano,
    cost_nano,
    parts: split.parts,
    hold: receipt,
    overrun_nano: split.overrun_nano,
    flags: flagsOf(admission, progress),
  }
}

/** The last try is the one that was answered: its cost is the answer's. */
function withCost(progress: Progress, cost_nano: bigint): Progress['attempts'] {
  return progress.attempts.map((attempt, index) => (index === progress.attempts.length - 1 ? { ...attempt, cost_nano } : attempt))
}

function flagsOf(admission: Admission, progress: Progress): readonly string[] {
  const flags = [...(progress.observe?.().repairs ?? [])].map((name) => `repair:${name}`)
  if (admission.capped_tokens !== null) flags.push('capped')
  if (progress.target?.sandbox === true) flags.push('sandbox')
  flags.push(...progress.follows.map((id) => `follows:${id}`))
  return flags
}
