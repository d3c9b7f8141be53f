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

/**
 * Admits a request for the model that was chosen, or, while that one has no room, for the next one that has. Where none has, the chosen one
 * is waited for.
 *
 * @throws WeirError as `admit` for the chosen model, and as `Room.wait`
 */
export async function admitFirst(call: Call, ask: Ask, plane: Plane): Promise<Opened> {
  const { first, alternatives } = ask.choice
  const opening: Opening = { failed: [], earlier: NOTHING_EARLIER, renewed: false, chosen: first }
  const opened = await openOne(call, ask, [first, ...alternatives], opening, plane)
  if (opened === null) throw new WeirError('no_upstream_available', { values: { model: first.route.model.id }, retry_after_ms: 1000 })
  plane.retries.request(plane.clock.monotonic_ms())
  return opened
}

/** How a request is opened for one of several models. */
interface Opening {
  readonly failed: readonly Failed[]
  readonly earlier: Earlier
  /** It has had an id before, which has an event or a hold. */
  readonly renewed: boolean
  /** The model whose refusal the caller is to learn; of all others nothing is said, and the next one is tried. Null for none. */
  readonly chosen: Plan | null
}

/** The first model that has room now and whose caller may have it; at last the first of those without room is waited for. */
async function openOne(call: Call, ask: Ask, plans: readonly Plan[], opening: Opening, plane: Plane): Promise<Opened | null> {
  const full: Plan[] = []
  for (const [index, plan] of plans.entries()) {
    const { targets, chance } = plan.route
    const place = plane.room.takeFirst(targets, plan.quote.tokens, chance)
    if (place === null) {
      full.push(plan)
      continue
    }
    const failed = [...opening.failed, ...full.map(({ route }) => ({ model: route.model.id, kind: 'no room' }))]
    const left = [...plans.slice(index + 1), ...full]
    const opened = await openAt(call, ask, { plan, place, left }, { ...opening, failed }, plane)
    if (opened !== null) return opened
  }
  const [waited, ...left] = full
  if (waited === undefined) return null
  const place = await placeOrNull(call, ask, waited, opening, plane)
  return place === null ? null : await openAt(call, ask, { plan: waited, place, left }, opening, plane)
}

/** Waits for room. Null, for a model that was not chosen, where there is none in time. @throws as `placeFor` */
async function placeOrNull(call: Call, ask: Ask, plan: Plan, { chosen }: Opening, plane: Plane): Promise<Place<Endpoint> | null> {
  const { caller, snapshot } = ask
  try {
    return await placeFor(call, caller.tenant, plan.route, plan.quote.tokens, plane.room, snapshot.configuration.settings.limits)
  } catch (error) {
    if (!(error instanceof WeirError) || plan === chosen) throw error
    return null
  }
}

interface At extends Pick<Opened, 'left'> {
  readonly plan: Plan
  readonly place: Place<Endpoint>
}

/** Null where the caller's limits or balance do not admit a model that was not chosen. @throws WeirError as `admit` for the chosen one, and where nobody can be admitted */
async function openAt(call: Call, ask: Ask, { plan, place, left }: At, opening: Opening, plane: Plane): Promise<Opened | null> {
  const { caller, snapshot } = ask
  const { failed, earlier, renewed, chosen } = opening
  const { model, reason } = plan.route
  const route = { ...beginningWith(plan.route, place), reason: failed.length === 0 ? reason : fallbackReason(reason, failed, model.id) }
  const id = renewed ? uuidv7(plane.clock.now_ms(), plane.randomBytes) : call.id
  const before = call.notes.model
  call.notes.model = model.id
  try {
    const admission = await admit(call, caller, plan.facts, route, plan.quote, plane, snapshot, id)
    if (renewed) call.renew(id)
    return { admission, settlement: settleAt(call, admission, place, earlier, plane), left, failed }
  } catch (refusal) {
    plane.room.leave(place, null)
    if (!(refusal instanceof WeirError) || plan === chosen || mayBeHeld(refusal, opening)) throw refusal
    call.notes.model = before
    plane.logger.info({ request_id: call.id, model: model.id, code: refusal.code }, 'another model is not within the limits of its caller')
    return null
  }
}

/** What failed after its hold may be known under the id that the next model would be admitted with, unless that has a new one. */
function mayBeHeld({ code }: WeirError, { renewed }: Opening): boolean {
  return !renewed && code === 'admission_unavailable'
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
  return await openOne(call, ask, left, { failed, earlier, renewed: true, chosen: null }, plane)
}
