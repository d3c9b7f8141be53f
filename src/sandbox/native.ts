import type { Choice } from './answer.ts'
import type { Directives } from './directives.ts'
import type { Form } from './forms.ts'
import type { ReportedUsage, Stamp } from './layouts.ts'
import type { StreamItem } from './shapes.ts'

type Members = Readonly<Record<string, unknown>>

/** One answer in another protocol: what it is made of. */
export interface NativeAnswer {
  readonly choice: Choice
  readonly usage: ReportedUsage
  readonly stamp: Stamp
  readonly directives: Directives
  /** DashScope: texts come in pieces rather than growing. */
  readonly incremental: boolean
}

/** A piece of an answer, in the order in which it is written. */
interface Piece {
  readonly kind: 'reasoning' | 'content' | 'call_start' | 'call'
  /** Index among tool calls. */
  readonly call: number
  readonly text: string
  readonly tokens: number
}

const event = (name: string, data: Members): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
const plain = (data: Members): string => `data: ${JSON.stringify(data)}\n\n`
const bookend = (bytes: string, kind: 'opening' | 'closing'): StreamItem => ({ bytes, tokens: 0, reasoning: 0, weight: 0, kind })
const item = (bytes: string, { kind, tokens }: Piece): StreamItem => ({
  ...{ bytes, tokens, weight: tokens, kind: 'token' },
  reasoning: kind === 'reasoning' ? tokens : 0,
})

/** A streamed answer in another protocol. */
export function nativeItems(form: Form, answer: NativeAnswer): Iterable<StreamItem> {
  return STREAMS[form](answer)
}

/** A whole answer in another protocol. */
export function nativeWhole(form: Form, answer: NativeAnswer): string {
  return JSON.stringify(WHOLES[form](answer))
}

function* pieces({ choice, directives }: NativeAnswer): Generator<Piece> {
  const size = directives.tokens_per_chunk
  const cut = function* (texts: readonly string[], kind: Piece['kind'], call: number): Generator<Piece> {
    for (let at = 0; at < texts.length; at += size) {
      const part = texts.slice(at, at + size)
      yield { kind, call, text: part.join(''), tokens: part.length }
    }
  }
  yield* cut(choice.reasoning, 'reasoning', 0)
  yield* cut(choice.content, 'content', 0)
  for (const [index, call] of choice.tool_calls.entries()) {
    yield { kind: 'call_start', call: index, text: call.name, tokens: call.name_tokens }
    yield* cut(call.arguments, 'call', index)
  }
}

const STOP_REASONS: Readonly<Record<string, string>> = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'refusal',
}
const stopReason = (finish: string): string => STOP_REASONS[finish] ?? finish

function anthropicInput({ usage }: NativeAnswer): Members {
  return {
    input_tokens: usage.prompt_tokens - usage.cached_tokens,
    cache_read_input_tokens: usage.cached_tokens,
    cache_creation_input_tokens: 0,
  }
}

function* anthropicStream(answer: NativeAnswer): Generator<StreamItem> {
  const { choice, stamp, usage } = answer
  const message = {
    id: stamp.id,
    type: 'message',
    role: 'assistant',
    model: stamp.model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
  }
  yield bookend(
    event('message_start', { type: 'message_start', message: { ...message, usage: { ...anthropicInput(answer), output_tokens: 0 } } }),
    'opening',
  )
  let index = -1
  let open = ''
  const end = (): string => (open === '' ? '' : event('content_block_stop', { type: 'content_block_stop', index }))
  for (const piece of pieces(answer)) {
    const block = piece.kind === 'call_start' || piece.kind === 'call' ? `call ${piece.call}` : piece.kind
    let before = ''
    if (block !== open) {
      before = end()
      open = block
      index += 1
      before += event('content_block_start', { type: 'content_block_start', index, content_block: blockOf(piece, choice) })
    }
    const delta = deltaOf(piece)
    const after = delta === null ? '' : event('content_block_delta', { type: 'content_block_delta', index, delta })
    yield item(before + after, piece)
  }
  yield bookend(end(), 'closing')
  const delta = { stop_reason: stopReason(choice.finish_reason), stop_sequence: null }
  yield bookend(event('message_delta', { type: 'message_delta', delta, usage: { output_tokens: usage.completion_tokens } }), 'closing')
  yield bookend(event('message_stop', { type: 'message_stop' }), 'closing')
}

