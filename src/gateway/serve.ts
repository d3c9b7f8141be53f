import { admit } from './admit.ts'
import { authenticate } from './authenticate.ts'
import type { Call } from './call.ts'
import { endingOf } from './ending.ts'
import { forward } from './forward.ts'
import type { Plane } from './plane.ts'
import { quoteFor } from './quote.ts'
import { relay } from './relay.ts'
import { readFacts } from './request.ts'
import { chooseRoute } from './route.ts'
import { settleOnce } from './settle.ts'

/**
 * One request from end to end: the table of contents of this folder.
 * Every stage may throw a `WeirError`, which ingress turns into the answer; exactly one place, `settlement.close`, closes the hold.
 */
export async function serve(call: Call, plane: Plane): Promise<void> {
  const snapshot = plane.snapshot()
  const { limits } = snapshot.configuration.settings
  const now_ms = plane.clock.now_ms()

  const caller = authenticate(call.headers, plane.keys, now_ms)
  call.identify(caller)
  const leave = plane.open.enter(caller.tenant.id, limits.max_open_requests, limits.tenant_share_percent)
  try {
    const facts = readFacts(call.protocol, await call.readBody(limits.max_body_bytes), limits.max_json_depth)
    call.asksFor(facts)
    const route = chooseRoute(facts.model_asked, call.protocol, caller, {
      snapshot,
      random: plane.random,
      mayTry: (endpoint) => plane.breakers.mayTry(endpoint, now_ms),
      retryInMs: (endpoint) => plane.breakers.retryAt(endpoint) - now_ms,
    })
    call.notes.model = route.model.id
    const quote = quoteFor(facts, route, snapshot.configuration.prices, limits.slice_tokens, now_ms)
    const admission = await admit(call, caller, facts, route, quote, plane, snapshot)
    const settlement = settleOnce(call, admission, plane)
    try {
      const answer = await forward(call, admission, settlement, plane)
      await relay(answer, call, admission, settlement, plane)
    } catch (error) {
      await settlement.close(endingOf(error, settlement.progress.delivered))
      throw error
    } finally {
      call.notes.event = settlement.event()
    }
  } finally {
    leave()
  }
}
