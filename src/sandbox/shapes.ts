import { tokensOf, type Choice, type ToolCall } from './answer.ts'
import type { Directives } from './directives.ts'
import { LAYOUTS, text } from './layouts.ts'
import type { Layout, ReportedUsage, Stamp } from './layouts.ts'

/** One piece of a stream, written in one go. */
export interface StreamItem {
  readonly bytes: string | Buffer
  /** Completion tokens that it carries, thinking included, and those of thinking. */
  readonly tokens: number
  readonly reasoning: number
  /** Counts towards the place of a fault: tokens, or writes when a body is replayed. */
  readonly weight: number
  readonly kind: 'comment' | 'opening' | 'token' | 'closing'
}

/** Values that a parser which re-writes JSON would change: a big integer, a trailing zero, needless escapes, a duplicate key. */
const EXTRA = ',"sandbox_extra":{"big":9007199254740993,"price":1.50,"text":"\\u5802\\/","twice":1,"twice":2}'
const LINE_ENDS = { lf: '\n', crlf: '\r\n', cr: '\r' } as const
const BOM = '\uFEFF'

/** Writes one data event in the framing that was asked for. */
export function dataEvent(json: string, directives: Directives): string {
  const end = LINE_ENDS[directives.line_end]
  const field = directives.data_space ? 'data: ' : 'data:'
  if (!directives.multi_line || !json.startsWith('{')) return `${field}${json}${end}${end}`
  return `${field}{${end}${field}${json.slice(1, -1)}${end}${field}}${end}${end}`
}

/** The pieces of a choice in order, each as the inside of a delta. */
interface Part {
  readonly delta: string
  readonly tokens: number
  readonly reasoning: number
  /** The chunk has no finish reason at all, as Qwen's last fragment of a tool call. */
  readonly bare: boolean
}

/** A streamed answer, chunk by chunk; made lazily, so that a slow reader costs no memory. */
export function* streamItems(
  choices: readonly Choice[],
  usage: ReportedUsage,
  stamp: Stamp,
  directives: Directives,
  include_usage: boolean,
): Generator<StreamItem> {
  const chunks = new Chunks(stamp, usage, directives, include_usage)
  if (directives.bom) yield comment(BOM)
  const keep_alive = `: keep-alive${LINE_ENDS[directives.line_end].repeat(2)}`
  for (let sent = 0; sent < directives.keep_alive; sent++) yield comment(keep_alive)
  let data_events = 0
  for (const item of dataItems(choices, chunks, directives)) {
    yield item
    data_events += 1
    if (directives.keep_alive_every > 0 && data_events % directives.keep_alive_every === 0) yield comment(keep_alive)
  }
}

const comment = (bytes: string): StreamItem => ({ bytes, tokens: 0, reasoning: 0, weight: 0, kind: 'comment' })
const bookend = (bytes: string, kind: 'opening' | 'closing'): StreamItem => ({ bytes, tokens: 0, reasoning: 0, weight: 0, kind })

function* dataItems(choices: readonly Choice[], chunks: Chunks, directives: Directives): Generator<StreamItem> {
  const layout = LAYOUTS[directives.layout]
  for (const [index, choice] of choices.entries()) {
    if (opensAlone(choice, layout, directives)) {
      yield bookend(chunks.chunk(chunks.unfinished(index, openingDelta(choice, layout, directives))), 'opening')
    }
  }
  let running = choices.map((choice, index) => ({ index, parts: partsOf(choice, layout, directives) }))
  while (running.length > 0) {
    const ended = new Set<number>()
    for (const { index, parts } of running) {
      const next = parts.next()
      if (next.done === true) ended.add(index)
      else yield chunks.token(index, next.value)
    }
    if (ended.size > 0) running = running.filter(({ index }) => !ended.has(index))
  }
  for (const [index, choice] of choices.entries()) {
    yield bookend(chunks.finish(index, choice, index === choices.length - 1), 'closing')
  }
  const own = chunks.ownUsage()
  if (own !== null) yield bookend(own, 'closing')
  if (directives.done) yield bookend(dataEvent('[DONE]', directives), 'closing')
}

const ROLE = '"role":"assistant"'

/** Qwen says the role in the first fragment of a tool call, when nothing comes before it. */
function opensAlone(choice: Choice, layout: Layout, directives: Directives): boolean {
  if (layout.role !== 'own') return false
  return directives.layout !== 'qwen' || choice.reasoning.length + choice.content.length > 0 || choice.tool_calls.length === 0
}

function openingDelta(choice: Choice, layout: Layout, directives: Directives): string {
  if (!layout.names_both || choice.reasoning.length === 0) return `${ROLE},"content":""`
  const thought = `"${directives.reasoning_field}":${directives.reasoning_field === 'reasoning_details' ? '[]' : '""'}`
  return directives.layout === 'qwen' ? `"content":null,${ROLE},${thought}` : `${ROLE},"content":null,${thought}`
}