function blockOf(piece: Piece, choice: Choice): Members {
  if (piece.kind === 'reasoning') return { type: 'thinking', thinking: '' }
  if (piece.kind === 'content') return { type: 'text', text: '' }
  const call = choice.tool_calls[piece.call]
  return { type: 'tool_use', id: call?.id, name: call?.name, input: {} }
}

function deltaOf({ kind, text }: Piece): Members | null {
  if (kind === 'reasoning') return { type: 'thinking_delta', thinking: text }
  if (kind === 'content') return { type: 'text_delta', text }
  return kind === 'call' ? { type: 'input_json_delta', partial_json: text } : null
}

function anthropicWhole(answer: NativeAnswer): Members {
  const { choice, stamp, usage } = answer
  const content = [
    ...(choice.reasoning.length === 0 ? [] : [{ type: 'thinking', thinking: choice.reasoning.join(''), signature: 'sbx' }]),
    ...(choice.content.length === 0 ? [] : [{ type: 'text', text: choice.content.join('') }]),
    ...choice.tool_calls.map(({ id, name, arguments: given }) => ({
      type: 'tool_use',
      id,
      name,
      input: JSON.parse(given.join('')) as unknown,
    })),
  ]
  const head = { id: stamp.id, type: 'message', role: 'assistant', model: stamp.model }
  return {
    ...head,
    content,
    stop_reason: stopReason(choice.finish_reason),
    usage: { ...anthropicInput(answer), output_tokens: usage.completion_tokens },
  }
}

/** What has been written so far, for protocols whose frames repeat it. */
interface SoFar {
  content: string
  reasoning: string
  readonly calls: string[]
  tokens: number
}
const nothing = (): SoFar => ({ content: '', reasoning: '', calls: [], tokens: 0 })

function add(so_far: SoFar, { kind, call, text, tokens }: Piece): void {
  if (kind === 'content') so_far.content += text
  else if (kind === 'reasoning') so_far.reasoning += text
  else so_far.calls[call] = kind === 'call_start' ? '' : (so_far.calls[call] ?? '') + text
  so_far.tokens += tokens
}

function* qwenStream(answer: NativeAnswer): Generator<StreamItem> {
  const { choice, incremental } = answer
  const so_far = nothing()
  let frames = 0
  const frame = (message: Members, finish_reason: string): string => {
    frames += 1
    const output = { choices: [{ message: { role: 'assistant', ...message }, finish_reason }] }
    return `id:${frames}\nevent:result\n:HTTP_STATUS/200\ndata:${JSON.stringify({ output, usage: qwenUsage(answer, so_far.tokens), request_id: answer.stamp.id })}\n\n`
  }
  for (const piece of pieces(answer)) {
    add(so_far, piece)
    if (!incremental) yield item(frame(qwenMessage(so_far, choice), 'null'), piece)
    else {
      const one = nothing()
      add(one, piece)
      yield item(frame(qwenMessage(one, choice), 'null'), piece)
    }
  }
  yield bookend(frame(incremental ? { content: '' } : qwenMessage(so_far, choice), choice.finish_reason), 'closing')
}

function qwenMessage({ content, reasoning, calls }: SoFar, choice: Choice): Members {
  const tool_calls = calls.flatMap((given, index) => {
    const { id, name } = choice.tool_calls[index] ?? {}
    return given === undefined ? [] : [{ index, id, type: 'function', function: { name, arguments: given } }]
  })
  return { content, ...(reasoning === '' ? {} : { reasoning_content: reasoning }), ...(tool_calls.length === 0 ? {} : { tool_calls }) }
}

function qwenUsage({ usage }: NativeAnswer, output_tokens: number): Members {
  const details = usage.cached_tokens > 0 ? { prompt_tokens_details: { cached_tokens: usage.cached_tokens } } : {}
  return { total_tokens: usage.prompt_tokens + output_tokens, output_tokens, input_tokens: usage.prompt_tokens, ...details }
}

function qwenWhole(answer: NativeAnswer): Members {
  const { choice, usage, stamp } = answer
  const so_far = nothing()
  for (const piece of pieces(answer)) add(so_far, piece)
  const message = { role: 'assistant', ...qwenMessage(so_far, choice) }
  const output = { choices: [{ message, finish_reason: choice.finish_reason }] }
  return { output, usage: qwenUsage(answer, usage.completion_tokens), request_id: stamp.id }
}

