import { ByteWriter } from '../../base/byte-writer.ts'
import { JsonSpanError } from '../../base/json-spans.ts'
import type { Edit } from '../../base/json-spans.ts'
import { UpstreamFailure } from '../failure.ts'
import { createFramer, EventTooLargeError, rawOffset } from '../sse.ts'
import type { Frame, Framer } from '../sse.ts'
import type { AnswerContext, Observation, StreamStep, StreamTranslator } from './dialect.ts'
import { arrayValues, isBlank, isHeartbeat, isObjectOfNothing, parseJson, plainFrame, saysDone, separateLines } from './frames.ts'
import { JsonBody, looksLikeJson } from './json-body.ts'
import { protocolOf } from './native/recognise.ts'
import type { TextQuirks } from '../providers/provider.ts'
import type { NativeProtocol, NativeReader } from './native/protocol.ts'
import { brokenOffAt, countMeaning, meaningOf } from './openai-choice.ts'
import type { ChoiceMeaning } from './openai-choice.ts'
import { isError } from './openai-errors.ts'
import type { ClassifyError } from './openai-errors.ts'
import type { ChoiceState } from './openai-observer.ts'
import { choicesOf, OpenaiObserver } from './openai-observer.ts'
import { chunkEdits } from './openai-repairs.ts'
import type { ChunkPlan } from './openai-repairs.ts'
import { ChunkTemplate } from './openai-template.ts'
import { isFields, usageJson } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

const EMPTY = Buffer.alloc(0)
const BLANK_LINE = Buffer.from('\n')
const LINE_END_AND_BLANK_LINE = Buffer.from('\n\n')
const NOTHING: StreamStep = { out: EMPTY, data_events: 0, failure: null, done: false }

/** Templates learned in a row that no chunk had: then this upstream's chunks differ in more than their text. */
const MAX_USELESS_TEMPLATES = 4

/** Most white space before an answer that is kept for what may follow. */
const MAX_LEAD_BYTES = 65_536

/** What is known of the upstream beforehand. */
export interface StreamFacts {
  readonly classify: ClassifyError
  /** `[DONE]` is all that the provider says at the end (Spark). */
  readonly done_is_finish: boolean
  /** The protocol of the endpoint, or null for OpenAI's. */
  readonly protocol: NativeProtocol | null
  readonly text_quirks: TextQuirks | null
}

/** What a frame asks the stream to do besides passing it. */
type Verdict = 'go_on' | 'done' | UpstreamFailure

/** One streamed answer on its way to an OpenAI client: passed byte by byte where that is possible, translated where it is not. */
export class OpenaiStream implements StreamTranslator {
  readonly #context: AnswerContext
  readonly #facts: StreamFacts
  readonly #framer: Framer
  readonly #observer: OpenaiObserver
  readonly #plan: ChunkPlan
  readonly #out = new ByteWriter()
  #form: 'unknown' | 'events' | JsonBody = 'unknown'
  /** What came before the first byte that says something. */
  #lead: Buffer = EMPTY
  #reader: NativeReader | null
  #data_events = 0
  #over = false
  #last_emitted = false
  #ended_in_return = false
  /** A choice had a `message`: in a JSON body, the whole answer. */
  #whole_value = false
  #template: ChunkTemplate | null = null
  #useless_templates = 0
  /** Of the latest chunk, for a chunk that Weir makes itself. */
  #id: string | null = null
  #created: number | null = null

  constructor(context: AnswerContext, facts: StreamFacts) {
    this.#context = context
    this.#facts = facts
    this.#framer = createFramer({ max_event_bytes: context.max_event_bytes })
    this.#observer = new OpenaiObserver(context)
    this.#plan = { model: Buffer.from(JSON.stringify(context.model_asked)), usage_asked: context.usage_asked, whole: false }
    this.#reader = facts.protocol?.reader() ?? null
  }

