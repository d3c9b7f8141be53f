import type { Endpoint } from '../config/model.ts'
import type { AnswerContext, StreamStep, StreamTranslator } from '../upstream/dialects/dialect.ts'
import { classifyResponse } from '../upstream/classify.ts'
import { dialectFor } from '../upstream/dialects/registry.ts'
import { UpstreamFailure } from '../upstream/failure.ts'
import type { ProviderFacts } from '../upstream/providers/provider.ts'
import type { Place } from '../upstream/places.ts'
import type { ByteSource, UpstreamResponse } from '../upstream/source.ts'
import type { Admission } from './admit.ts'
import type { Call } from './call.ts'
import type { Answer, StreamedAnswer } from './forward.ts'
import { answerLabel } from './label.ts'
import { joinAnswers } from '../upstream/requests/embeddings.ts'
import { outboundRequest, outgoingBodies } from './outbound.ts'
import type { Plane } from './plane.ts'
import type { Progress } from './progress.ts'

/** As much of a refusal's body as is read to learn its kind. */
const MAX_ERROR_BODY_BYTES = 16_384
/** As long as it is waited for: the status alone is an answer. */
const MAX_ERROR_BODY_MS = 2000
/** As much as may come before the first data event (comments of a queueing upstream). */
const MAX_HEAD_BYTES = 65_536

/**
 * One try at one target, up to its whole JSON body or its first data event.
 *
 * @throws UpstreamFailure of every kind
 */
export async function tryTarget(
  call: Call,
  admission: Admission,
  progress: Progress,
  { target, key }: Pick<Place<Endpoint>, 'target' | 'key'>,
  plane: Plane,
): Promise<{ answer: Answer; status: number }> {
  if (call.signal.aborted) throw new UpstreamFailure(call.stopped_by ?? 'client_gone', { unsent: true, cause: call.signal.reason })
  const facts = plane.providers.get(target.plays)
  if (facts === undefined) throw new UpstreamFailure('model_missing')
  const { max_output_tokens } = admission.route.model
  const { bodies, stream, adjusted } = outgoingBodies({
    facts: admission.facts,
    target,
    max_output_tokens,
    capped_tokens: admission.capped_tokens,
  })
  const limit = limitTry(call.signal, target)
  const api_key = key?.secret ?? target.api_key
  const limited = [target.capacity, key?.capacity].some((capacity) => (capacity?.concurrency ?? null) !== null)
  const exchange: Exchange = { call, admission, progress, target, api_key, facts, stream, signal: limit.signal, limited, plane }
  try {
    progress.adjusted = adjusted
    const [body] = bodies
    if (bodies.length > 1 || body === undefined) return await sendInParts(exchange, bodies)
    const response = await send(exchange, body)
    return { answer: await readAnswer(response, exchange), status: response.status }
  } finally {
    limit.begun()
  }
}

/** One try and all that belongs to it. */
interface Exchange {
  readonly call: Call
  readonly admission: Admission
  readonly progress: Progress
  readonly target: Endpoint
  /** Never logged. */
  readonly api_key: string | null
  readonly facts: ProviderFacts
  /** The upstream was asked for a stream. */
  readonly stream: boolean
  readonly signal: AbortSignal
  /** Requests at a time are limited: it has one place, so that it may send one at a time. */
  readonly limited: boolean
  readonly plane: Plane
}

/** Sends one body. @throws UpstreamFailure for everything but a 2xx */
async function send(
  { call, admission, progress, target, api_key, facts, stream, signal, plane }: Exchange,
  body: Buffer,
): Promise<UpstreamResponse> {
  const identity = { id: call.id, attempt: progress.attempts.length + 1, user_agent: 'weir' }
  const request = outboundRequest({ facts: admission.facts, target, api_key }, body, stream, identity, plane.clock.now_ms(), signal)
  // A promise costs a turn of the event loop, so only a token that must be signed is waited for.
  const response = await plane.transport.send(request instanceof Promise ? await request : request)
  const { status } = response
  if (status < 200 || status > 299) throw await refusalOf(response, facts, plane.clock.now_ms())
  progress.reached = true
  return response
}

/** Requests of one try that run at the same time; one where the target or its key may serve so many only. */
const PARTS_AT_ONCE = 4

