import { createHash } from 'node:crypto'
import { sandboxTokens } from '../money/estimate.ts'
import type { Directives } from './directives.ts'
import { sampleOf } from './sample.ts'

/** A chat request as far as the sandbox reads it; members it does not know are left alone. */
export interface ChatRequest {
  readonly model: string
  readonly messages: readonly unknown[]
  readonly stream: boolean
  readonly include_usage: boolean
  readonly n: number
  readonly max_tokens: number | null
  readonly stop: readonly string[]
  readonly tools: readonly Tool[]
  /** `auto`, `none`, `required`, or the name of a function. */
  readonly tool_choice: string
  readonly response_format: Members | null
}

interface Tool {
  readonly name: string
  readonly description: string
  readonly parameters: unknown
}

/** One tool call, its arguments in token pieces. `tokens` counts the pieces of the name and of the arguments. */
export interface ToolCall {
  readonly id: string
  readonly name: string
  readonly name_tokens: number
  readonly arguments: readonly string[]
}

/** One choice, in token pieces in the order in which they are sent: thinking, text, tool calls. */
export interface Choice {
  readonly reasoning: readonly string[]
  readonly content: readonly string[]
  readonly tool_calls: readonly ToolCall[]
  readonly finish_reason: string
}

/** A request that the sandbox refuses as any provider would. */
export class RequestError extends Error {
  override name = 'RequestError'
  readonly param: string | null
  constructor(message: string, param: string | null) {
    super(message)
    this.param = param
  }
}

type Members = Readonly<Record<string, unknown>>
const isObject = (value: unknown): value is Members => typeof value === 'object' && value !== null && !Array.isArray(value)

const MAX_CHOICES = 16
const MAX_STOPS = 16
const QUOTE_CHARS = 200

/** @throws RequestError naming the member that is wrong */
export function parseChatRequest(body: unknown): ChatRequest {
  if (!isObject(body)) throw new RequestError('The body must be a JSON object.', null)
  const { model, messages, n } = { model: body['model'], messages: body['messages'], n: body['n'] ?? 1 }
  if (typeof model !== 'string' || model === '') throw new RequestError('model must be a non-empty string.', 'model')
  if (!Array.isArray(messages) || messages.length === 0) throw new RequestError('messages must be a non-empty list.', 'messages')
  if (!messages.every(isObject)) throw new RequestError('Every message must be an object.', 'messages')
  if (!Number.isSafeInteger(n) || Number(n) < 1 || Number(n) > MAX_CHOICES) {
    throw new RequestError(`n must be a whole number from 1 to ${MAX_CHOICES}.`, 'n')
  }
  const options = body['stream_options']
  const format = body['response_format']
  return {
    model,
    messages,
    stream: body['stream'] === true,
    include_usage: isObject(options) && options['include_usage'] === true,
    n: Number(n),
    max_tokens: limitOf(body),
    stop: stopsOf(body['stop']),
    tools: toolsOf(body['tools']),
    tool_choice: toolChoiceOf(body['tool_choice']),
    response_format: isObject(format) ? format : null,
  }
}

function limitOf(body: Members): number | null {
  for (const name of ['max_completion_tokens', 'max_tokens']) {
    const limit = body[name] ?? null
    if (limit === null) continue
    if (!Number.isSafeInteger(limit) || Number(limit) < 1) throw new RequestError(`${name} must be a whole number from 1 on.`, name)
    return Number(limit)
  }
  return null
}

function stopsOf(stop: unknown): readonly string[] {
  const stops: unknown[] = Array.isArray(stop) ? stop : [stop]
  return stops.filter((text) => typeof text === 'string' && text !== '').slice(0, MAX_STOPS) as string[]
}

function toolsOf(tools: unknown): readonly Tool[] {
  if (!Array.isArray(tools)) return []
  return tools.flatMap((tool: unknown) => {
    const made = isObject(tool) && isObject(tool['function']) ? tool['function'] : null
    if (made === null || typeof made['name'] !== 'string') return []
    const description = typeof made['description'] === 'string' ? made['description'] : ''
    return [{ name: made['name'], description, parameters: made['parameters'] }]
  })
}

function toolChoiceOf(choice: unknown): string {
  if (typeof choice === 'string') return choice
  const named = isObject(choice) && isObject(choice['function']) ? choice['function']['name'] : null
  return typeof named === 'string' ? named : 'auto'
}

