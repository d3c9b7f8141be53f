import { WeirError } from '../base/errors.ts'
import type { Endpoint } from '../config/model.ts'
import { sameFiling } from '../routing/filings.ts'
import type { StreamTranslator } from '../upstream/dialects/dialect.ts'
import { FAILURES, UpstreamFailure } from '../upstream/failure.ts'
import type { ByteSource } from '../upstream/source.ts'
import type { Admission } from './admit.ts'
import { tryTarget } from './attempt.ts'
import type { Call } from './call.ts'
import { keepClientAlive } from './keepalive.ts'
import type { Plane } from './plane.ts'
import type { Settlement } from './settle.ts'

/** A whole JSON answer, ready for the client. */
export interface WholeAnswer {
  readonly kind: 'whole'
  readonly out: Buffer
}

/** A streamed answer whose first data event has arrived. The source is paused until the relay reads on. */
export interface StreamedAnswer {
  readonly kind: 'stream'
  readonly translator: StreamTranslator
  /** Translated bytes up to and including the first data event. */
  readonly head: Buffer
  /** The upstream has already said that it is done, or has closed the stream. */
  readonly done: boolean
  /** The stream failed after its first data event, in the same piece. */
  readonly failure: UpstreamFailure | null
  readonly source: ByteSource
}

export type Answer = WholeAnswer | StreamedAnswer

/**
 * Tries the targets in order until one answers. The kind of a failure decides whether the next may be tried;
 * once a data event has arrived there is no going back.
 *
 * @throws UpstreamFailure the last one, when no target is left or the kind forbids another try
 */
export async function forward(call: Call, admission: Admission, settlement: Settlement, plane: Plane): Promise<Answer> {
  const { progress, lease } = settlement
  watchClient(call, admission)
  if (admission.facts.stream) keepClientAlive(call, admission, lease)
  const { max_attempts } = admission.snapshot.configuration.settings.limits
  let latest: UpstreamFailure | null = null
  for (const target of admission.route.targets) {
    if (progress.attempts.length >= max_attempts) break
    const retry = latest !== null && isRetry(latest)
    if (retry && !mayRetry(plane)) break
    if (!mayTry(call, admission, target, plane)) continue
    if (retry) countRetry(plane)
    try {
      return await oneTry(call, admission, settlement, target, plane)
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error
      latest = error
      if (!FAILURES[error.kind].retry) throw error
    }
  }
  throw latest ?? new WeirError('no_upstream_available', { values: { model: admission.route.model.id }, retry_after_ms: 1000 })
}

/** Whether a try after this failure is a second one: nobody was asked by one that is unsupported. */
export function isRetry({ kind }: UpstreamFailure): boolean {
  return kind !== 'unsupported'
}

/** Whether the budget of retries has one left. */
export function mayRetry(plane: Plane): boolean {
  const allowed = plane.retries.allows(plane.clock.monotonic_ms())
  if (!allowed) plane.metrics.retry(false)
  return allowed
}

export function countRetry(plane: Plane): void {
  plane.retries.take(plane.clock.monotonic_ms())
  plane.metrics.retry(true)
}

/** Once a keep-alive has committed the headers, only targets that they describe may follow. */
function mayTry(call: Call, admission: Admission, target: Endpoint, plane: Plane): boolean {
  const [first = target] = admission.route.targets
  if (call.reply.committed && !sameFiling(target, first)) return false
  return plane.breakers.begin(target.id, plane.clock.now_ms())
}

async function oneTry(call: Call, admission: Admission, settlement: Settlement, target: Endpoint, plane: Plane): Promise<Answer> {
  const { progress } = settlement
  const started_ms = plane.clock.monotonic_ms()
  const attempt = { endpoint: target.id, cost_nano: 0n }
  progress.target = target
  try {
    const { answer, status } = await tryTarget(call, admission, progress, target, plane)
    const duration_ms = Math.round(plane.clock.monotonic_ms() - started_ms)
    progress.attempts.push({ ...attempt, outcome: 'answered', http_status: status, duration_ms })
    plane.breakers.success(target.id)
    plane.metrics.upstream(target.id, 'answered', duration_ms)
    if (answer.kind === 'stream') plane.latencies.answered(target.id, duration_ms, plane.clock.now_ms())
    return answer
  } catch (error) {
    const failure = error instanceof UpstreamFailure ? error : new UpstreamFailure('malformed', { cause: error })
    const duration_ms = Math.round(plane.clock.monotonic_ms() - started_ms)
    progress.attempts.push({ ...attempt, outcome: failure.kind, http_status: failure.details.status ?? null, duration_ms })
    if (FAILURES[failure.kind].reached && failure.details.unsent !== true) progress.reached = true
    plane.breakers.failure(target.id, failure.kind, plane.clock.now_ms(), failure.details.retry_after_ms ?? null)
    plane.metrics.upstream(target.id, failure.kind, duration_ms)
    throw failure
  }
}

/** A client that leaves stops the upstream, at once or after the tenant's drain time. */
function watchClient(call: Call, admission: Admission): void {
  const { tenant } = admission.caller
  const { drain_abort_timeout_ms } = admission.snapshot.configuration.settings.limits
  call.reply.whenGone(() => {
    if (tenant.on_client_abort === 'cancel') call.stop('client_gone')
    else setTimeout(() => call.stop('client_gone'), drain_abort_timeout_ms).unref()
  })
}
