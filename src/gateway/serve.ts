import { admit, type Admission } from './admit.ts'
import { WeirError } from '../base/errors.ts'
import { authenticate } from './authenticate.ts'
import type { Call, Caller } from './call.ts'
import { endingOf } from './ending.ts'
import { forward } from './forward.ts'
import type { Plane } from './plane.ts'
import { quoteFor } from './quote.ts'
import { relay } from './relay.ts'
import { readFacts } from './request.ts'
import { placeFor } from './room.ts'
import { chooseRoute, type Route } from './route.ts'
import { settleOnce, type Settlement } from './settle.ts'
import type { Snapshot } from './snapshot.ts'
import type { Endpoint } from '../config/model.ts'
import { totalTokens } from '../money/usage.ts'
import type { ClosingEvent } from '../storage/ports.ts'

/**
 * One request from end to end: the table of contents of this folder.
 * Every stage may throw a `WeirError`, which ingress turns into the answer; exactly one place, `settlement.close`, closes the hold.
 */
export async function serve(call: Call, plane: Plane): Promise<void> {
  const snapshot = plane.snapshot()
  const { limits } = snapshot.configuration.settings
  refuseUnready(plane)
  const caller = authenticate(call.headers, plane.keys, plane.clock.now_ms())
  call.identify(caller)
  const stop = (): void => call.stop('shutting_down')
  const leave = plane.open.enter(caller.tenant.id, limits.max_open_requests, limits.tenant_share_percent, stop)
  const closed = new Promise<void>((resolve) => call.reply.whenClosed(resolve))
  try {
    await answer(call, caller, snapshot, plane)
  } finally {
    // The client must have the last byte or be gone, and the work be done: an answer may be read on without its client.
    void closed.then(leave)
  }
}

/** A process that does not know whether its keys and tenants are current serves nobody. @throws WeirError `admission_unavailable` */
function refuseUnready(plane: Plane): void {
  if (plane.unready() !== null) throw new WeirError('admission_unavailable', { retry_after_ms: 1000 })
}

async function answer(call: Call, caller: Caller, snapshot: Snapshot, plane: Plane): Promise<void> {
  const { admission, settlement } = await open(call, caller, snapshot, plane)
  try {
    const found = await forward(call, admission, settlement, plane)
    admission.facts.body.forget()
    await relay(found, call, admission, settlement, plane)
  } catch (error) {
    await settlement.close(endingOf(error, settlement.progress.delivered))
    throw error
  } finally {
    const event = settlement.event()
    call.notes.event = event
    leavePlace(settlement, event, plane)
  }
}

/** The upstream has done its part: its place is the next one's. */
function leavePlace({ progress }: Settlement, event: ClosingEvent | null, plane: Plane): void {
  if (progress.place === null) return
  const tokens = event === null ? 0 : totalTokens(event.tokens)
  plane.room.leave(progress.place, tokens === 0 ? null : tokens)
}

/** From the body to the open hold. Its own function so that the parsed body is gone when the answer flows. */
async function open(
  call: Call,
  caller: Caller,
  snapshot: Snapshot,
  plane: Plane,
): Promise<{ admission: Admission; settlement: Settlement }> {
  const { settings, prices } = snapshot.configuration
  const { max_body_bytes, max_json_depth, slice_tokens } = settings.limits
  const request = readFacts(call.protocol, await call.readBody(max_body_bytes), max_json_depth)
  const { facts } = request
  call.asksFor(facts)
  const now_ms = plane.clock.now_ms()
  const route = chooseRoute(facts.model_asked, call.protocol, caller, {
    snapshot,
    random: plane.random,
    mayTry: (endpoint) => plane.breakers.mayTry(endpoint, now_ms),
    retryInMs: (endpoint) => plane.breakers.retryAt(endpoint) - now_ms,
  })
  call.notes.model = route.model.id
  const quote = quoteFor(request, route, prices, slice_tokens, now_ms)
  const place = await placeFor(call, caller.tenant, route, quote.tokens, plane.room, settings.limits)
  try {
    const admission = await admit(call, caller, facts, beginningWith(route, place.target), quote, plane, snapshot)
    const settlement = settleOnce(call, admission, plane)
    settlement.progress.place = place
    return { admission, settlement }
  } catch (error) {
    plane.room.leave(place, null)
    throw error
  }
}

/** The target that has a place for the request is tried first. */
function beginningWith(route: Route, first: Endpoint): Route {
  if (route.targets[0] === first) return route
  return { ...route, targets: [first, ...route.targets.filter((target) => target !== first)] }
}
