import type { Endpoint } from '../config/model.ts'
import type { AnswerContext, StreamStep, StreamTranslator } from '../upstream/dialects/dialect.ts'
import { classifyErrorObject, classifyResponse } from '../upstream/classify.ts'
import { createOpenaiDialect } from '../upstream/dialects/openai.ts'
import { UpstreamFailure } from '../upstream/failure.ts'
import type { ProviderFacts } from '../upstream/providers/provider.ts'
import type { ByteSource, UpstreamResponse } from '../upstream/source.ts'
import type { Admission } from './admit.ts'
import type { Call } from './call.ts'
import type { Answer, StreamedAnswer } from './forward.ts'
import { outboundRequest } from './outbound.ts'
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
  target: Endpoint,
  plane: Plane,
): Promise<{ answer: Answer; status: number }> {
  if (call.signal.aborted) throw new UpstreamFailure(call.stopped_by ?? 'client_gone', { unsent: true, cause: call.signal.reason })
  const facts = plane.providers.get(target.provider)
  if (facts === undefined) throw new UpstreamFailure('model_missing')
  const limit = limitTry(call.signal, target)
  try {
    const response = await plane.transport.send(outboundRequest(call, admission, target, progress.attempts.length + 1, limit.signal))
    const { status } = response
    if (status < 200 || status > 299) throw await refusalOf(response, facts, plane.clock.now_ms())
    progress.reached = true
    return { answer: await readAnswer(response, call, admission, progress, facts, target, plane), status }
  } finally {
    limit.begun()
  }
}

async function readAnswer(
  response: UpstreamResponse,
  call: Call,
  admission: Admission,
  progress: Progress,
  facts: ProviderFacts,
  target: Endpoint,
  plane: Plane,
): Promise<Answer> {
  const { limits } = admission.snapshot.configuration.settings
  const dialect = createOpenaiDialect((error) => classifyErrorObject(error, 200, facts))
  const context: AnswerContext = {
    model_asked: admission.facts.model_asked,
    usage_asked: admission.facts.usage_asked,
    prompt_tokens: admission.quote.prompt_tokens,
    tokenizer: target.sandbox ? 'sandbox' : admission.quote.tokenizer,
    max_event_bytes: limits.max_event_bytes,
    created_s: Math.floor(admission.receipt.admitted_at / 1000),
    request_id: call.id,
  }
  if (admission.facts.stream && !isJson(response)) {
    const translator = dialect.streamed(context)
    const answer = await readHead(response.body, translator)
    progress.observe = () => translator.observe()
    progress.ttfe_ms = Math.round(plane.clock.monotonic_ms() - call.started_ms)
    return answer
  }
  const body = await readAll(response.body, limits.max_answer_bytes)
  const { out, observation } = dialect.whole(body, context)
  // A JSON answer to a request for a stream can only have been an error, which `whole` throws.
  if (admission.facts.stream) throw new UpstreamFailure('malformed', { status: response.status })
  progress.observe = () => observation
  progress.ttfe_ms = Math.round(plane.clock.monotonic_ms() - call.started_ms)
  return { kind: 'whole', out }
}

function isJson(response: UpstreamResponse): boolean {
  return String(response.headers['content-type'] ?? '').startsWith('application/json')
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
