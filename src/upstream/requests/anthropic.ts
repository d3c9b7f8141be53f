import { isFields } from '../dialects/openai-usage.ts'
import { reasoningOf } from './history.ts'
import { functionsOf, messagesOf, partsOf, pastCalls, renamed, reportDropped, splitSystem, contentText, textOf } from './messages.ts'
import type { NativeRequest } from './native.ts'
import { intentOf } from './thinking.ts'

type Fields = Readonly<Record<string, unknown>>

/** Used where neither the caller nor the catalogue knows a limit: the protocol must have one. */
const DEFAULT_MAX_TOKENS = 8192
/** The protocol's least, and what thinking may take where the caller does not say. */
const MIN_BUDGET_TOKENS = 1024
const DEFAULT_BUDGET_TOKENS = 4096

/** A chat request as Anthropic's Messages. */
export function anthropicBody({ chat, upstream_model, stream, cap, max_output_tokens, report }: NativeRequest): Fields {
  const { system, others } = splitSystem(messagesOf(chat))
  const max_tokens = cap ?? max_output_tokens ?? DEFAULT_MAX_TOKENS
  const tools = functionsOf(chat).map(({ name, description, parameters }) => ({
    name,
    ...(description === undefined ? {} : { description }),
    input_schema: parameters ?? { type: 'object', properties: {} },
  }))
  const thinking = thinkingOf(chat, max_tokens, report)
  reportDropped(chat, ['n', 'seed', 'logit_bias', 'logprobs', 'presence_penalty', 'frequency_penalty', 'response_format'], report)
  return {
    model: upstream_model,
    max_tokens,
    ...(system === '' ? {} : { system }),
    messages: joinTurns(others.flatMap(turnOf)),
    ...(stream ? { stream } : {}),
    ...renamed(chat, { temperature: 'temperature', top_p: 'top_p', top_k: 'top_k' }),
    ...(chat['stop'] === undefined || chat['stop'] === null ? {} : { stop_sequences: [chat['stop']].flat() }),
    ...(typeof chat['user'] === 'string' ? { metadata: { user_id: chat['user'] } } : {}),
    ...(tools.length === 0 ? {} : { tools, ...choiceOf(chat['tool_choice']) }),
    ...(thinking === null ? {} : { thinking }),
  }
}

interface Turn {
  readonly role: 'user' | 'assistant'
  readonly content: readonly Fields[]
}

function turnOf(message: Fields): Turn[] {
  if (message['role'] === 'tool') {
    const result = { type: 'tool_result', tool_use_id: idOf(textOf(message['tool_call_id'])), content: contentText(message) }
    return [{ role: 'user', content: [result] }]
  }
  const blocks = partsOf(message).flatMap((part): Fields[] => {
    if ('image_url' in part) return [{ type: 'image', source: imageSource(part.image_url) }]
    return part.text === '' ? [] : [{ type: 'text', text: part.text }]
  })
  if (message['role'] !== 'assistant') return [{ role: 'user', content: blocks }]
  const calls = pastCalls(message).map((call) => ({ type: 'tool_use', id: idOf(call.id), name: call.name, input: inputOf(call.arguments) }))
  return [{ role: 'assistant', content: [...thoughtsOf(message, calls.length > 0), ...blocks, ...calls] }]
}

/** Thinking goes back where it is signed, and with tool calls, where these endpoints demand it. */
function thoughtsOf(message: Fields, has_calls: boolean): Fields[] {
  const details = Array.isArray(message['reasoning_details']) ? message['reasoning_details'].filter(isFields) : []
  const redacted = details.filter(({ type }) => type === 'redacted_thinking').map(({ type, data }) => ({ type, data }))
  const signature = details.find((detail) => detail['type'] === 'thinking' && typeof detail['signature'] === 'string')?.['signature']
  const thinking = reasoningOf(message)
  if (thinking === '' || (signature === undefined && !has_calls)) return redacted
  return [{ type: 'thinking', thinking, signature: signature ?? '' }, ...redacted]
}

/** Turns of one role in a row are one turn; an empty one says nothing. */
function joinTurns(turns: readonly Turn[]): readonly Turn[] {
  const joined: Turn[] = []
  for (const turn of turns) {
    if (turn.content.length === 0) continue
    const last = joined.at(-1)
    if (last?.role === turn.role) joined[joined.length - 1] = { role: turn.role, content: [...last.content, ...turn.content] }
    else joined.push(turn)
  }
  return joined
}

/** Ids of other providers may have characters that the protocol refuses; call and result change alike. */
function idOf(id: string): string {
  return id.replaceAll(/[^A-Za-z0-9_-]/g, '_')
}

function inputOf(given: string): unknown {
  try {
    const input: unknown = JSON.parse(given === '' ? '{}' : given)
    return isFields(input) ? input : { value: input }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return { value: given }
  }
}

function imageSource(url: string): Fields {
  const data = /^data:([^;,]+);base64,(.*)$/s.exec(url)
  return data === null ? { type: 'url', url } : { type: 'base64', media_type: data[1], data: data[2] }
}

function choiceOf(choice: unknown): Fields {
  if (choice === 'required') return { tool_choice: { type: 'any' } }
  if (choice === 'none' || choice === 'auto') return { tool_choice: { type: choice } }
  const named = isFields(choice) && isFields(choice['function']) ? choice['function']['name'] : undefined
  return typeof named === 'string' ? { tool_choice: { type: 'tool', name: named } } : {}
}

function thinkingOf(chat: Fields, max_tokens: number, report: NativeRequest['report']): Fields | null {
  const intent = intentOf(chat)
  if (intent === null) return null
  if (intent.mode === 'off') return { type: 'disabled' }
  const budget_tokens = Math.min(Math.max(intent.budget ?? DEFAULT_BUDGET_TOKENS, MIN_BUDGET_TOKENS), max_tokens - 1)
  if (budget_tokens >= MIN_BUDGET_TOKENS) return { type: 'enabled', budget_tokens }
  report('thinking', 'dropped')
  return null
}