const NOTE = '以上内容为AI生成，不代表开发者立场，请勿删除或修改本标记'

function pascalUsage({ usage }: NativeAnswer, CompletionTokens: number): Members {
  const { prompt_tokens, cached_tokens } = usage
  return {
    ...{ PromptTokens: prompt_tokens, CompletionTokens, TotalTokens: prompt_tokens + CompletionTokens },
    PromptTokensDetails: { CachedTokens: String(cached_tokens) },
  }
}

function* hunyuanStream(answer: NativeAnswer): Generator<StreamItem> {
  const { choice, stamp } = answer
  let tokens = 0
  const chunk = (delta: Members, FinishReason: string): string => {
    const Choices = [{ Delta: { Role: 'assistant', ...delta }, FinishReason, Index: 0 }]
    return plain({ Note: NOTE, Choices, Created: stamp.created_s, Id: stamp.id, Usage: pascalUsage(answer, tokens) })
  }
  for (const piece of pieces(answer)) {
    tokens += piece.tokens
    yield item(chunk(pascalDelta(piece, choice), ''), piece)
  }
  yield bookend(chunk({ Content: '' }, choice.finish_reason), 'closing')
}

/** Fragments of a call belong together by its id. */
function pascalDelta({ kind, call, text }: Piece, choice: Choice): Members {
  if (kind === 'content') return { Content: text }
  if (kind === 'reasoning') return { Content: '', ReasoningContent: text }
  const { id, name } = choice.tool_calls[call] ?? {}
  const Function = kind === 'call_start' ? { Name: name, Arguments: '' } : { Name: '', Arguments: text }
  return { Content: '', ToolCalls: [{ Id: id, Type: 'function', Function, Index: call }] }
}

function hunyuanWhole(answer: NativeAnswer): Members {
  const { choice, stamp, usage } = answer
  const ToolCalls = choice.tool_calls.map(({ id, name, arguments: given }, Index) => ({
    ...{ Id: id, Type: 'function', Index },
    Function: { Name: name, Arguments: given.join('') },
  }))
  const Message = {
    ...{ Role: 'assistant', Content: choice.content.join(''), ReasoningContent: choice.reasoning.join('') },
    ...(ToolCalls.length === 0 ? {} : { ToolCalls }),
  }
  const Choices = [{ Message, FinishReason: choice.finish_reason, Index: 0 }]
  return {
    Response: {
      Note: NOTE,
      Choices,
      Created: stamp.created_s,
      Id: stamp.id,
      RequestId: stamp.id,
      Usage: pascalUsage(answer, usage.completion_tokens),
    },
  }
}

function baiduHead({ stamp }: NativeAnswer): Members {
  return { id: stamp.id, object: 'chat.completion', created: stamp.created_s }
}

function baiduUsage({ usage }: NativeAnswer, completion_tokens: number): Members {
  return { prompt_tokens: usage.prompt_tokens, completion_tokens, total_tokens: usage.prompt_tokens + completion_tokens }
}

/** A call of a function comes whole, in the last frame, and there is one at most. */
function baiduEnd({ choice }: NativeAnswer): Members {
  const [call] = choice.tool_calls
  const function_call = call === undefined ? {} : { function_call: { name: call.name, arguments: call.arguments.join('') } }
  return {
    is_end: true,
    is_truncated: choice.finish_reason === 'length',
    need_clear_history: choice.finish_reason === 'content_filter',
    ...function_call,
  }
}

function* qianfanStream(answer: NativeAnswer): Generator<StreamItem> {
  let [sentence_id, tokens, called] = [0, 0, 0]
  for (const piece of pieces(answer)) {
    tokens += piece.tokens
    if (piece.kind === 'call_start' || piece.kind === 'call') {
      called += piece.tokens
      continue
    }
    const frame = { ...baiduHead(answer), sentence_id, is_end: false, is_truncated: false, result: piece.text, need_clear_history: false }
    yield item(plain({ ...frame, usage: baiduUsage(answer, tokens) }), piece)
    sentence_id += 1
  }
  const last = {
    ...baiduHead(answer),
    sentence_id,
    result: '',
    ...baiduEnd(answer),
    usage: baiduUsage(answer, answer.usage.completion_tokens),
  }
  yield { bytes: plain(last), tokens: called, reasoning: 0, weight: called, kind: 'closing' }
}

