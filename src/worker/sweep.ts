import type { Clock } from '../base/clock.ts'
import { walletOf } from '../money/grant.ts'
import type { HoldReceipt } from '../money/event.ts'
import { charge, type PriceVersion, type TradingCalendar } from '../money/price.ts'
import { splitPayment } from '../money/split.ts'
import { NO_CALLS, NO_TOKENS, totalTokens } from '../money/usage.ts'
import type { ClosingEvent, Limits, UnfinishedRequest, UsageLog } from '../storage/ports.ts'

/** What the sweeper needs. `price` finds a published version by id, also one that the configuration no longer has. */
export interface SweepDeps {
  readonly log: UsageLog
  readonly limits: Limits
  readonly clock: Clock
  readonly calendar: TradingCalendar
  readonly price: (id: string) => PriceVersion | null
}

/**
 * Closes what a dead process left open: one event each, from the last checkpoint.
 * Without a checkpoint nothing is known to have been delivered and nothing is charged; the event is kept all the same,
 * because the upstream may have worked (its outcome is unknown). Limits are not told: they are rebuilt from the ledger after this.
 *
 * @returns how many were closed
 */
export async function closeUnfinished(deps: SweepDeps): Promise<number> {
  const unfinished = await deps.log.unfinished()
  // At once, so that they share commits; the journal's own queue is the limit.
  await Promise.all(unfinished.map((request) => deps.log.close(sweptEvent(request, deps))))
  return unfinished.length
}

/**
 * Closes requests of this process whose lease has ended: their handler has stopped renewing it. A handler that closes its
 * request meanwhile wins. A hold without a journal row was never admitted, and is given back.
 *
 * @param waiting holds that were swept but not closed yet: kept by the caller, so that a failure is made up for at the next call
 * @returns how many were closed or given back
 */
export async function sweepExpired(deps: SweepDeps, waiting: Map<string, HoldReceipt>): Promise<number> {
  for (const receipt of await deps.limits.sweep(deps.clock.now_ms())) waiting.set(receipt.id, receipt)
  if (waiting.size === 0) return 0
  const asked = [...waiting.values()]
  const unfinished = new Map((await deps.log.unfinished([...waiting.keys()])).map((request) => [request.open.hold.id, request]))
  let closed = 0
  for (const { id, tenant } of asked) {
    const request = unfinished.get(id)
    // Before the attempt: what cannot be closed must not keep the others from it.
    waiting.delete(id)
    if (request === undefined) await deps.limits.release(id, tenant)
    else if (!(await settle(request, deps))) continue
    closed += 1
  }
  return closed
}

/** @returns false if its handler had closed the request meanwhile */
async function settle(request: UnfinishedRequest, deps: SweepDeps): Promise<boolean> {
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
  if (state === 'duplicate') return false
  await deps.log.close(event)
  return true
}

/** The event of a request that nobody finished. Pure but for the clock's reading. */
export function sweptEvent({ open, last }: UnfinishedRequest, deps: Pick<SweepDeps, 'clock' | 'calendar' | 'price'>): ClosingEvent {
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