function* partsOf(choice: Choice, layout: Layout, directives: Directives): Generator<Part> {
  const size = directives.tokens_per_chunk
  const both = layout.names_both && choice.reasoning.length > 0
  const field = directives.reasoning_field
  let role = layout.role === 'own' ? '' : `${ROLE},`
  for (let at = 0; at < choice.reasoning.length; at += size) {
    const pieces = choice.reasoning.slice(at, at + size)
    const named = reasoningMember(field, pieces.join(''))
    const lead = both ? '"content":null,' : role !== '' && directives.layout === 'minimax' ? '"content":"",' : ''
    yield { delta: `${role}${lead}${named}`, tokens: pieces.length, reasoning: pieces.length, bare: false }
    if (layout.role === 'first') role = ''
  }
  const trail = both ? `,"${field}":null` : ''
  for (let at = 0; at < choice.content.length; at += size) {
    const pieces = choice.content.slice(at, at + size)
    yield { delta: `${role}"content":${text(pieces.join(''))}${trail}`, tokens: pieces.length, reasoning: 0, bare: false }
    if (layout.role === 'first') role = ''
  }
  if (directives.layout === 'ragflow' && choice.content.length > 0) {
    // Its last words are all of them once more.
    yield { delta: `${role}"content":${text(choice.content.join(''))}`, tokens: 0, reasoning: 0, bare: false }
  }
  if (layout.single_call) {
    const [call] = choice.tool_calls
    if (call !== undefined) yield singleCall(call, role)
    return
  }
  for (const [index, call] of choice.tool_calls.entries()) {
    const says_role = role !== '' || (index === 0 && layout.role === 'own' && !opensAlone(choice, layout, directives))
    yield* toolParts(call, index, says_role, directives)
  }
}

/** Spark: the whole of one call at once, and no list around it. */
function singleCall(call: ToolCall, role: string): Part {
  const made = `{"type":"function","function":{"name":${text(call.name)},"arguments":${text(call.arguments.join(''))}}}`
  const tokens = call.name_tokens + call.arguments.length
  return { delta: `${role}"content":"","tool_calls":${made}`, tokens, reasoning: 0, bare: false }
}

function reasoningMember(field: Directives['reasoning_field'], thought: string): string {
  if (field !== 'reasoning_details') return `"${field}":${text(thought)}`
  return `"${field}":[{"type":"reasoning.text","id":"reasoning-text-1","format":"MiniMax-response-v1","index":0,"text":${text(thought)}}]`
}

function* toolParts(call: ToolCall, index: number, says_role: boolean, directives: Directives): Generator<Part> {
  const qwen = directives.layout === 'qwen'
  const lead = qwen ? '"content":null,' : ''
  const first = `{"index":${index},"id":${text(call.id)},"type":"function","function":{"name":${text(call.name)},"arguments":""}}`
  const role_after = says_role && qwen ? `,${ROLE}` : ''
  const role_before = says_role && !qwen ? `${ROLE},` : ''
  yield { delta: `${role_before}${lead}"tool_calls":[${first}]${role_after}`, tokens: call.name_tokens, reasoning: 0, bare: false }
  const later = directives.tool_id === 'empty' ? '"id":"","type":"function",' : ''
  for (let at = 0; at < call.arguments.length; at += directives.tokens_per_chunk) {
    const pieces = call.arguments.slice(at, at + directives.tokens_per_chunk)
    const fragment = `{"index":${index},${later}"function":{"arguments":${text(pieces.join(''))}}}`
    yield { delta: `${lead}"tool_calls":[${fragment}]`, tokens: pieces.length, reasoning: 0, bare: false }
  }
  if (!qwen || directives.tool_id !== 'empty') return
  const bare = `{"function":{"arguments":""},"index":${index},"id":"","type":"function"}`
  yield { delta: `"tool_calls":[${bare}]`, tokens: 0, reasoning: 0, bare: true }
}

/** Builds the chunks of one answer; what does not change is built once. */
class Chunks {
  readonly #layout: Layout
  readonly #directives: Directives
  readonly #usage: ReportedUsage
  readonly #include_usage: boolean
  readonly #head: string
  readonly #between: string
  readonly #tail: string
  readonly #null_usage: string
  readonly #unfinished: string | null
  #sent = 0
  #reasoned = 0

  constructor(stamp: Stamp, usage: ReportedUsage, directives: Directives, include_usage: boolean) {
    const layout = LAYOUTS[directives.layout]
    const says_null = layout.null_usage === 'always' || (layout.null_usage === 'asked' && include_usage)
    this.#layout = layout
    this.#directives = directives
    this.#usage = usage
    this.#include_usage = include_usage
    this.#head = `{${layout.before(stamp)}"choices":[`
    this.#between = `]${layout.between(stamp)}`
    this.#tail = `${layout.after(stamp)}${directives.extra_fields ? EXTRA : ''}`
    this.#null_usage = says_null && directives.shape !== 'absent' ? ',"usage":null' : ''
    this.#unfinished = { null: 'null', empty: '""', omit: null }[directives.unfinished]
  }

  unfinished(index: number, delta: string): string {
    return this.#layout.choice({ index, delta, finish: this.#unfinished, more: '' })
  }

