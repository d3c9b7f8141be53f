import type { Tokenizer } from '../../money/estimate.ts'
import type { PaidCalls, TokenUsage } from '../../money/usage.ts'
import type { UpstreamFailure } from '../failure.ts'
import type { AnswerLabel } from './label.ts'

/** What a dialect needs to know of the call it translates an answer for. */
export interface AnswerContext {
  /** The model name the client asked for: what it sees in the answer. */
  readonly model_asked: string
  /** The client asked for usage in the stream. */
  readonly usage_asked: boolean
  /** Estimate of the prompt's tokens, for an estimated usage chunk. */
  readonly prompt_tokens: number
  /** Names the estimator's coefficients. */
  readonly tokenizer: Tokenizer
  /** Largest event accepted, in bytes. */
  readonly max_event_bytes: number
  /** Unix seconds, for chunks that Weir itself must make. */
  readonly created_s: number
  /** Unique, for ids of tool calls that have none. */
  readonly request_id: string
  /** What is put into the answer's text to say that it was generated; null for nothing. */
  readonly label: AnswerLabel | null
}

/** What has been observed of an answer so far. Read at any time; cheap. */
export interface Observation {
  /** Usage as the upstream reported it last, or null. An explicit zero is a report. */
  readonly reported: TokenUsage | null
  readonly calls: PaidCalls
  /** Output tokens estimated from the text delivered so far (content, reasoning, tool calls). */
  readonly estimated_output: number
  readonly estimated_reasoning: number
  /** OpenAI finish reason of the first choice, or null. */
  readonly finish_reason: string | null
  /** Every choice seen has a finish reason, and at least one choice was seen. */
  readonly finished: boolean
  /** Names of the repairs that were made. */
  readonly repairs: readonly string[]
}

/** What one push yields. `out` may go to the client now. */
export interface StreamStep {
  readonly out: Buffer
  /** Data events in `out` that carry an answer (not comments). */
  readonly data_events: number
  /** The upstream reported an error inside the stream; `out` holds what came before it. */
  readonly failure: UpstreamFailure | null
  /** The upstream said that it is done ([DONE] or its like). Nothing more is to be read. */
  readonly done: boolean
}

/** Translates one streamed answer. Pure: bytes in, bytes out; any split gives the same result. Never emits a terminator. */
export interface StreamTranslator {
  push(chunk: Buffer): StreamStep
  /** The upstream closed the stream: what was buffered, judged. */
  end(): StreamStep
  /** What goes out before the terminator, e.g. a usage chunk that was asked for and not reported. Call once, on success. */
  closing(): Buffer
  observe(): Observation
}

/** One whole JSON answer, translated. */
export interface TranslatedAnswer {
  readonly out: Buffer
  readonly observation: Observation
}

/** One wire protocol. */
export interface Dialect {
  readonly name: string
  streamed(context: AnswerContext): StreamTranslator
  /** @throws UpstreamFailure malformed, or the kind of an error inside a 200 */
  whole(body: Buffer, context: AnswerContext): TranslatedAnswer
}