/** Embeddings of more inputs than the target takes at once: a few requests at a time, their answers joined in order. */
async function sendInParts(exchange: Exchange, bodies: readonly Buffer[]): Promise<{ answer: Answer; status: number }> {
  const { max_answer_bytes } = exchange.admission.snapshot.configuration.settings.limits
  const answers: Buffer[] = []
  const waiting = bodies.entries()
  let bytes = 0
  let status = 200
  let failed = false
  const part = async (index: number, body: Buffer): Promise<void> => {
    const response = await send(exchange, body)
    const answer = await readAll(response.body, max_answer_bytes)
    // Each part must be an answer by itself.
    dialectFor(exchange.target.dialect, exchange.facts).whole(answer, contextOf(exchange))
    bytes += answer.length
    if (bytes > max_answer_bytes) throw new UpstreamFailure('malformed')
    answers[index] = answer
    status = response.status
  }
  const work = async (): Promise<void> => {
    for (const [index, body] of waiting) {
      if (failed) return
      try {
        await part(index, body)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const workers = await Promise.allSettled(Array.from({ length: Math.min(exchange.limited ? 1 : PARTS_AT_ONCE, bodies.length) }, work))
  for (const worker of workers) if (worker.status === 'rejected') throw worker.reason
  return { answer: answerWhole(joinAnswers(answers), exchange), status }
}

async function readAnswer(response: UpstreamResponse, exchange: Exchange): Promise<Answer> {
  const { call, admission, progress, target, facts, plane } = exchange
  if (admission.facts.stream) {
    const translator = dialectFor(target.dialect, facts).streamed(contextOf(exchange))
    const answer = await readHead(response.body, translator)
    progress.observe = () => translator.observe()
    progress.ttfe_ms = Math.round(plane.clock.monotonic_ms() - call.started_ms)
    return answer
  }
  return answerWhole(await readAll(response.body, admission.snapshot.configuration.settings.limits.max_answer_bytes), exchange)
}

function answerWhole(body: Buffer, exchange: Exchange): Answer {
  const { call, progress, target, facts, plane } = exchange
  const { out, observation } = dialectFor(target.dialect, facts).whole(body, contextOf(exchange))
  progress.observe = () => observation
  progress.ttfe_ms = Math.round(plane.clock.monotonic_ms() - call.started_ms)
  return { kind: 'whole', out }
}

function contextOf({ call, admission, target }: Exchange): AnswerContext {
  return {
    model_asked: admission.facts.model_asked,
    usage_asked: admission.facts.usage_asked,
    prompt_tokens: admission.quote.prompt_tokens,
    tokenizer: target.sandbox ? 'sandbox' : admission.quote.tokenizer,
    max_event_bytes: admission.snapshot.configuration.settings.limits.max_event_bytes,
    created_s: Math.floor(admission.receipt.admitted_at / 1000),
    request_id: call.id,
    label: answerLabel(admission),
  }
}

async function refusalOf(response: UpstreamResponse, facts: ProviderFacts, now_ms: number): Promise<UpstreamFailure> {
  const body = await readSome(response.body, MAX_ERROR_BODY_BYTES, MAX_ERROR_BODY_MS)
  return classifyResponse(response.status, response.headers, body, facts, now_ms)
}

/** Reads until the first data event and pauses there. */
function readHead(source: ByteSource, translator: StreamTranslator): Promise<StreamedAnswer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    let bytes = 0
    const take = (step: StreamStep, ended: boolean): void => {
      parts.push(step.out)
      bytes += step.out.length
      const begun = step.data_events > 0
      if (begun || step.done || ended) source.pause()
      if (begun) {
        resolve({ kind: 'stream', translator, head: Buffer.concat(parts), done: step.done || ended, failure: step.failure, source })
      } else if (step.failure !== null || step.done || ended) {
        source.cancel()
        reject(step.failure ?? new UpstreamFailure('truncated'))
      } else if (bytes > MAX_HEAD_BYTES) {
        source.cancel()
        reject(new UpstreamFailure('malformed'))
      }
    }
    source.flowTo({ data: (chunk) => take(translator.push(chunk), false), end: () => take(translator.end(), true), failed: reject })
  })
}

/** @throws UpstreamFailure `malformed` beyond `max_bytes`, or as the source fails */
function readAll(source: ByteSource, max_bytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    source.flowTo({
      data(chunk) {
        chunks.push(chunk)
        bytes += chunk.length
        if (bytes <= max_bytes) return
        source.cancel()
        reject(new UpstreamFailure('malformed'))
      },
      end: () => resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)),
      failed: reject,
    })
  })
}

/** What can be had of a body within a size and a time; a body that breaks or stalls is as long as it got. */
function readSome(source: ByteSource, max_bytes: number, max_ms: number): Promise<Buffer> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    let bytes = 0
    const finish = (): void => {
      clearTimeout(timer)
      resolve(Buffer.concat(chunks).subarray(0, max_bytes))
    }
    const stop = (): void => {
      source.cancel()
      finish()
    }
    const timer = setTimeout(stop, max_ms)
    source.flowTo({
      data(chunk) {
        chunks.push(chunk)
        bytes += chunk.length
        if (bytes > max_bytes) stop()
      },
      end: finish,
      failed: finish,
    })
  })
}

interface TryLimit {
  /** Stops the exchange when the try's time is up, and whenever the call is stopped. */
  readonly signal: AbortSignal
  /** The answer has begun, or the try has failed: its time no longer counts. */
  begun(): void
}

/** Bounds a try from its start to its first data event (or whole body), keep-alive comments notwithstanding. */
function limitTry(call_signal: AbortSignal, target: Endpoint): TryLimit {
  // A signal per try: the exchange must end with it wherever it is, also before its headers.
  const controller = new AbortController()
  call_signal.addEventListener('abort', () => controller.abort(call_signal.reason), { once: true })
  const timer = setTimeout(() => controller.abort(new UpstreamFailure('first_event_timeout')), target.timeouts.first_event_timeout_ms)
  return { signal: controller.signal, begun: () => clearTimeout(timer) }
}
