import { ByteWriter } from '../../base/byte-writer.ts'
import { JsonSpanError, spliceBytes } from '../../base/json-spans.ts'
import type { Edit } from '../../base/json-spans.ts'
import { UpstreamFailure } from '../failure.ts'
import { createFramer, EventTooLargeError, rawOffset } from '../sse.ts'
import type { Frame, Framer } from '../sse.ts'
import type { AnswerContext, Dialect, Observation, StreamStep, StreamTranslator, TranslatedAnswer } from './dialect.ts'
import { classifyAsServer, isError } from './openai-errors.ts'
import type { ClassifyError } from './openai-errors.ts'
import { OpenaiObserver } from './openai-observer.ts'
import { chunkEdits, modelEdits } from './openai-repairs.ts'
import type { ChunkPlan } from './openai-repairs.ts'
import { ChunkTemplate } from './openai-template.ts'
import { isFields } from './openai-usage.ts'

const EMPTY = Buffer.alloc(0)
const BLANK_LINE = Buffer.from('\n')
const LINE_END_AND_BLANK_LINE = Buffer.from('\n\n')
const BOM = Buffer.from([0xef, 0xbb, 0xbf])
const DONE = Buffer.from('[DONE]')
const NOTHING: StreamStep = { out: EMPTY, data_events: 0, failure: null, done: false }

/**
 * The OpenAI chat protocol as China's providers and self-hosted servers speak it (ARCHITECTURE, Bytes): answers pass byte by
 * byte, but for the model name, usage nobody asked for, the terminator, and named repairs. `classify` says what an
 * error inside a 200 means for the provider at hand.
 */
export function createOpenaiDialect(classify: ClassifyError = classifyAsServer): Dialect {
  return {
    name: 'openai',
    streamed: (context) => new OpenaiStream(context, classify),
    whole: (body, context) => translateWhole(body, context, classify),
  }
}

/** The dialect without facts about a provider: every error inside a 200 is of kind `server`. */
export const openaiDialect: Dialect = createOpenaiDialect()

/** Templates learned in a row that no chunk had: then this upstream's chunks differ in more than their text. */
const MAX_USELESS_TEMPLATES = 4

/** What a frame asks the stream to do besides passing it. */
type Verdict = 'go_on' | 'done' | UpstreamFailure

class OpenaiStream implements StreamTranslator {
  readonly #context: AnswerContext
  readonly #classify: ClassifyError
  readonly #framer: Framer
  readonly #observer: OpenaiObserver
  readonly #plan: ChunkPlan
  readonly #out = new ByteWriter()
  #data_events = 0
  #over = false
  #last_emitted = false
  #template: ChunkTemplate | null = null
  #useless_templates = 0
  /** Of the latest chunk, for a chunk that Weir makes itself. */
  #id: string | null = null
  #created: number | null = null

  constructor(context: AnswerContext, classify: ClassifyError) {
    this.#context = context
    this.#classify = classify
    this.#framer = createFramer({ max_event_bytes: context.max_event_bytes })
    this.#observer = new OpenaiObserver(context.tokenizer)
    this.#plan = { model: Buffer.from(JSON.stringify(context.model_asked)), usage_asked: context.usage_asked }
  }

