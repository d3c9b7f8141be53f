import { isFields } from '../openai-usage.ts'
import type { NativeProtocol } from './protocol.ts'

type Fields = Readonly<Record<string, unknown>>

/**
 * Baidu's first API: pieces of text in `result`, `is_end`, usage with every frame (cumulative: the last counts), no `[DONE]`.
 * Source: bce-qianfan-sdk as of 2026.
 */
export const qianfan: NativeProtocol = {
  recognises: (value) =>
    (typeof value['result'] === 'string' || isFields(value['function_call'])) &&
    ['is_end', 'sentence_id', 'need_clear_history', 'is_truncated'].some((name) => value[name] !== undefined),
  reader() {
    let said_role = false
    return {
      read(value) {
        const role = said_role ? {} : { role: 'assistant' }
        said_role = true
        const choice = {
          index: 0,
          delta: { ...role, ...textsOf(value, 0) },
          finish_reason: value['is_end'] === true ? finishOf(value) : null,
        }
        return { chunks: [{ ...identityOf(value), choices: [choice] }], usage: usageOf(value), done: false }
      },
    }
  },
  whole(value) {
    const message = { role: 'assistant', content: null, ...textsOf(value, undefined) }
    const choices = [{ index: 0, message, finish_reason: finishOf(value) }]
    return { ...identityOf(value), object: 'chat.completion', model: '', choices, usage: usageOf(value) ?? undefined }
  },
}

function textsOf({ id, result, function_call }: Fields, index: number | undefined): Fields {
  const content = typeof result === 'string' && result !== '' ? { content: result } : {}
  if (!isFields(function_call) || typeof function_call['name'] !== 'string') return content
  const { name, arguments: given, thoughts } = function_call
  const reasoning = typeof thoughts === 'string' && thoughts !== '' ? { reasoning_content: thoughts } : {}
  const call = {
    ...(index === undefined ? {} : { index }),
    id: `call_${String(id)}`,
    type: 'function',
    function: { name, arguments: given },
  }
  return { ...content, ...reasoning, tool_calls: [call] }
}

/** `need_clear_history` tells the application to drop a conversation for its content. */
function finishOf(value: Fields): string {
  if (value['need_clear_history'] === true) return 'content_filter'
  const { finish_reason, function_call, is_truncated } = value
  if (isFields(function_call)) return 'tool_calls'
  if (typeof finish_reason === 'string' && finish_reason !== '') return finish_reason
  return is_truncated === true ? 'length' : 'stop'
}

function identityOf({ id, created }: Fields): Fields {
  return { ...(typeof id === 'string' ? { id } : {}), ...(typeof created === 'number' ? { created } : {}) }
}

function usageOf({ usage }: Fields): Fields | null {
  return isFields(usage) ? usage : null
}
