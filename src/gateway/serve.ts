import { WeirError } from '../base/errors.ts'
import { authenticate } from './authenticate.ts'
import type { Call, Caller } from './call.ts'
import { choose, type Choice, forgetBodies } from './choose.ts'
import { choiceFacts } from './choice-facts.ts'
import { endingOf } from './ending.ts'
import { admitFirst, type Ask, forwardOrNext, leavePlace } from './fallback.ts'
import type { Answer } from './forward.ts'
import type { Plane } from './plane.ts'
import { withoutQuotes } from './profile.ts'
import { relay } from './relay.ts'
import { readFacts } from './request.ts'
import type { Snapshot } from './snapshot.ts'

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
  const choice = await understand(call, caller, snapshot, plane)
  const ask: Ask = { caller, snapshot, choice }
  let open = await admitFirst(call, ask, plane)
  try {
    let found: Answer | null = null
    while (found === null) {
      const result = await forwardOrNext(call, ask, open, plane)
      if ('admission' in result) open = result
      else found = result
    }
    forgetBodies(choice)
    await relay(found, call, open.admission, open.settlement, plane)
  } catch (error) {
    await open.settlement.close(endingOf(error, open.settlement.progress.delivered))
    throw open.admission.route.model.profile === null ? error : withoutQuotes(error)
  } finally {
    call.notes.event = open.settlement.event()
    leavePlace(open.settlement, plane)
  }
}

/** From the body to the choice of a model. Its own function so that the parsed body is gone when the answer flows. */
async function understand(call: Call, caller: Caller, snapshot: Snapshot, plane: Plane): Promise<Choice> {
  const { max_body_bytes, max_json_depth } = snapshot.configuration.settings.limits
  const request = readFacts(call.protocol, await call.readBody(max_body_bytes), max_json_depth)
  call.asksFor(request.facts)
  return choose(request, caller, choiceFacts(call, request, caller, snapshot, plane))
}
