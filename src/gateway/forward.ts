import { WeirError } from '../base/errors.ts'
import type { Endpoint } from '../config/model.ts'
import { sameFiling } from '../routing/filings.ts'
import type { StreamTranslator } from '../upstream/dialects/dialect.ts'
import { FAILURES, type FailureKind, UpstreamFailure } from '../upstream/failure.ts'
import type { Place } from '../upstream/places.ts'
import type { ByteSource } from '../upstream/source.ts'
import type { Admission } from './admit.ts'
import { tryTarget } from './attempt.ts'
import { blame } from './blame.ts'
import type { Call } from './call.ts'
import { keepClientAlive } from './keepalive.ts'
import type { Plane } from './plane.ts'
import type { Progress } from './progress.ts'
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
 * Tries the targets in order until one answers; those without room are passed over, and waited for when no other is left. The kind of a
 * failure decides whether the next may be tried; once a data event has arrived there is no going back.
 *
 * @throws UpstreamFailure the last one, when no target is left or the kind forbids another try
 * @throws WeirError `no_upstream_available` when none could be tried
 */
export async function forward(call: Call, admission: Admission, settlement: Settlement, plane: Plane): Promise<Answer> {
  const { progress, lease } = settlement
  watchClient(call, admission)
  if (admission.facts.stream) keepClientAlive(call, admission, lease, progress)
  const { max_attempts } = admission.snapshot.configuration.settings.limits
  const untried = new Set(admission.route.targets)
  let latest: UpstreamFailure | null = null
  while (progress.attempts.length < max_attempts && (untried.size > 0 || progress.place !== null)) {
    const retry = latest !== null && isRetry(latest)
    if (retry && !mayRetry(plane)) break
    const place = beginHeld(progress, untried, plane) ?? beginNext(admission, progress, untried, plane)
    if (place === null && untried.size === 0) break
    if (place !== null && retry) countRetry(plane)
    try {
      if (place !== null) return await oneTry(call, admission, settlement, place, plane)
      progress.place = await waitForRoom(call, admission, untried, plane)
    } catch (error) {
      // Of a failed try and a wait that came to nothing the caller learns the failure.
      if (error instanceof WeirError && latest !== null) break
      if (!(error instanceof UpstreamFailure) || !FAILURES[error.kind].retry) throw error
      // What a target cannot do says nothing of why another one, which can, has failed.
      if (latest === null || isRetry(error)) latest = error
      if (place !== null && progress.another_key) putFirst(place.target, untried)
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

/** The place that the request has already, if its target may be tried. */
function beginHeld(progress: Progress, untried: Set<Endpoint>, plane: Plane): Place<Endpoint> | null {
  const { place } = progress
  if (place === null) return null
  untried.delete(place.target)
  if (mayFollow(progress, place.target) && plane.breakers.begin(place.target.id, plane.clock.now_ms())) return place
  progress.place = null
  plane.room.leave(place, null)
  return null
}

/** A place at the next target that may be tried and has room. Those that must not be tried are dropped, those without room are left. */
function beginNext(admission: Admission, progress: Progress, untried: Set<Endpoint>, plane: Plane): Place<Endpoint> | null {
  for (const target of untried) {
    const place = mayFollow(progress, target) ? plane.room.take(target, admission.quote.tokens, admission.route.chance) : undefined
    if (place === null) continue
    untried.delete(target)
    if (place === undefined) continue
    if (plane.breakers.begin(target.id, plane.clock.now_ms())) return place
    plane.room.leave(place, null)
  }
  return null
}

function putFirst(target: Endpoint, untried: Set<Endpoint>): void {
  const others = [...untried]
  untried.clear()
  for (const one of [target, ...others]) untried.add(one)
}

/** Waits with an open hold, whose lease is renewed and whose client is kept alive meanwhile. @throws as `Room.wait` */
async function waitForRoom(call: Call, admission: Admission, untried: Set<Endpoint>, plane: Plane): Promise<Place<Endpoint>> {
  const { route, quote, caller, snapshot } = admission
  const { limits } = snapshot.configuration.settings
  const asked = { model: route.model.id, targets: [...untried], tokens: quote.tokens, chance: route.chance }
  try {
    return await plane.room.wait({ call, tenant: caller.tenant, ...asked, limits, most_ms: Infinity })
  } finally {
    watchClient(call, admission)
  }
}

/** Once a keep-alive has committed the headers, only targets that they describe may follow. */
function mayFollow({ committed_as }: Progress, target: Endpoint): boolean {
  return committed_as === null || (sameFiling(target, committed_as) && target.sandbox === committed_as.sandbox)
}

/** Kinds of a try of which nothing was sent. */
const NOT_SENT: ReadonlySet<FailureKind> = new Set(['dial_failed', 'connect_timeout', 'tls_failed', 'saturated', 'unsupported'])

async function oneTry(call: Call, admission: Admission, settlement: Settlement, place: Place<Endpoint>, plane: Plane): Promise<Answer> {
  const { progress } = settlement
  const { target } = place
  const started_ms = plane.clock.monotonic_ms()
  const attempt = { endpoint: target.id, ...(place.key === null ? {} : { key: place.key.name }), cost_nano: 0n }
  progress.target = target
  progress.place = place
  progress.another_key = false
  try {
    place.sent = true
    const { answer, status } = await tryTarget(call, admission, progress, place, plane)
    const duration_ms = Math.round(plane.clock.monotonic_ms() - started_ms)
    progress.attempts.push({ ...attempt, outcome: 'answered', http_status: status, duration_ms })
    plane.breakers.success(target.id)
    plane.room.answered(place)
    plane.metrics.upstream(target.id, 'answered', duration_ms)
    if (answer.kind === 'stream') plane.latencies.answered(target.id, duration_ms, plane.clock.now_ms())
    return answer
  } catch (error) {
    const failure = error instanceof UpstreamFailure ? error : new UpstreamFailure('malformed', { cause: error })
    const { kind, details } = failure
    const duration_ms = Math.round(plane.clock.monotonic_ms() - started_ms)
    progress.attempts.push({ ...attempt, outcome: kind, http_status: details.status ?? null, duration_ms })
    if (FAILURES[kind].reached && details.unsent !== true) progress.reached = true
    progress.another_key = blame(place, failure, plane)
    plane.metrics.upstream(target.id, kind, duration_ms)
    place.sent = details.unsent !== true && !NOT_SENT.has(kind)
    progress.place = null
    plane.room.leave(place, FAILURES[kind].reached ? null : 0)
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