/**
 * The sandbox's answer: a pure function of the request and the directives, so the same prompt is always answered alike
 * (choices differ from one another by their number). Prompts in Chinese are answered in Chinese, all others in English.
 */
export function answerOf(request: ChatRequest, directives: Directives): readonly Choice[] {
  const prompt = lastUserText(request.messages)
  const called = calledTools(request, directives, prompt)
  const body = called.length > 0 ? { text: '', stopped: false } : stoppedAt(textOf(request, prompt), request.stop)
  const tool_calls = called.map((tool, index) => toolCallOf(tool, prompt, index))
  return Array.from({ length: request.n }, (_, index) => {
    const text = index === 0 || body.text === '' || request.response_format !== null ? body.text : numbered(body.text, index)
    const length = body.stopped || called.length > 0 ? null : directives.tokens
    const whole: Choice = {
      reasoning: piecesOf(thoughtOf(prompt), directives.reasoning_tokens),
      content: piecesOf(text, length),
      tool_calls,
      finish_reason: called.length > 0 ? 'tool_calls' : 'stop',
    }
    const limited = limitedTo(whole, request.max_tokens)
    return directives.finish_reason === null ? limited : { ...limited, finish_reason: directives.finish_reason }
  })
}

/** Completion tokens of a choice: thinking, text, and the names and arguments of tool calls. */
export function tokensOf(choice: Choice): number {
  const calls = choice.tool_calls.reduce((sum, call) => sum + call.name_tokens + call.arguments.length, 0)
  return choice.reasoning.length + choice.content.length + calls
}

/** `text` in token pieces; with a length, repeated or cut to exactly that many. */
function piecesOf(text: string, length: number | null): string[] {
  const once = text === '' ? [] : sandboxTokens(text)
  if (length === null || length <= once.length) return length === null ? once : once.slice(0, length)
  const again = sandboxTokens(` ${text.trim()}`)
  const pieces = once
  while (pieces.length < length) pieces.push(...again.slice(0, length - pieces.length))
  return pieces
}

/** Cuts a choice where the token limit falls; a name is sent whole or not at all. */
function limitedTo(choice: Choice, limit: number | null): Choice {
  if (limit === null || tokensOf(choice) <= limit) return choice
  let left = limit
  const take = (pieces: readonly string[]): readonly string[] => {
    const taken = pieces.slice(0, left)
    left -= taken.length
    return taken
  }
  const reasoning = take(choice.reasoning)
  const content = take(choice.content)
  const tool_calls: ToolCall[] = []
  for (const call of choice.tool_calls) {
    if (left < call.name_tokens) break
    left -= call.name_tokens
    tool_calls.push({ ...call, arguments: take(call.arguments) })
  }
  return { reasoning, content, tool_calls, finish_reason: 'length' }
}

function stoppedAt(text: string, stops: readonly string[]): { text: string; stopped: boolean } {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0)
  return found.length === 0 ? { text, stopped: false } : { text: text.slice(0, Math.min(...found)), stopped: true }
}

function textOf(request: ChatRequest, prompt: string): string {
  const format = request.response_format
  if (format?.['type'] === 'json_object') {
    return JSON.stringify({ answer: plainText(prompt), language: isChinese(prompt) ? 'zh' : 'en' })
  }
  if (format?.['type'] === 'json_schema') {
    const named = isObject(format['json_schema']) ? format['json_schema'] : {}
    return JSON.stringify(sampleOf(named['schema'], subjectOf(prompt), true))
  }
  const last = request.messages.at(-1)
  if (!isObject(last) || last['role'] !== 'tool') return plainText(prompt)
  return toolResultText(quoted(contentText(last['content'])), prompt)
}

function plainText(prompt: string): string {
  if (prompt === '') return 'This is the Weir sandbox. Nothing was asked, so nothing is answered.'
  return isChinese(prompt)
    ? `您好，这里是 Weir 沙箱模型。您说的是：“${quoted(prompt)}”。接口已经连通，换成正式模型后即可得到真实回答。`
    : `Hello from the Weir sandbox model. You said: "${quoted(prompt)}". The connection works; a real model would answer this properly.`
}

