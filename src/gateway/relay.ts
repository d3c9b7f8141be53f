import { WeirError } from '../base/errors.ts'
import type { Observation, StreamStep } from '../upstream/dialects/dialect.ts'
import { UpstreamFailure } from '../upstream/failure.ts'
import type { ByteSink, ByteSource } from '../upstream/source.ts'
import type { Admission } from './admit.ts'
import { blame } from './blame.ts'
import type { Call } from './call.ts'
import type { Answer, StreamedAnswer, WholeAnswer } from './forward.ts'
import { answerHeaders, SSE_HEADERS } from './headers.ts'
import type { Plane } from './plane.ts'
import { refusalOf } from './refuse.ts'
import type { Settlement } from './settle.ts'

const DONE = Buffer.from('data: [DONE]\n\n')
/** How long a stream that has used up its hold may wait for an answer about more. */
const EXTENSION_WAIT_MS = 2000
/** How much an upstream may send after it has said that it is done, and for how long, before its connection is given up. */
const REST_MAX_BYTES = 16_384
const REST_MAX_MS = 1000

/**
 * Sends an answer to the client. The terminator leaves only after the usage event is durable.
 *
 * @throws UpstreamFailure when the stream fails in the middle or the client leaves; WeirError when the money runs out or the event cannot be written
 */
export function relay(answer: Answer, call: Call, admission: Admission, settlement: Settlement, plane: Plane): Promise<void> {
  return answer.kind === 'whole'
    ? relayWhole(answer, call, admission, settlement)
    : new StreamRelay(answer, call, admission, settlement, plane).run()
}

async function relayWhole(answer: WholeAnswer, call: Call, admission: Admission, settlement: Settlement): Promise<void> {
  const { reply } = call
  const { progress } = settlement
  const gone = reply.gone
  progress.delivered = !gone
  // The answer is whole and paid for upstream: a client that left a moment ago owes for it all the same.
  progress.drained = gone
  try {
    await settlement.close(gone ? { status: 'aborted', code: 'client_closed_request' } : { status: 'completed', code: null })
  } catch (error) {
    if (!gone) await settlement.withdraw()
    throw error
  }
  const { target, adjusted } = progress
  reply.send(
    200,
    { 'content-type': 'application/json', ...(target === null ? {} : answerHeaders(admission, target, adjusted)) },
    answer.out,
  )
}

/** One streamed answer on its way: bytes through, back-pressure both ways, the hold extended as it grows. */
class StreamRelay implements ByteSink {
  readonly #answer: StreamedAnswer
  readonly #call: Call
  readonly #admission: Admission
  readonly #settlement: Settlement
  readonly #plane: Plane
  readonly #ended = Promise.withResolvers<void>()
  #over = false
  #client_full = false
  /** What had been delivered when the client left, or null while it is there. */
  #at_leaving: Observation | null = null
  #waiting: NodeJS.Timeout | null = null

  constructor(answer: StreamedAnswer, call: Call, admission: Admission, settlement: Settlement, plane: Plane) {
    this.#answer = answer
    this.#call = call
    this.#admission = admission
    this.#settlement = settlement
    this.#plane = plane
  }

