import { isFields } from '../openai-usage.ts'
import { NOTHING_SAID } from './protocol.ts'
import type { NativeProtocol, NativeReader, NativeStep } from './protocol.ts'

type Fields = Readonly<Record<string, unknown>>

/**
 * Dify's chat applications: JSON that names its `event`; pieces of text in `answer`, usage in the metadata of `message_end`, which ends the
 * answer. Steps of workflows, thoughts of agents and spoken answers are not told on. Errors are told apart before.
 * Source: langgenius/dify, API reference of chat and advanced chat applications, as of 2026.
 */
export const dify: NativeProtocol = {
  recognises: (value) =>
    typeof value['event'] === 'string' && ['task_id', 'message_id', 'conversation_id'].some((name) => typeof value[name] === 'string'),
  reader: () => new DifyReader(),
  whole(value) {
    if (typeof value['answer'] !== 'string') return null
    const message = { role: 'assistant', content: value['answer'] }
    const choices = [{ index: 0, message, finish_reason: 'stop' }]
    return { ...identityOf(value), object: 'chat.completion', model: '', choices, usage: usageOf(value) ?? undefined }
  },
}

class DifyReader implements NativeReader {
  #said_role = false
  /** Moderation has put other words in place of the answer's. */
  #replaced = false

  read(value: Fields): NativeStep {
    switch (value['event']) {
      case 'message':
      case 'agent_message':
        return this.#text(value)
      case 'message_replace':
        this.#replaced = true
        return this.#text(value)
      case 'message_end':
        return {
          chunks: [this.#chunk(value, {}, this.#replaced ? 'content_filter' : 'stop')],
          usage: usageOf(value),
          done: true,
        }
      default:
        return NOTHING_SAID
    }
  }

  #text(value: Fields): NativeStep {
    const { answer } = value
    if (typeof answer !== 'string' || answer === '') return NOTHING_SAID
    return { chunks: [this.#chunk(value, { content: answer }, null)], usage: null, done: false }
  }

  #chunk(value: Fields, delta: Fields, finish_reason: string | null): Fields {
    const role = this.#said_role ? {} : { role: 'assistant' }
    this.#said_role = true
    return { ...identityOf(value), choices: [{ index: 0, delta: { ...role, ...delta }, finish_reason }] }
  }
}

function identityOf({ message_id, created_at }: Fields): Fields {
  return {
    ...(typeof message_id === 'string' ? { id: message_id } : {}),
    ...(typeof created_at === 'number' ? { created: Math.floor(created_at) } : {}),
  }
}

/** A report of no tokens at all is none: some kinds of applications send zeros. */
function usageOf({ metadata }: Fields): Fields | null {
  const usage = isFields(metadata) ? metadata['usage'] : null
  if (!isFields(usage)) return null
  const [prompt_tokens, completion_tokens] = [Number(usage['prompt_tokens'] ?? 0), Number(usage['completion_tokens'] ?? 0)]
  const total_tokens = prompt_tokens + completion_tokens
  return total_tokens > 0 ? { prompt_tokens, completion_tokens, total_tokens } : null
}
