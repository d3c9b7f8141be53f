import { contentText, functionsOf, messagesOf, pastCalls, renamed, reportDropped, splitSystem } from './messages.ts'
import type { NativeRequest } from './native.ts'

type Fields = Readonly<Record<string, unknown>>

/** It takes temperatures above 0, at most 1. */
const TEMPERATURE = { min: 0.01, max: 1 }

/** A chat request as the first API of Baidu's Qianfan takes it; the model is in the path. */
export function qianfanBody({ chat, stream, cap, report }: NativeRequest): Fields {
  const { system, others } = splitSystem(messagesOf(chat))
  const functions = functionsOf(chat).map(({ name, description, parameters }) => ({
    name,
    description: description ?? '',
    parameters: parameters ?? { type: 'object', properties: {} },
  }))
  reportDropped(chat, ['n', 'seed', 'logit_bias', 'logprobs', 'presence_penalty', 'frequency_penalty'], report)
  return {
    messages: turnsOf(others),
    ...(system === '' ? {} : { system }),
    ...(stream ? { stream } : {}),
    ...temperatureOf(chat['temperature'], report),
    ...renamed(chat, { top_p: 'top_p', user: 'user_id' }),
    ...(chat['stop'] === undefined || chat['stop'] === null ? {} : { stop: [chat['stop']].flat() }),
    ...(cap === null ? {} : { max_output_tokens: cap }),
    ...(functions.length === 0 ? {} : { functions }),
  }
}

function temperatureOf(given: unknown, report: NativeRequest['report']): Fields {
  if (typeof given !== 'number') return {}
  const temperature = Math.min(Math.max(given, TEMPERATURE.min), TEMPERATURE.max)
  if (temperature !== given) report('temperature', temperature === 1 ? '1.0' : String(temperature))
  return { temperature }
}

/** Roles alternate, and functions are called one at a time: calls made together become one after the other with their results. */
function turnsOf(messages: readonly Fields[]): readonly Fields[] {
  const turns: Fields[] = []
  const results = new Map(messages.filter(({ role }) => role === 'tool').map((message) => [message['tool_call_id'], contentText(message)]))
  for (const message of messages) {
    if (message['role'] === 'tool') continue
    const calls = pastCalls(message)
    if (calls.length === 0) {
      addTurn(turns, message['role'] === 'assistant' ? 'assistant' : 'user', contentText(message))
      continue
    }
    for (const call of calls) {
      turns.push({ role: 'assistant', content: contentText(message), function_call: { name: call.name, arguments: call.arguments } })
      turns.push({ role: 'function', name: call.name, content: results.get(call.id) ?? '' })
    }
  }
  return turns
}

function addTurn(turns: Fields[], role: string, content: string): void {
  const last = turns.at(-1)
  if (last?.['role'] === role && last['function_call'] === undefined) {
    turns[turns.length - 1] = { ...last, content: `${String(last['content'])}\n\n${content}` }
  } else turns.push({ role, content })
}
