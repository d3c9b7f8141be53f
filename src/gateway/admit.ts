import { createHmac } from 'node:crypto'
import { dayOf } from '../base/clock.ts'
import { WeirError } from '../base/errors.ts'
import type { Endpoint } from '../config/model.ts'
import type { HoldReceipt } from '../money/event.ts'
import { priceAt, type PriceVersion } from '../money/price.ts'
import type { HoldRequest, LimitRule, OpenContext, OpenRow } from '../storage/ports.ts'
import { rulesFor } from '../storage/rules.ts'
import type { Call, Caller } from './call.ts'
import type { Plane } from './plane.ts'
import { rateHeaders } from './headers.ts'
import { outputCap, type Quote } from './quote.ts'
import { refusalOf } from './refuse.ts'
import { readTags, type RequestFacts } from './request.ts'
import type { Route } from './route.ts'
import type { Snapshot } from './snapshot.ts'

/** An admitted request: its hold is open, and row `S` is in the journal. */
export interface Admission {
  readonly caller: Caller
  readonly facts: RequestFacts
  readonly route: Route
  readonly quote: Quote
  readonly snapshot: Snapshot
  readonly receipt: HoldReceipt
  readonly row: OpenRow
  /** The sell price in force at `admitted_at`. */
  readonly price: PriceVersion
  /** Cost prices by endpoint, fixed at admission likewise. */
  readonly costs: ReadonlyMap<string, PriceVersion>
  /** Output cap per choice to send upstream when the hold pays for less than the quote, else null. */
  readonly capped_tokens: number | null
  /** What is kept with the hold is of another day or price than the row: the hold was taken on the other side of a boundary. */
  readonly context_off: boolean
}

/** What a request is admitted on, whatever the instant of its hold turns out to be. */
interface Asked {
  readonly caller: Caller
  readonly facts: RequestFacts
  readonly route: Route
  readonly quote: Quote
  readonly snapshot: Snapshot
  readonly tags: Readonly<Record<string, string>>
  readonly end_user: string | null
}
/** What belongs to the instant of admission. */
interface Terms {
  readonly context: OpenContext
  readonly price: PriceVersion
  readonly costs: ReadonlyMap<string, PriceVersion>
}

/** A hold is a lease: renewed every second while its request runs, swept when it ends. */
export const LEASE_MS = 30_000

/**
 * One atomic hold over every limit, then the journal row that survives a kill. A refusal leaves nothing behind.
 *
 * @param id of the hold, of its row and of its event
 * @throws WeirError `insufficient_balance`, `budget_exceeded`, `quota_exhausted`, `rate_limit_exceeded`, `concurrency_exceeded`,
 *   `key_revoked`, `tenant_suspended`, `admission_unavailable`
 */
export async function admit(
  call: Call,
  caller: Caller,
  facts: RequestFacts,
  route: Route,
  quote: Quote,
  plane: Plane,
  snapshot: Snapshot,
  id: string = call.id,
): Promise<Admission> {
  const tags = readTags(call.headers['x-weir-tags'])
  const end_user = facts.user === null ? null : endUserHash(facts.user, caller.tenant.id, plane.end_user_secret)
  const asked = { caller, facts, route, quote, snapshot, tags, end_user }
  const now_ms = plane.clock.now_ms()
  // Only where it is kept with the hold: it is made again for the instant that the hold turns out to have.
  const expected = plane.limits.outlives === true ? termsAt(now_ms, asked) : null
  const request = holdRequest(id, caller, route, quote, now_ms)
  const result = await plane.limits.hold(expected === null ? request : { ...request, context: expected.context })
  // Here and nowhere else, so that every answer from now on has them, whatever it turns out to be.
  call.reply.addHeaders(rateHeaders(result.rates))
  if (!result.ok) throw refusalOf(result.refusal, plane.clock.now_ms())
  const { receipt } = result
  const { context, price, costs } = termsAt(receipt.admitted_at, asked)
  const admission: Admission = {
    caller,
    facts,
    route,
    quote,
    snapshot,
    receipt,
    row: { ...context, hold: receipt },
    context_off: expected !== null && !sameTerms(expected.context, context),
    price,
    costs,
    capped_tokens: outputCap(quote, receipt, request.rules.some(isBudget)),
  }
  try {
    await plane.log.open(admission.row)
  } catch (cause) {
    // The row may be committed after all, later than anybody waits for it.
    plane.log.release(id)
    await plane.limits.release(id, caller.tenant.id)
    throw new WeirError('admission_unavailable', { cause, retry_after_ms: 1000 })
  }
  return admission
}

function holdRequest(id: string, caller: Caller, route: Route, quote: Quote, now_ms: number): HoldRequest {
  return {
    v: 1,
    id,
    tenant: caller.tenant.id,
    project: caller.project.id,
    key: caller.key.id,
    model: route.model.id,
    lease_ms: LEASE_MS,
    tokens: quote.tokens,
    grant_tokens: quote.grant_tokens,
    minimum_tokens: quote.minimum_tokens,
    amount_nano: quote.amount_nano,
    minimum_nano: quote.minimum_nano,
    rules: rulesFor(caller, route.model.id, now_ms),
    credit_line_nano: caller.tenant.credit_line_nano,
    when_away: caller.tenant.on_limits_away,
  }
}

function isBudget({ kind }: LimitRule): boolean {
  return kind === 'budget' || kind === 'amount_window'
}

function costsOf(targets: readonly Endpoint[], snapshot: Snapshot, at_ms: number): ReadonlyMap<string, PriceVersion> {
  const costs = new Map<string, PriceVersion>()
  for (const target of targets) {
    const version = priceAt(snapshot.configuration.prices.cost.get(target.id) ?? [], at_ms)
    if (version !== null) costs.set(target.id, version)
  }
  return costs
}

/** Day and prices of a request that is admitted at this instant, and its open row. */
function termsAt(at_ms: number, { caller, facts, route, quote, snapshot, tags, end_user }: Asked): Terms {
  const price = priceAt(snapshot.configuration.prices.sell.get(route.model.id) ?? [], at_ms) ?? quote.price
  const costs = costsOf(route.targets, snapshot, at_ms)
  const context: OpenContext = {
    v: 1,
    day: dayOf(at_ms),
    end_user,
    tags,
    protocol: facts.protocol,
    audience: caller.tenant.audience,
    registry_date: snapshot.configuration.filings.as_of,
    model_asked: facts.model_asked,
    route: route.reason,
    domain: route.domain,
    stream: facts.stream,
    thinking: facts.thinking,
    prompt_tokens: quote.prompt_tokens,
    targets: route.targets.map((target) => ({
      endpoint: target.id,
      provider: target.provider,
      model: route.model.id,
      zone: target.zone,
      filing: target.filing?.row?.number ?? null,
      dialect: target.dialect,
      price_version: price.id,
      cost_version: costs.get(target.id)?.id ?? null,
    })),
  }
  return { context, price, costs }
}

function sameTerms(a: OpenContext, b: OpenContext): boolean {
  const versions = ({ targets }: OpenContext): string =>
    targets.map((target) => `${target.price_version} ${target.cost_version}`).join('\n')
  return a.day === b.day && versions(a) === versions(b)
}

/** A keyed hash, so that end users can be told apart in reports but not named from them. */
function endUserHash(user: string, tenant: string, secret: Buffer): string {
  return createHmac('sha256', secret).update(`${tenant}\0${user}`).digest('hex').slice(0, 32)
}
