import type { Admission } from './admit.ts'
import type { Call } from './call.ts'
import { answerHeaders, SSE_HEADERS } from './headers.ts'
import { commonProducer, labelHeaders } from './label.ts'
import type { Lease } from './lease.ts'
import type { Progress } from './progress.ts'

const COMMENT = ': keepalive\n\n'

/**
 * Sends SSE comments to a client that has heard nothing for a while, so that proxies and SDKs keep the connection.
 * The first one commits the headers: from then on a failure is an error event.
 */
export function keepClientAlive(call: Call, admission: Admission, lease: Lease, progress: Progress): void {
  const { keepalive_after_ms } = admission.snapshot.configuration.settings.limits
  const { reply } = call
  lease.whenTicked((now_ms) => {
    const heard_ms = Math.max(reply.wrote_at_ms, admission.receipt.admitted_at)
    if (reply.busy || now_ms - heard_ms < keepalive_after_ms) return
    const { targets } = admission.route
    const described = progress.target ?? targets[0]
    if (described !== undefined && !reply.committed) {
      progress.committed_as = described
      // Who will answer is not known yet.
      const label = labelHeaders(admission, commonProducer(targets))
      reply.head(200, { ...SSE_HEADERS, ...answerHeaders(admission, described, null), ...label })
    }
    reply.write(COMMENT, now_ms)
  })
}
