import { WeirError } from '../base/errors.ts'
import { uuidv7 } from '../base/ids.ts'
import type { Endpoint } from '../config/model.ts'
import { totalTokens } from '../money/usage.ts'
import { fallbackReason } from '../routing/reason.ts'
import { FAILURES, UpstreamFailure } from '../upstream/failure.ts'
import type { Place } from '../upstream/places.ts'
import { admit, type Admission } from './admit.ts'
import type { Call, Caller } from './call.ts'
import type { Choice, Plan } from './choose.ts'
import { endingOf } from './ending.ts'
import { type Answer, countRetry, forward, isRetry, mayRetry } from './forward.ts'
import type { Plane } from './plane.ts'
import { type Earlier, NOTHING_EARLIER } from './progress.ts'
import { placeFor } from './room.ts'
import type { Route } from './route.ts'
import { settleOnce, type Settlement } from './settle.ts'
import type { Snapshot } from './snapshot.ts'

/** What is asked, and of which models it may be asked. */
export interface Ask {
  readonly caller: Caller
  readonly snapshot: Snapshot
  readonly choice: Choice
}

/** A model that did not answer, and the kind of its failure. */
interface Failed {
  readonly model: string
  readonly kind: string
}

/** A request that is admitted for one model. */
export interface Opened {
  readonly admission: Admission
  readonly settlement: Settlement
  /** Alternatives that are left when this model fails. */
  readonly left: readonly Plan[]
  /** Models that have failed before it. */
  readonly failed: readonly Failed[]
}

/** Admits a request for the model that was chosen. @throws WeirError as `admit` */
export async function admitFirst(call: Call, ask: Ask, plane: Plane): Promise<Opened> {
  const { caller, snapshot, choice } = ask
  const { plan, place, left, failed } = await findPlace(call, ask, plane)
  const { model, reason } = plan.route
  call.notes.model = model.id
  try {
    const route = { ...beginningWith(plan.route, place), reason: plan === choice.first ? reason : fallbackReason(reason, failed, model.id) }
    const admission = await admit(call, caller, plan.facts, route, plan.quote, plane, snapshot)
    plane.retries.request(plane.clock.monotonic_ms())
    return { admission, settlement: settleAt(call, admission, place, NOTHING_EARLIER, plane), left, failed }
  } catch (error) {
    plane.room.leave(place, null)
    throw error
  }
}

interface Placed extends Pick<Opened, 'left' | 'failed'> {
  readonly plan: Plan
  readonly place: Place<Endpoint>
}

/** A place at the first model that has room now; where none has, one at the chosen model, waited for. @throws as `placeFor` */
async function findPlace(call: Call, ask: Ask, plane: Plane): Promise<Placed> {
  const { first, alternatives } = ask.choice
  const plans = [first, ...alternatives]
  for (const [index, plan] of plans.entries()) {
    const place = plane.room.takeFirst(plan.route.targets, plan.quote.tokens)
    if (place === null) continue
    const full = plans.slice(0, index)
    const failed = full.map(({ route }) => ({ model: route.model.id, kind: 'no room' }))
    return { plan, place, left: [...plans.slice(index + 1), ...full], failed }
  }
  return { plan: first, place: await waitForPlace(call, ask, first, plane), left: alternatives, failed: [] }
}

async function waitForPlace(call: Call, { caller, snapshot }: Ask, { route, quote }: Plan, plane: Plane): Promise<Place<Endpoint>> {
  return await placeFor(call, caller.tenant, route, quote.tokens, plane.room, snapshot.configuration.settings.limits)
}

/** The target that has a place for the request is tried first. */
function beginningWith(route: Route, { target }: Place<Endpoint>): Route {
  if (route.targets[0] === target) return route
  return { ...route, targets: [target, ...route.targets.filter((other) => other !== target)] }
}

function settleAt(call: Call, admission: Admission, place: Place<Endpoint>, earlier: Earlier, plane: Plane): Settlement {
  const settlement = settleOnce(call, admission, plane, earlier)
  settlement.progress.place = place
  return settlement
}

