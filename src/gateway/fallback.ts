import { WeirError } from '../base/errors.ts'
import { uuidv7 } from '../base/ids.ts'
import { fallbackReason } from '../routing/reason.ts'
import { FAILURES, UpstreamFailure } from '../upstream/failure.ts'
import { admit, type Admission } from './admit.ts'
import type { Call, Caller } from './call.ts'
import type { Choice, Plan } from './choose.ts'
import { endingOf } from './ending.ts'
import { type Answer, countRetry, forward, isRetry, mayRetry } from './forward.ts'
import type { Plane } from './plane.ts'
import { NOTHING_EARLIER } from './progress.ts'
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
  const { route, facts, quote } = choice.first
  call.notes.model = route.model.id
  const admission = await admit(call, caller, facts, route, quote, plane, snapshot)
  plane.retries.request(plane.clock.monotonic_ms())
  return { admission, settlement: settleOnce(call, admission, plane, NOTHING_EARLIER), left: choice.alternatives, failed: [] }
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
  const event = settlement.event()
  const { attempts, follows } = settlement.progress
  const earlier = { attempts, follows: event === null ? follows : [...follows, event.id] }
  const failed = [...open.failed, { model: admission.route.model.id, kind }]
  for (const [index, plan] of left.entries()) {
    const next = await admitNext(call, ask, plan, failed, plane)
    if (next !== null) return { admission: next, settlement: settleOnce(call, next, plane, earlier), left: left.slice(index + 1), failed }
  }
  return null
}

/** Null where the caller's limits or balance do not admit it: of all this the caller learns the failure of the model that was tried. */
async function admitNext(call: Call, ask: Ask, plan: Plan, failed: readonly Failed[], plane: Plane): Promise<Admission | null> {
  const { caller, snapshot } = ask
  const { model, reason } = plan.route
  const route = { ...plan.route, reason: fallbackReason(reason, failed, model.id) }
  const id = uuidv7(plane.clock.now_ms(), plane.randomBytes)
  try {
    const admission = await admit(call, caller, plan.facts, route, plan.quote, plane, snapshot, id)
    call.renew(id)
    call.notes.model = model.id
    return admission
  } catch (refusal) {
    if (!(refusal instanceof WeirError)) throw refusal
    plane.logger.info({ request_id: call.id, model: model.id, code: refusal.code }, 'the next model is not within the limits of its caller')
    return null
  }
}
