import type { Call, Caller } from './call.ts'
import { chanceFor, type ChoiceFacts } from './choose.ts'
import { readHint } from './hint.ts'
import type { Plane } from './plane.ts'
import type { ReadRequest } from './request.ts'
import type { Snapshot } from './snapshot.ts'
import { tenantRoutingOf } from './tenant-routing.ts'

/** What a choice depends on beside the request and its caller, as it stands at this instant. */
export function choiceFacts(call: Call, request: ReadRequest, caller: Caller, snapshot: Snapshot, plane: Plane): ChoiceFacts {
  const now_ms = plane.clock.now_ms()
  const tenant = tenantRoutingOf(caller)
  return {
    snapshot,
    tenant,
    classifier: plane.classifier,
    now_ms,
    mayTry: (endpoint) => plane.breakers.mayTry(endpoint, now_ms),
    retryInMs: (endpoint) => plane.breakers.retryAt(endpoint) - now_ms,
    latencyMs: (endpoint) => plane.latencies.of(endpoint, now_ms),
    chance: () => chanceFor(request, caller, call.id),
    hint: () => readHint(call.headers, request.parsed, tenant.evidence),
  }
}