/** The upstream has done its part: its place is the next one's. */
export function leavePlace(settlement: Settlement, plane: Plane): void {
  const { progress } = settlement
  const { place } = progress
  if (place === null) return
  progress.place = null
  const event = settlement.event()
  const tokens = event === null ? 0 : totalTokens(event.tokens)
  plane.room.leave(place, tokens === 0 ? null : tokens)
}

/**
 * The answer of the model that is admitted; or, where it fails in a way that lets another model be tried, the same request admitted for the
 * next one, under an id of its own. The first hold is closed before: released, or settled as a failed request that cost nothing.
 *
 * @throws what `forward` has thrown, when no other model may be tried or none admits the request
 */
export async function forwardOrNext(call: Call, ask: Ask, open: Opened, plane: Plane): Promise<Answer | Opened> {
  try {
    return await forward(call, open.admission, open.settlement, plane)
  } catch (error) {
    const kind = mayFallBack(error, call, open, plane)
    const next = kind === null ? null : await nextModel(error, kind, call, ask, open, plane)
    if (next === null) throw error
    return next
  }
}

/** The kind of the failure, or null where another model must not be tried: its answer, or the headers, are on their way, or nobody waits. */
function mayFallBack(error: unknown, call: Call, { admission, settlement, left }: Opened, plane: Plane): string | null {
  const { max_attempts } = admission.snapshot.configuration.settings.limits
  if (left.length === 0 || call.reply.committed || call.reply.gone || call.signal.aborted) return null
  if (settlement.progress.attempts.length >= max_attempts) return null
  // No endpoint could be tried since the route was chosen: there was nothing to retry.
  if (error instanceof WeirError && error.code === 'no_upstream_available') return error.code
  if (!(error instanceof UpstreamFailure) || !FAILURES[error.kind].retry) return null
  if (!isRetry(error)) return error.kind
  if (!mayRetry(plane)) return null
  countRetry(plane)
  return error.kind
}

/** Closes the hold of a model that has failed and admits the request for the next one that its caller can pay for. */
async function nextModel(error: unknown, kind: string, call: Call, ask: Ask, open: Opened, plane: Plane): Promise<Opened | null> {
  const { settlement, admission, left } = open
  await settlement.close(endingOf(error, false))
  leavePlace(settlement, plane)
  const event = settlement.event()
  const { attempts, follows } = settlement.progress
  const earlier = { attempts, follows: event === null ? follows : [...follows, event.id] }
  const failed = [...open.failed, { model: admission.route.model.id, kind }]
  for (const [index, plan] of left.entries()) {
    const next = await admitNext(call, ask, plan, failed, plane)
    if (next !== null)
      return { ...next, settlement: settleAt(call, next.admission, next.place, earlier, plane), left: left.slice(index + 1), failed }
  }
  return null
}

interface Next {
  readonly admission: Admission
  readonly place: Place<Endpoint>
}

/** Null where the caller's limits or balance do not admit it: of all this the caller learns the failure of the model that was tried. */
async function admitNext(call: Call, ask: Ask, plan: Plan, failed: readonly Failed[], plane: Plane): Promise<Next | null> {
  const { caller, snapshot } = ask
  const { model, reason } = plan.route
  const id = uuidv7(plane.clock.now_ms(), plane.randomBytes)
  let place: Place<Endpoint> | null = null
  try {
    place = await waitForPlace(call, ask, plan, plane)
    const route = { ...beginningWith(plan.route, place), reason: fallbackReason(reason, failed, model.id) }
    const admission = await admit(call, caller, plan.facts, route, plan.quote, plane, snapshot, id)
    call.renew(id)
    call.notes.model = model.id
    return { admission, place }
  } catch (refusal) {
    if (place !== null) plane.room.leave(place, null)
    if (!(refusal instanceof WeirError)) throw refusal
    plane.logger.info({ request_id: call.id, model: model.id, code: refusal.code }, 'the next model is not within the limits of its caller')
    return null
  }
}
