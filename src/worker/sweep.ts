import type { Clock } from '../base/clock.ts'
import { walletOf } from '../money/grant.ts'
import type { HoldReceipt } from '../money/event.ts'
import { charge, type PriceVersion, type TradingCalendar } from '../money/price.ts'
import { splitPayment } from '../money/split.ts'
import { NO_CALLS, NO_TOKENS, totalTokens } from '../money/usage.ts'
import type { ClosingEvent, Limits, UnfinishedRequest, UsageLog } from '../storage/ports.ts'

/** Finds a published version by id, also one that the configuration no longer has. */
export type FindPrice = (id: string) => PriceVersion | null

export interface SweepDeps {
  readonly log: UsageLog
  readonly limits: Limits
  readonly clock: Clock
  readonly calendar: TradingCalendar
  /** Reads every published version: only where something is to be closed. */
  readonly prices: () => Promise<FindPrice>
}

/** A hold that was swept and is not closed yet; with an event once limits have settled it. */
export interface SweptHold {
  readonly receipt: HoldReceipt
  readonly event: ClosingEvent | null
}

/** What pricing a swept request takes. */
type SweepPricing = Pick<SweepDeps, 'clock' | 'calendar'> & { readonly price: FindPrice }

/**
 * Closes what a dead process left open: one event each, from the last checkpoint.
 * Without a checkpoint nothing is known to have been delivered and nothing is charged; the event is kept all the same,
 * because the upstream may have worked (its outcome is unknown). Limits are not told: they are rebuilt from the ledger after this.
 *
 * @returns how many were closed
 */
export async function closeUnfinished(deps: SweepDeps): Promise<number> {
  const unfinished = await deps.log.unfinished()
  if (unfinished.length === 0) return 0
  const pricing = { ...deps, price: await deps.prices() }
  // At once, so that they share commits; the journal's own queue is the limit.
  await Promise.all(unfinished.map((request) => deps.log.close(sweptEvent(request, pricing))))
  return unfinished.length
}

/**
 * Closes requests of this process whose lease has ended: their handler has stopped renewing it. A handler that closes its
 * request meanwhile wins. A hold without a journal row was never admitted, and is given back.
 *
 * @param waiting holds that were swept but not closed yet: kept by the caller, so that a failure is made up for at the next call
 * @returns how many were closed or given back
 * @throws the first failure, after the others were tried
 */
export async function sweepExpired(deps: SweepDeps, waiting: Map<string, SweptHold>): Promise<number> {
  for (const receipt of await deps.limits.sweep(deps.clock.now_ms())) waiting.set(receipt.id, { receipt, event: null })
  if (waiting.size === 0) return 0
  const asked = [...waiting.values()]
  const unfinished = new Map((await deps.log.unfinished([...waiting.keys()])).map((request) => [request.open.hold.id, request]))
  const pricing = { ...deps, price: unfinished.size === 0 ? () => null : await deps.prices() }
  const failures: unknown[] = []
  let closed = 0
  for (const hold of asked) {
    // What cannot be closed must not keep the others from it.
    try {
      if (await finish(hold, unfinished.get(hold.receipt.id), pricing, waiting)) closed += 1
    } catch (error) {
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
  return closed
}

/** @returns false if its handler had closed the request meanwhile */
async function finish(
  { receipt: { id, tenant }, event }: SweptHold,
  request: UnfinishedRequest | undefined,
  deps: SweepDeps & SweepPricing,
  waiting: Map<string, SweptHold>,
): Promise<boolean> {
  // Before the attempt: a request that has no event now will have none at the next call either.
  waiting.delete(id)
  if (request === undefined) {
    // With an event: the journal had it after all.
    if (event === null) await deps.limits.release(id, tenant)
    return true
  }
  const closing = event ?? (await settle(request, deps))
  if (closing === null) return false
  try {
    await deps.log.close(closing)
  } catch (error) {
    // Limits have charged it, so it is this event that has to be written.
    waiting.set(id, { receipt: closing.hold, event: closing })
    throw error
  }
  return true
}

/** @returns the event to be written, or null if its handler had closed the request meanwhile */
async function settle(request: UnfinishedRequest, deps: SweepDeps & SweepPricing): Promise<ClosingEvent | null> {
  const event = sweptEvent(request, deps)
  const state = await deps.limits.settle({
    id: event.id,
    tenant: event.tenant,
    admitted_at: event.admitted_at,
    tokens: totalTokens(event.tokens),
    amount_nano: event.amount_nano,
    parts: event.parts,
    swept: true,
  })
  return state === 'duplicate' ? null : event
}

/** The event of a request that nobody finished. Pure but for the clock's reading. */
export function sweptEvent({ open, last }: UnfinishedRequest, deps: SweepPricing): ClosingEvent {
  const { hold, targets, prompt_tokens: _, thinking, ...known } = open
  const receipt = last?.hold ?? hold
  const target = targets.find(({ endpoint }) => endpoint === last?.endpoint) ?? targets[0]
  if (target === undefined) throw new Error(`journal row of ${receipt.id} names no target`)
  const tokens = last?.tokens ?? NO_TOKENS
  const flags = last === null ? ['unknown_outcome'] : []
  const charged = (version: string | null): { amount_nano: bigint; rule: string | null } => {
    const published = version === null ? null : deps.price(version)
    if (published === null) return { amount_nano: 0n, rule: null }
    const price = judgeable(published, deps.calendar)
    if (price !== published && !flags.includes('price_window_missing')) flags.push('price_window_missing')
    return charge(price, tokens, NO_CALLS, { admitted_at: receipt.admitted_at, thinking: thinking || tokens.reasoning > 0 }, deps.calendar)
  }
  const price = charged(target.price_version)
  const split = splitPayment(
    receipt,
    { amount_nano: price.amount_nano, tokens: totalTokens(tokens), requests: last === null ? 0 : 1 },
    walletOf(receipt.tenant),
  )
  const cost_nano = charged(target.cost_version).amount_nano
  const ended_at = deps.clock.now_ms()
  return {
    ...known,
    id: receipt.id,
    revision: 1,
    admitted_at: receipt.admitted_at,
    ended_at,
    tenant: receipt.tenant,
    project: receipt.project,
    key: receipt.key,
    zone: target.zone,
    model: target.model,
    endpoint: target.endpoint,
    provider: target.provider,
    filing: target.filing,
    dialect: target.dialect,
    status: 'swept',
    code: null,
    finish_reason: null,
    usage_source: 'swept',
    tokens,
    calls: NO_CALLS,
    ttfe_ms: last?.ttfe_ms ?? null,
    duration_ms: Math.max(0, (last?.at ?? receipt.admitted_at) - receipt.admitted_at),
    attempts: last?.attempts ?? [],
    price_version: target.price_version,
    price_rule: price.rule,
    amount_nano: price.amount_nano,
    cost_nano,
    parts: split.parts,
    hold: receipt,
    overrun_nano: split.overrun_nano,
    flags,
  }
}

/** The version itself or, where the calendar has lost windows that it names, the version without the rules that name them. */
function judgeable(version: PriceVersion, calendar: TradingCalendar): PriceVersion {
  const rules = version.rules.filter(({ when }) => when.window === undefined || calendar.windows.has(when.window))
  return rules.length === version.rules.length ? version : { ...version, rules }
}