function qianfanWhole(answer: NativeAnswer): Members {
  const { choice, usage } = answer
  return { ...baiduHead(answer), result: choice.content.join(''), ...baiduEnd(answer), usage: baiduUsage(answer, usage.completion_tokens) }
}

function difyHead({ stamp }: NativeAnswer): Members {
  return { task_id: `task-${stamp.id}`, id: stamp.id, message_id: stamp.id, conversation_id: `conversation-${stamp.id}` }
}

function difyEnd(answer: NativeAnswer): Members {
  const { prompt_tokens, completion_tokens } = answer.usage
  const counts = { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
  const prices = {
    prompt_unit_price: '0.001',
    prompt_price: '0.001',
    completion_price: '0.002',
    total_price: '0.003',
    currency: 'USD',
    latency: 0.5,
  }
  return { usage: { ...counts, ...prices }, retriever_resources: [] }
}

/** Pings and steps of a workflow come between the pieces. */
function* difyStream(answer: NativeAnswer): Generator<StreamItem> {
  const head = { ...difyHead(answer), created_at: answer.stamp.created_s }
  yield bookend(`event: ping\n\n${plain({ event: 'workflow_started', ...head, workflow_run_id: 'run', data: { id: 'run' } })}`, 'opening')
  for (const piece of pieces(answer)) {
    const thought = { event: 'agent_thought', ...head, thought: piece.text, observation: '', tool: '' }
    yield item(plain(piece.kind === 'content' ? { event: 'message', ...head, answer: piece.text } : thought), piece)
  }
  yield bookend(plain({ event: 'workflow_finished', ...head, data: { id: 'run', status: 'succeeded' } }), 'closing')
  yield bookend(plain({ event: 'message_end', ...head, metadata: difyEnd(answer) }), 'closing')
}

function difyWhole(answer: NativeAnswer): Members {
  const said = answer.choice.content.join('')
  return {
    event: 'message',
    ...difyHead(answer),
    mode: 'chat',
    answer: said,
    metadata: difyEnd(answer),
    created_at: answer.stamp.created_s,
  }
}

function bailianFrame(answer: NativeAnswer, text: string, finish_reason: string, output_tokens: number): Members {
  const { stamp, usage } = answer
  const models = [{ input_tokens: usage.prompt_tokens, output_tokens, model_id: 'qwen-plus' }]
  const output = { session_id: `session-${stamp.id}`, finish_reason, text, reject_status: false }
  return { output, usage: { models }, request_id: stamp.id }
}

function* bailianStream(answer: NativeAnswer): Generator<StreamItem> {
  const { incremental, choice, usage } = answer
  const so_far = nothing()
  let frames = 0
  const frame = (text: string, finish_reason: string, tokens: number): string => {
    frames += 1
    return `id:${frames}\nevent:result\n:HTTP_STATUS/200\ndata:${JSON.stringify(bailianFrame(answer, text, finish_reason, tokens))}\n\n`
  }
  for (const piece of pieces(answer)) {
    add(so_far, piece)
    const piece_text = piece.kind === 'content' ? piece.text : ''
    yield item(frame(incremental ? piece_text : so_far.content, 'null', so_far.tokens), piece)
  }
  yield bookend(frame(incremental ? '' : so_far.content, choice.finish_reason, usage.completion_tokens), 'closing')
}

const STREAMS: Readonly<Record<Form, (answer: NativeAnswer) => Iterable<StreamItem>>> = {
  anthropic: anthropicStream,
  qwen_native: qwenStream,
  hunyuan_native: hunyuanStream,
  qianfan_v1: qianfanStream,
  dify: difyStream,
  bailian_app: bailianStream,
}
const WHOLES: Readonly<Record<Form, (answer: NativeAnswer) => Members>> = {
  anthropic: anthropicWhole,
  qwen_native: qwenWhole,
  hunyuan_native: hunyuanWhole,
  qianfan_v1: qianfanWhole,
  dify: difyWhole,
  bailian_app: (answer) =>
    bailianFrame(answer, answer.choice.content.join(''), answer.choice.finish_reason, answer.usage.completion_tokens),
}