  push(chunk: Buffer): StreamStep {
    if (this.#over) return NOTHING
    try {
      return this.#pass(this.#framer.push(chunk))
    } catch (error) {
      if (!(error instanceof EventTooLargeError)) throw error
      const before = this.#pass(error.frames)
      if (this.#over) return before
      this.#over = true
      return { ...before, failure: new UpstreamFailure('malformed', { cause: error }) }
    }
  }

  end(): StreamStep {
    if (this.#over) return NOTHING
    const step = this.#pass(this.#framer.end())
    if (this.#over) return step
    this.#over = true
    return this.#observer.finished ? step : { ...step, failure: new UpstreamFailure('truncated') }
  }

  closing(): Buffer {
    if (!this.#context.usage_asked || this.#observer.reported_at_top) return EMPTY
    const in_choice = this.#observer.choice_usage_json
    this.#observer.repairs.add(in_choice === null ? 'usage_estimated' : 'usage_in_choice')
    const head = JSON.stringify({
      id: this.#id ?? 'chatcmpl-weir',
      object: 'chat.completion.chunk',
      created: this.#created ?? this.#context.created_s,
      model: this.#context.model_asked,
      choices: [],
    })
    return Buffer.from(`data: ${head.slice(0, -1)},"usage":${in_choice ?? this.#estimatedUsage()}}\n\n`)
  }

  observe(): Observation {
    if (this.#framer.bom_removed) this.#observer.repairs.add('bom')
    return this.#observer.observation()
  }

  #estimatedUsage(): string {
    const prompt_tokens = this.#context.prompt_tokens
    const completion_tokens = this.#observer.observation().estimated_output
    return JSON.stringify({ prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens })
  }

  #pass(frames: readonly Frame[]): StreamStep {
    let verdict: Verdict = 'go_on'
    this.#out.reserve(frames.reduce((sum, frame) => sum + frame.raw.length + this.#plan.model.length, 0))
    for (const frame of frames) {
      verdict = this.#frame(frame)
      if (verdict !== 'go_on') break
    }
    let failure = verdict instanceof UpstreamFailure ? verdict : null
    const done = verdict === 'done'
    if (done && !this.#observer.finished) failure = new UpstreamFailure('truncated')
    this.#over ||= verdict !== 'go_on'
    const step = { out: this.#out.take(), data_events: this.#data_events, failure, done }
    this.#data_events = 0
    return step
  }

  #frame(frame: Frame): Verdict {
    if (frame.late_line_feed) {
      if (this.#last_emitted) this.#out.append(frame.raw)
      return 'go_on'
    }
    if (frame.data === null) {
      if (frame.complete) this.#emit(frame, [])
      return 'go_on'
    }
    if (this.#template !== null && this.#fits(this.#template, frame)) return 'go_on'
    if (startsWithDone(frame.data)) return 'done'
    if (isBlank(frame.data)) {
      // A heartbeat of some proxies; official clients would fail to parse it.
      if (frame.complete) this.#drop('empty_data')
      return 'go_on'
    }
    const value = parseJson(frame.data)
    if (frame.event === 'error') return this.#classify(value ?? { error: { message: frame.data.toString('utf8', 0, 500) } })
    if (isError(value)) return this.#classify(value)
    if (isFields(value)) return this.#chunk(frame, frame.data, value)
    if (!frame.complete) return this.#observer.finished ? 'go_on' : new UpstreamFailure('truncated')
    return new UpstreamFailure('malformed')
  }

  #chunk(frame: Frame, data: Buffer, chunk: Readonly<Record<string, unknown>>): Verdict {
    if (!this.#observer.see(chunk)) return new UpstreamFailure('malformed')
    this.#identify(chunk['id'], chunk['created'])
    if (!this.#plan.usage_asked && chunk['usage'] !== undefined && isEmptyArray(chunk['choices'])) {
      this.#drop(null)
      return 'go_on'
    }
    try {
      const edits = chunkEdits(data, chunk, this.#plan, this.#observer.repairs)
      this.#emit(frame, edits)
      this.#learn(frame, data, chunk, edits)
    } catch (error) {
      if (!(error instanceof JsonSpanError)) throw error
      return new UpstreamFailure('malformed', { cause: error })
    }
    this.#observer.count(chunk)
    this.#data_events++
    return 'go_on'
  }

  #identify(id: unknown, created: unknown): void {
    if (typeof id === 'string' && id !== '') this.#id = id
    if (Number.isSafeInteger(created)) this.#created = Number(created)
  }

  #learn(frame: Frame, data: Buffer, chunk: Readonly<Record<string, unknown>>, edits: readonly Edit[]): void {
    if (this.#useless_templates >= MAX_USELESS_TEMPLATES) return
    const template = ChunkTemplate.of(frame, data, chunk, edits)
    if (template === null) return
    this.#template = template
    this.#useless_templates++
  }

  /** Passes a frame that differs from an earlier one in its text only, as that one was passed. */
  #fits(template: ChunkTemplate, frame: Frame): boolean {
    const match = frame.complete ? template.match(frame.raw) : null
    if (match === null) return false
    const { facts, out_before, out_behind } = template
    this.#out.append(out_before)
    this.#out.append(frame.raw, match.start, match.end)
    this.#out.append(out_behind)
    this.#last_emitted = true
    this.#identify(facts.id, facts.created)
    this.#observer.countText(facts.choice, facts.field, match.text)
    this.#data_events++
    this.#useless_templates = 0
    return true
  }

  #emit(frame: Frame, edits: readonly Edit[]): void {
    let at = 0
    for (const edit of inOrder(edits)) {
      this.#out.append(frame.raw, at, rawOffset(frame, edit.start))
      this.#out.append(edit.replacement)
      at = rawOffset(frame, edit.end)
    }
    this.#out.append(frame.raw, at)
    if (!frame.complete) {
      const last = frame.raw[frame.raw.length - 1]
      this.#observer.repairs.add('line_end')
      this.#out.append(last === 0x0a || last === 0x0d ? BLANK_LINE : LINE_END_AND_BLANK_LINE)
    }
    this.#last_emitted = true
  }

  #drop(repair: string | null): void {
    if (repair !== null) this.#observer.repairs.add(repair)
    this.#last_emitted = false
  }
}

/** Edits usually come in the order of the bytes; sorting them again would cost more than making them. */
function inOrder(edits: readonly Edit[]): readonly Edit[] {
  let last_start = 0
  for (const edit of edits) {
    if (edit.start < last_start) return edits.toSorted((a, b) => a.start - b.start)
    last_start = edit.start
  }
  return edits
}

function translateWhole(body: Buffer, context: AnswerContext, classify: ClassifyError): TranslatedAnswer {
  const observer = new OpenaiObserver(context.tokenizer)
  const has_bom = body.subarray(0, BOM.length).equals(BOM)
  if (has_bom) observer.repairs.add('bom')
  const json = has_bom ? body.subarray(BOM.length) : body
  const value = parseJson(json)
  if (isError(value)) throw classify(value)
  if (!isFields(value)) throw new UpstreamFailure('malformed')
  // Without a choice there is no answer, and another target may have one.
  if (isEmptyArray(value['choices'])) throw new UpstreamFailure('malformed')
  const is_chat = Array.isArray(value['choices'])
  if (!is_chat && !Array.isArray(value['data']) && !Array.isArray(value['results'])) throw new UpstreamFailure('malformed')
  if (!observer.see(value)) throw new UpstreamFailure('malformed')
  observer.count(value)
  const observation = observer.observation()
  return {
    out: spliceBytes(json, editsOf(json, context)),
    // An answer without choices (embeddings) is whole when its JSON is.
    observation: is_chat ? observation : { ...observation, finished: true },
  }
}

function editsOf(json: Buffer, context: AnswerContext): Edit[] {
  try {
    return modelEdits(json, Buffer.from(JSON.stringify(context.model_asked)))
  } catch (error) {
    if (!(error instanceof JsonSpanError)) throw error
    throw new UpstreamFailure('malformed', { cause: error })
  }
}

/** The value, or undefined if the bytes are not JSON. */
function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}

/** The official SDKs compare the beginning only. */
function startsWithDone(data: Buffer): boolean {
  return data[0] === DONE[0] && data.subarray(0, DONE.length).equals(DONE)
}

function isBlank(data: Buffer): boolean {
  return (data[0] ?? 0x20) <= 0x20 && data.toString('latin1').trim() === ''
}

function isEmptyArray(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0
}