  push(chunk: Buffer): StreamStep {
    if (this.#over) return NOTHING
    if (this.#form !== 'unknown') return this.#form === 'events' ? this.#pushEvents(chunk) : this.#pushJson(this.#form, chunk)
    this.#lead = this.#lead.length === 0 ? chunk : Buffer.concat([this.#lead, chunk])
    this.#form = formOf(this.#lead, this.#context.max_event_bytes)
    // White space says nothing yet: where JSON follows, it is not a part of a stream.
    if (this.#form === 'unknown') return NOTHING
    const bytes = this.#lead
    this.#lead = EMPTY
    return this.#form === 'events' ? this.#pushEvents(bytes) : this.#pushJson(this.#form, bytes)
  }

  #pushEvents(bytes: Buffer): StreamStep {
    try {
      return this.#pass(this.#framer.push(bytes))
    } catch (error) {
      if (!(error instanceof EventTooLargeError)) throw error
      const before = this.#pass(error.frames)
      return this.#over ? before : this.#fail(before, new UpstreamFailure('malformed', { cause: error }))
    }
  }

  end(): StreamStep {
    if (this.#over) return NOTHING
    const rest = typeof this.#form === 'string' ? [...this.#framer.push(this.#lead), ...this.#framer.end()] : restOf(this.#form)
    let step = this.#pass(rest)
    if (this.#over) return step
    if (typeof this.#form !== 'string' && this.#whole_value && !this.#observer.finished) {
      // A whole answer needs no finish reason to be whole.
      this.#finishAll('stop', 'finish_by_whole')
      step = { ...step, out: Buffer.concat([step.out, this.#out.take()]) }
    }
    this.#over = true
    return this.#observer.finished ? step : { ...step, failure: new UpstreamFailure('truncated') }
  }

  closing(): Buffer {
    if (!this.#context.usage_asked || this.#observer.reported_at_top) return EMPTY
    const hidden = this.#observer.hidden_usage_json
    if (hidden === null) this.#observer.repairs.add('usage_estimated')
    else if (this.#reader === null) this.#observer.repairs.add('usage_in_choice')
    const head = JSON.stringify(this.#ownChunk([]))
    return Buffer.from(`data: ${head.slice(0, -1)},"usage":${hidden ?? this.#estimatedUsage()}}\n\n`)
  }

  observe(): Observation {
    if (this.#framer.bom_removed) this.#observer.repairs.add('bom')
    return this.#observer.observation()
  }

  #ownChunk(choices: readonly unknown[]): Fields {
    return {
      id: this.#id ?? 'chatcmpl-weir',
      object: 'chat.completion.chunk',
      created: this.#created ?? this.#context.created_s,
      model: this.#context.model_asked,
      choices,
    }
  }

  #estimatedUsage(): string {
    const prompt_tokens = this.#context.prompt_tokens
    const completion_tokens = this.#observer.observation().estimated_output
    return JSON.stringify({ prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens })
  }

  #pushJson(body: JsonBody, chunk: Buffer): StreamStep {
    const values = body.push(chunk)
    if (values === null) return this.#fail(NOTHING, new UpstreamFailure('malformed'))
    this.#observer.repairs.add('json_body')
    return this.#pass(values.map(plainFrame))
  }

  #fail(before: StreamStep, failure: UpstreamFailure): StreamStep {
    this.#over = true
    return { ...before, failure }
  }

  #pass(frames: readonly Frame[]): StreamStep {
    let verdict: Verdict = 'go_on'
    this.#out.reserve(frames.reduce((sum, frame) => sum + frame.raw.length + this.#plan.model.length, 0))
    for (const frame of frames) {
      verdict = this.#frame(frame)
      if (verdict !== 'go_on') break
    }
    const failure = verdict instanceof UpstreamFailure ? verdict : verdict === 'done' ? this.#judgeDone() : null
    this.#over ||= verdict !== 'go_on'
    const step = { out: this.#out.take(), data_events: this.#data_events, failure, done: verdict === 'done' }
    this.#data_events = 0
    return step
  }

  /** The upstream says that it is done. Where that is all it ever says, or it has counted, every choice is finished. */
  #judgeDone(): UpstreamFailure | null {
    if (this.#observer.finished) return null
    if (this.#facts.done_is_finish || this.#observer.reported_as_at_end) this.#finishAll('stop', 'finish_by_done')
    return this.#observer.finished ? null : new UpstreamFailure('truncated')
  }

  #frame(frame: Frame): Verdict {
    if (frame.late_line_feed) {
      if (this.#last_emitted) this.#out.append(frame.raw)
      return 'go_on'
    }
    if (frame.data === null) {
      // Official clients would parse the nothing that a named event without data has.
      if (frame.complete && frame.event !== null) this.#drop('empty_data')
      else if (frame.complete) this.#emit(frame, [])
      return 'go_on'
    }
    if (this.#template !== null && this.#fits(this.#template, frame)) return 'go_on'
    if (saysDone(frame)) return 'done'
    if (isBlank(frame.data) || isHeartbeat(frame)) {
      // A heartbeat of some proxies; official clients would fail to parse it.
      if (frame.complete) this.#drop('empty_data')
      return 'go_on'
    }
    return this.#value(frame, frame.data, parseJson(frame.data))
  }

  #value(frame: Frame, data: Buffer, value: unknown): Verdict {
    if (frame.event === 'error') return this.#facts.classify(value ?? { error: { message: data.toString('utf8', 0, 500) } })
    if (Array.isArray(value) && value.length > 0 && value.every(isFields))
      return this.#each(arrayValues(data).map(plainFrame), 'chunk_array')
    if (isError(value)) return this.#facts.classify(value)
    if (isFields(value)) return this.#object(frame, data, value)
    const lines = value === undefined ? separateLines(frame, data) : null
    if (lines !== null) return this.#each(lines, 'joined_events')
    if (!frame.complete) return this.#observer.finished ? 'go_on' : new UpstreamFailure('truncated')
    return new UpstreamFailure('malformed')
  }

  #each(frames: readonly Frame[], repair: string): Verdict {
    this.#observer.repairs.add(repair)
    for (const frame of frames) {
      const verdict = this.#frame(frame)
      if (verdict !== 'go_on') return verdict
    }
    this.#last_emitted = false
    return 'go_on'
  }

  #object(frame: Frame, data: Buffer, value: Fields): Verdict {
    if (isObjectOfNothing(value)) {
      if (frame.complete) this.#drop('empty_data')
      return 'go_on'
    }
    if (Array.isArray(value['choices']) || (isFields(value['choices']) && this.#reader === null)) return this.#chunk(frame, data, value)
    const found = this.#reader === null ? protocolOf(value) : null
    if (found !== null) {
      this.#reader = found.reader()
      this.#observer.repairs.add('protocol')
    }
    return this.#reader === null ? this.#chunk(frame, data, value) : this.#native(this.#reader, value, frame.event)
  }

  #native(reader: NativeReader, value: Fields, event: string | null): Verdict {
    const { chunks, usage, done } = reader.read(value, event)
    if (usage !== null) this.#observer.seeHidden(usage)
    for (const chunk of chunks) {
      const verdict = this.#own({ ...this.#ownChunk([]), ...chunk })
      if (verdict !== 'go_on') return verdict
    }
    if (done && !this.#observer.finished) this.#finishAll('stop', 'finish_by_done')
    this.#last_emitted = false
    return done ? 'done' : 'go_on'
  }

  /** A chunk that Weir makes goes the way of those that it gets. */
  #own(chunk: Fields): Verdict {
    const frame = plainFrame(Buffer.from(JSON.stringify(chunk)))
    // The line feed of the frame before may still be on its way; it must not come behind this one.
    if (this.#last_emitted && this.#ended_in_return) this.#out.append(BLANK_LINE)
    const verdict = frame.data === null ? 'go_on' : this.#chunk(frame, frame.data, chunk)
    this.#last_emitted = false
    return verdict
  }

  #chunk(frame: Frame, data: Buffer, chunk: Fields): Verdict {
    if (!this.#observer.see(chunk)) return new UpstreamFailure('malformed')
    this.#identify(chunk['id'], chunk['created'])
    if (!this.#plan.usage_asked && chunk['usage'] !== undefined && hasNoChoice(chunk['choices'])) {
      this.#drop(null)
      return 'go_on'
    }
    const meanings = this.#meaningsOf(chunk)
    for (const { content } of meanings)
      if (saysErrorText(content, this.#facts)) return this.#facts.classify({ error: { message: content.trim() } })
    try {
      const edits = chunkEdits(data, chunk, meanings, this.#plan, this.#observer.repairs)
      this.#emit(frame, edits)
      if (isPlain(meanings)) this.#learn(frame, data, chunk, edits)
    } catch (error) {
      if (!(error instanceof JsonSpanError)) throw error
      return new UpstreamFailure('malformed', { cause: error })
    }
    for (const meaning of meanings) this.#count(meaning, chunk)
    this.#data_events++
    return this.#ended(chunk, meanings)
  }

  #meaningsOf(chunk: Fields): ChoiceMeaning[] {
    const meanings: ChoiceMeaning[] = []
    for (const [position, choice] of choicesOf(chunk).entries()) {
      const state = isFields(choice) ? this.#observer.stateOf(choice, position) : null
      if (isFields(choice) && state !== null) meanings.push(this.#unrepeated(meaningOf(choice, position, state, false)))
    }
    return meanings
  }

  #unrepeated(meaning: ChoiceMeaning): ChoiceMeaning {
    if (this.#facts.text_quirks?.repeats_answer !== true || !meaning.state.sent.isAgain(meaning.content)) return meaning
    return { ...meaning, content: '', content_changed: true }
  }

  #count(meaning: ChoiceMeaning, chunk: Fields): void {
    countMeaning(meaning)
    const said = meaning.content !== '' || meaning.reasoning !== '' || (meaning.calls?.length ?? 0) > 0
    if (said && chunk['usage'] === undefined) this.#observer.textAfterReport()
  }

  /** Ends that a chunk says in another way than by a finish reason, and answers that were broken off. */
  #ended(chunk: Fields, meanings: readonly ChoiceMeaning[]): Verdict {
    for (const { choice } of meanings) {
      const broken = brokenOffAt(choice)
      if (broken !== null) return new UpstreamFailure(broken, { provider_code: String(choice['finish_reason']) })
    }
    if (chunk['is_end'] === true) this.#finishAll(endingOf(chunk), 'finish_by_is_end')
    this.#whole_value ||= meanings.some(({ container }) => container === 'message')
    return 'go_on'
  }

  /** A finish reason for every choice that has none. */
  #finishAll(reason: 'stop' | 'length' | 'content_filter', repair: string): void {
    for (const state of [...this.#observer.states]) {
      if (state.finish_reason !== null) continue
      this.#observer.repairs.add(repair)
      this.#own({ ...this.#ownChunk([finishChoice(state, reason)]), ...this.#usageAgain() })
    }
  }

  /** Official SDKs keep the usage of the last chunk, even if that has none. */
  #usageAgain(): Fields {
    const { reported } = this.#observer.observation()
    return this.#context.usage_asked && this.#observer.reported_at_top && reported !== null ? { usage: usageJson(reported) } : {}
  }

  #identify(id: unknown, created: unknown): void {
    if (typeof id === 'string' && id !== '') this.#id = id
    if (Number.isSafeInteger(created)) this.#created = Number(created)
  }

  #learn(frame: Frame, data: Buffer, chunk: Fields, edits: readonly Edit[]): void {
    // Where errors are told as text, every text must be looked at.
    if (this.#useless_templates >= MAX_USELESS_TEMPLATES || this.#facts.text_quirks !== null) return
    const template = ChunkTemplate.of(frame, data, chunk, edits)
    if (template === null) return
    this.#template = template
    this.#useless_templates++
  }

  /** Passes a frame that differs from an earlier one in its text only, as that one was passed. */
  #fits(template: ChunkTemplate, frame: Frame): boolean {
    const match = frame.complete ? template.match(frame.raw) : null
    if (match === null) return false
    const { facts, out_before, out_between, out_behind } = template
    this.#out.append(out_before)
    this.#out.append(frame.raw, match.start, match.end)
    if (out_between !== null) {
      this.#out.append(out_between)
      this.#out.append(frame.raw, match.start, match.end)
    }
    this.#out.append(out_behind)
    this.#last_emitted = true
    this.#ended_in_return = frame.raw[frame.raw.length - 1] === 0x0d
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
    this.#ended_in_return = frame.raw[frame.raw.length - 1] === 0x0d
  }

  #drop(repair: string | null): void {
    if (repair !== null) this.#observer.repairs.add(repair)
    this.#last_emitted = false
  }
}

/** Whether a text is how this server tells of an error. */
export function saysErrorText(content: string, { text_quirks }: Pick<StreamFacts, 'text_quirks'>): boolean {
  return text_quirks !== null && content.startsWith(text_quirks.error_begins)
}

/** By the first byte that is no blank and no byte order mark. Nothing but such bytes says nothing yet. */
function formOf(chunk: Buffer, max_event_bytes: number): 'unknown' | 'events' | JsonBody {
  for (const byte of chunk) {
    if (byte <= 0x20 || byte === 0xef || byte === 0xbb || byte === 0xbf) continue
    return looksLikeJson(byte) ? new JsonBody(max_event_bytes) : 'events'
  }
  return chunk.length > MAX_LEAD_BYTES ? 'events' : 'unknown'
}

function restOf(body: 'unknown' | JsonBody): Frame[] {
  if (typeof body === 'string') return []
  const rest = body.rest()
  return rest.length === 0 ? [] : [{ ...plainFrame(rest), complete: false }]
}

function finishChoice(state: ChoiceState, reason: 'stop' | 'length' | 'content_filter'): Fields {
  const held = state.heldBack()
  const finish_reason = reason === 'stop' && state.tools.count > 0 ? 'tool_calls' : reason
  return { index: state.index, delta: held === '' ? {} : { content: held }, finish_reason }
}

/** Qianfan: a conversation that must be dropped was stopped for its content. */
function endingOf(chunk: Fields): 'stop' | 'length' | 'content_filter' {
  if (chunk['need_clear_history'] === true) return 'content_filter'
  return chunk['is_truncated'] === true ? 'length' : 'stop'
}

/** One choice whose texts pass as they are, so that the next chunks like it can be passed without being read. */
function isPlain(meanings: readonly ChoiceMeaning[]): boolean {
  const [meaning, second] = meanings
  if (meaning === undefined || second !== undefined) return false
  const { container, content, content_changed, reasoning_changed, calls, unknown, role, body, label, state } = meaning
  if (label !== null || (content !== '' && state.label.waits_for_text)) return false
  const says_role_once = role !== 'remove' && body['role'] !== undefined
  return container === 'delta' && !content_changed && !reasoning_changed && !says_role_once && (calls?.length ?? 0) === 0 && unknown === ''
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

function hasNoChoice(choices: unknown): boolean {
  return choices === undefined || choices === null || (Array.isArray(choices) && choices.length === 0)
}