  async run(): Promise<void> {
    const { reply } = this.#call
    const { target, adjusted } = this.#settlement.progress
    const leave = this.#plane.metrics.streamOpened()
    reply.head(200, { ...SSE_HEADERS, ...(target === null ? {} : answerHeaders(this.#admission, target, adjusted)) })
    reply.whenWritable(() => this.#clientReady())
    reply.whenGone(() => this.#clientGone())
    this.#settlement.lease.whenDecided(() => this.#leaseDecided())
    this.#call.signal.addEventListener('abort', () => this.#fail(this.#call.signal.reason), { once: true })
    const { head, failure, done, source } = this.#answer
    if (!this.#over) this.#send({ out: head, data_events: 1, failure, done })
    if (!this.#over) source.flowTo(this)
    if (!this.#over && !this.#paused) source.resume()
    try {
      await this.#ended.promise
    } finally {
      leave()
    }
  }

  data(chunk: Buffer): void {
    if (!this.#over) this.#step(() => this.#answer.translator.push(chunk))
  }

  end(): void {
    if (this.#over) return
    this.#step(() => {
      const step = this.#answer.translator.end()
      return { ...step, done: step.failure === null }
    })
  }

  /** A translator that throws has met bytes nobody thought of: the answer ends there, and nothing else does. */
  #step(next: () => StreamStep): void {
    try {
      this.#send(next())
    } catch (cause) {
      this.#fail(new UpstreamFailure('malformed', { cause }))
    }
  }

  failed(failure: UpstreamFailure): void {
    this.#fail(failure)
  }

  get #paused(): boolean {
    return this.#client_full || this.#waiting !== null
  }

  #send(step: StreamStep): void {
    const { reply } = this.#call
    const { progress, lease } = this.#settlement
    if (step.data_events > 0 && !reply.gone && !progress.delivered) {
      progress.delivered = true
      this.#plane.ticker.checkpointNow(lease)
    }
    if (step.out.length > 0 && !reply.write(step.out, this.#plane.clock.now_ms())) {
      this.#client_full = true
      this.#answer.source.pause()
    }
    if (step.failure !== null) this.#fail(step.failure)
    else if (step.done) this.#finish()
    else if (step.data_events > 0) this.#checkAllowance()
  }

  #checkAllowance(): void {
    const { lease } = this.#settlement
    const allowance = lease.allowance(this.#answer.translator.observe().estimated_output)
    if (allowance === 'stop') return this.#fail(this.#notExtended())
    if (allowance !== 'wait' || this.#waiting !== null) return
    this.#answer.source.pause()
    this.#waiting = setTimeout(() => this.#fail(this.#notExtended()), EXTENSION_WAIT_MS)
  }

  #leaseDecided(): void {
    if (this.#waiting === null || this.#over) return
    clearTimeout(this.#waiting)
    this.#waiting = null
    this.#checkAllowance()
    this.#resumeIfFree()
  }

  #clientReady(): void {
    this.#client_full = false
    this.#resumeIfFree()
  }

  #resumeIfFree(): void {
    if (!this.#paused && !this.#over) this.#answer.source.resume()
  }

  #clientGone(): void {
    if (this.#over) return
    const at_leaving = this.#answer.translator.observe()
    const { drain_abort_timeout_ms } = this.#admission.snapshot.configuration.settings.limits
    this.#at_leaving = at_leaving
    if (this.#admission.caller.tenant.on_client_abort === 'cancel') return this.#fail(new UpstreamFailure('client_gone'))
    const timer = setTimeout(() => this.#fail(new UpstreamFailure('client_gone')), drain_abort_timeout_ms)
    this.#ended.promise.then(
      () => clearTimeout(timer),
      () => clearTimeout(timer),
    )
  }

  #finish(): void {
    const { translator, source } = this.#answer
    if (!translator.observe().finished) return this.#fail(new UpstreamFailure('truncated'))
    this.#stop()
    discardRest(source)
    this.#terminate().then(this.#ended.resolve, this.#ended.reject)
  }

  async #terminate(): Promise<void> {
    const { reply } = this.#call
    const gone = reply.gone
    this.#settlement.progress.drained = gone
    const closing = this.#answer.translator.closing()
    await this.#settlement.close(gone ? { status: 'aborted', code: 'client_closed_request' } : { status: 'completed', code: null })
    reply.end(Buffer.concat([closing, DONE]))
  }

  #fail(error: Error): void {
    if (this.#over) return
    const complete = this.#answer.translator.observe().finished
    const client_left = error instanceof UpstreamFailure && error.kind === 'client_gone'
    // Every choice had its finish reason: only the courtesy after it is missing.
    if (complete && error instanceof UpstreamFailure && !client_left) return this.#finish()
    this.#stop()
    this.#answer.source.cancel()
    if (error instanceof UpstreamFailure) this.#blame(error)
    const at_leaving = this.#at_leaving
    if (at_leaving === null) return this.#ended.reject(error)
    // The client had left and the answer did not get to its end without it: what counts is what had been delivered.
    this.#settlement.progress.observe = () => at_leaving
    this.#ended.reject(new UpstreamFailure('client_gone', { cause: error }))
  }

  /** A stream that broke in the middle counts against its target like a failed try. */
  #blame(failure: UpstreamFailure): void {
    const { place } = this.#settlement.progress
    if (place === null || failure.kind === 'client_gone' || failure.kind === 'shutting_down') return
    blame(place, failure, this.#plane)
    this.#plane.metrics.upstreamFailed(place.target.id, failure.kind)
  }

  #stop(): void {
    this.#over = true
    if (this.#waiting !== null) clearTimeout(this.#waiting)
    this.#waiting = null
  }

  #notExtended(): WeirError {
    const { refusal } = this.#settlement.lease
    return refusal === null ? new WeirError('admission_unavailable') : refusalOf(refusal, this.#plane.clock.now_ms())
  }
}

/** Reads what comes after the end, within limits, so that the connection can be used again. */
function discardRest(source: ByteSource): void {
  let bytes = 0
  const timer = setTimeout(() => source.cancel(), REST_MAX_MS).unref()
  const stop = (): void => clearTimeout(timer)
  source.flowTo({
    data(chunk) {
      bytes += chunk.length
      if (bytes <= REST_MAX_BYTES) return
      stop()
      source.cancel()
    },
    end: stop,
    failed: stop,
  })
  source.resume()
}