  /** A chunk around the JSON of its choices, with the usage member that the shape puts on every chunk. */
  chunk(choices: string, usage = this.#running(), padding = ''): string {
    return dataEvent(`${this.#head}${choices}${this.#between}${usage}${this.#tail}${padding}}`, this.#directives)
  }

  token(index: number, part: Part): StreamItem {
    this.#sent += part.tokens
    this.#reasoned += part.reasoning
    const { bytes_per_token } = this.#directives
    const padding = bytes_per_token === 0 ? '' : `,"obfuscation":"${'x'.repeat(bytes_per_token * part.tokens)}"`
    const choice = part.bare
      ? this.#layout.choice({ index, delta: part.delta, finish: null, more: '' })
      : this.unfinished(index, part.delta)
    const bytes = this.chunk(choice, this.#running(), padding)
    return { bytes, tokens: part.tokens, reasoning: part.reasoning, weight: part.tokens, kind: 'token' }
  }

  finish(index: number, choice: Choice, last: boolean): string {
    const { shape, reasoning_field, layout } = this.#directives
    const both = this.#layout.names_both && choice.reasoning.length > 0
    const tool_end = layout === 'qwen' && choice.tool_calls.length > 0
    const role = this.#layout.role === 'every' ? `${ROLE},` : ''
    const delta = tool_end ? '' : both ? `"content":"","${reasoning_field}":null` : `${role}${this.#layout.last_delta}`
    const inside = last && shape === 'choice' ? `,"usage":${this.#layout.usage(this.#usage, true)}` : ''
    const more = `${this.#layout.last_members}${inside}`
    const json = this.#layout.choice({ index, delta, finish: this.#layout.says_finish ? text(choice.finish_reason) : null, more })
    return last && shape === 'finish_chunk' ? this.chunk(json, `,"usage":${this.#layout.usage(this.#usage, true)}`) : this.chunk(json)
  }

  /** The chunk with usage and no choices, where the shape has one and the request asked for it. */
  ownUsage(): string | null {
    const { shape } = this.#directives
    if (!this.#include_usage || (shape !== 'own_chunk' && shape !== 'continuous')) return null
    return this.chunk('', `,"usage":${this.#layout.usage(this.#usage, true)}`)
  }

  #running(): string {
    if (this.#directives.shape !== 'continuous') return this.#null_usage
    const so_far = { ...this.#usage, completion_tokens: this.#sent, reasoning_tokens: this.#reasoned }
    return `,"usage":${this.#layout.usage(so_far, false)}`
  }
}

/** A whole answer as one JSON body. */
export function wholeBody(choices: readonly Choice[], usage: ReportedUsage, stamp: Stamp, directives: Directives): string {
  const json = choices.map((choice, index) => wholeChoice(choice, index, directives)).join(',')
  const head = `"id":${text(stamp.id)},"object":"chat.completion","created":${stamp.created_s},"model":${text(stamp.model)}`
  const reported = directives.shape === 'absent' ? '' : `,"usage":${LAYOUTS[directives.layout].usage(usage, true)}`
  const tokens = choices.reduce((sum, choice) => sum + tokensOf(choice), 0)
  const padding = directives.bytes_per_token === 0 ? '' : `,"obfuscation":"${'x'.repeat(directives.bytes_per_token * tokens)}"`
  return `{${head},"choices":[${json}]${reported}${directives.extra_fields ? EXTRA : ''}${padding}}`
}

function wholeChoice(choice: Choice, index: number, directives: Directives): string {
  const calls = choice.tool_calls.map(
    (call) =>
      `{"id":${text(call.id)},"type":"function","function":{"name":${text(call.name)},"arguments":${text(call.arguments.join(''))}}}`,
  )
  const content = calls.length > 0 && choice.content.length === 0 ? 'null' : text(choice.content.join(''))
  const thought = choice.reasoning.length === 0 ? '' : `,${reasoningMember(directives.reasoning_field, choice.reasoning.join(''))}`
  const tool_calls = calls.length === 0 ? '' : `,"tool_calls":[${calls.join(',')}]`
  const message = `{${ROLE},"content":${content}${thought}${tool_calls}}`
  return `{"index":${index},"message":${message},"logprobs":null,"finish_reason":${text(choice.finish_reason)}}`
}

/** An exact body, cut into the writes that were asked for. */
export function* rawItems(raw: string, split: Directives['split']): Generator<StreamItem> {
  const body = Buffer.from(raw, 'base64')
  let from = 0
  for (const to of cutsOf(body.length, split)) {
    if (to > from) yield { bytes: body.subarray(from, to), tokens: 0, reasoning: 0, weight: 1, kind: 'token' }
    from = Math.max(from, to)
  }
}

function* cutsOf(length: number, split: Directives['split']): Generator<number> {
  if (split !== null && typeof split.every === 'number') {
    for (let at = split.every; at < length; at += split.every) yield at
  } else if (Array.isArray(split)) {
    for (const at of split.toSorted((left, right) => left - right)) yield Math.min(at, length)
  }
  yield length
}