function toolResultText(result: string, prompt: string): string {
  return isChinese(prompt)
    ? `您好，这里是 Weir 沙箱模型。工具返回的结果是：${result}。以上就是对您问题的回答。`
    : `Hello from the Weir sandbox model. The tool answered: ${result}. That is the answer to your question.`
}

function thoughtOf(prompt: string): string {
  return isChinese(prompt)
    ? `先看用户说了什么：${quoted(prompt)}。沙箱只需如实复述。`
    : `The user says: ${quoted(prompt)}. The sandbox only has to repeat it.`
}

function numbered(text: string, index: number): string {
  return isChinese(text) ? `${text}（第 ${index + 1} 个回答）` : `${text} (answer ${index + 1})`
}

const isChinese = (text: string): boolean => /\p{Script=Han}/u.test(text)

function quoted(text: string): string {
  const points = Array.from(text.slice(0, QUOTE_CHARS * 2))
  return text.length <= QUOTE_CHARS * 2 && points.length <= QUOTE_CHARS ? text : `${points.slice(0, QUOTE_CHARS).join('')}…`
}

function lastUserText(messages: readonly unknown[]): string {
  const last = messages.findLast((message) => isObject(message) && message['role'] === 'user')
  return isObject(last) ? contentText(last['content']).trim() : ''
}

function contentText(content: unknown): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  const texts = content.map((part: unknown) => (isObject(part) && typeof part['text'] === 'string' ? part['text'] : ''))
  return texts.filter((text) => text !== '').join(' ')
}

function calledTools(request: ChatRequest, directives: Directives, prompt: string): readonly Tool[] {
  const { tools, tool_choice } = request
  const last = request.messages.at(-1)
  if (tools.length === 0 || tool_choice === 'none' || directives.tool_call === 'never') return []
  const named = tools.find((tool) => tool.name === tool_choice)
  if (named !== undefined) return [named]
  const suggested = tools.find((tool) => suggests(prompt, tool))
  const forced = directives.tool_call === 'always' || tool_choice === 'required'
  const answered = isObject(last) && last['role'] === 'tool'
  if (!forced && (answered || suggested === undefined)) return []
  const first = suggested ?? tools[0]
  const ordered = first === undefined ? tools : [first, ...tools.filter((tool) => tool !== first)]
  const wanted = Array.from({ length: directives.tool_count }, (_, index) => ordered[index % ordered.length])
  return wanted.filter((tool) => tool !== undefined)
}

/** Whether a prompt names a tool, or speaks of the weather while the tool knows it. */
function suggests(prompt: string, tool: Tool): boolean {
  const lower = prompt.toLowerCase()
  const name = tool.name.toLowerCase()
  if (lower.includes(name) || lower.includes(name.replaceAll('_', ' '))) return true
  const knows = /weather|天气/i
  return knows.test(prompt) && knows.test(`${tool.name} ${tool.description}`)
}

function toolCallOf(tool: Tool, prompt: string, index: number): ToolCall {
  const digest = createHash('sha256').update(`${index}\n${tool.name}\n${prompt}`).digest('hex')
  const given = JSON.stringify(sampleOf(tool.parameters ?? { type: 'object' }, subjectOf(prompt)))
  return {
    id: `call_${digest.slice(0, 24)}`,
    name: tool.name,
    name_tokens: sandboxTokens(tool.name).length,
    arguments: sandboxTokens(given),
  }
}

const FILLER_ZH = /请问|请|帮我|查询|查一下|查|今天|明天|现在|天气|怎么样|如何|多少|什么|的|吗|呢|啊/gu

/** What a prompt is about, well enough for a demonstration: a quoted part, a capitalised word, Chinese without filler, the last word. */
function subjectOf(prompt: string): string {
  const in_quotes = /["“'「]([^"”'」]{1,60})["”'」]/u.exec(prompt)?.[1]
  if (in_quotes !== undefined) return in_quotes
  if (isChinese(prompt)) return /[\p{Script=Han}\w]+/u.exec(prompt.replaceAll(FILLER_ZH, ' '))?.[0] ?? quoted(prompt)
  const words = prompt.match(/[\p{L}\p{N}_-]+/gu) ?? []
  const capitalised = words.slice(1).findLast((word) => /^\p{Lu}/u.test(word) && word !== 'I')
  return capitalised ?? words.at(-1) ?? 'sandbox'
}
