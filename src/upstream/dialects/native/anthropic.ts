import { isFields, readUsage, usageJson } from '../openai-usage.ts'
import { NOTHING_SAID } from './protocol.ts'
import type { NativeProtocol, NativeReader, NativeStep } from './protocol.ts'

type Fields = Readonly<Record<string, unknown>>

const EVENTS: ReadonlySet<unknown> = new Set([
  ...['message_start', 'message_delta', 'message_stop', 'content_block_start', 'content_block_delta', 'content_block_stop', 'ping'],
])

/**
 * Anthropic's Messages as DeepSeek, GLM, Kimi, MiniMax and Qwen offer them: input tokens are told at the start, output tokens at the
 * end, cached tokens beside the input. Thinking becomes `reasoning_content`; its signature and redacted thinking stay in
 * `reasoning_details`, so that they can be given back.
 */
export const anthropic: NativeProtocol = {
  recognises: (value) => EVENTS.has(value['type']) || isMessage(value),
  reader: () => new AnthropicReader(),
  whole(value) {
    if (!isMessage(value)) return null
    const message = messageOf([value['content']].flat().filter(isFields))
    const choices = [{ index: 0, message, finish_reason: value['stop_reason'] ?? 'stop' }]
    const usage = readUsage(value['usage'])
    return { id: value['id'], object: 'chat.completion', model: '', choices, usage: usage === null ? undefined : usageJson(usage) }
  },
}

function isMessage(value: Fields): boolean {
  return value['type'] === 'message' && Array.isArray(value['content'])
}

function messageOf(blocks: readonly Fields[]): Fields {
  const of = (type: string): Fields[] => blocks.filter((block) => block['type'] === type)
  const content = of('text')
    .map((block) => String(block['text']))
    .join('')
  const thinking = of('thinking')
    .map((block) => String(block['thinking']))
    .join('')
  const calls = of('tool_use').map(({ id, name, input }) => ({
    id,
    type: 'function',
    function: { name, arguments: JSON.stringify(input ?? {}) },
  }))
  const details = blocks.filter((block) => isKept(block))
  return {
    role: 'assistant',
    content: content === '' && calls.length > 0 ? null : content,
    ...(thinking === '' ? {} : { reasoning_content: thinking }),
    ...(details.length === 0 ? {} : { reasoning_details: details }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  }
}

function isKept(block: Fields): boolean {
  return block['type'] === 'redacted_thinking' || (block['type'] === 'thinking' && typeof block['signature'] === 'string')
}

class AnthropicReader implements NativeReader {
  #id: Fields = {}
  #usage: Fields = {}
  #said_role = false
  /** Index of an open `tool_use` block → index among tool calls. */
  readonly #calls = new Map<unknown, { readonly index: number; has_input: boolean }>()

  read(value: Fields): NativeStep {
    switch (value['type']) {
      case 'message_start':
        return this.#start(value['message'])
      case 'content_block_start':
        return this.#delta(this.#blockStart(value['index'], value['content_block']))
      case 'content_block_delta':
        return this.#delta(this.#blockDelta(value['index'], value['delta']))
      case 'content_block_stop':
        return this.#delta(this.#blockStop(value['index']))
      case 'message_delta':
        return this.#messageDelta(value['delta'], value['usage'])
      case 'message_stop':
        return { ...NOTHING_SAID, done: true }
      case 'message':
        return this.#whole(value)
      default:
        return NOTHING_SAID
    }
  }

  #start(message: unknown): NativeStep {
    if (!isFields(message)) return NOTHING_SAID
    if (typeof message['id'] === 'string') this.#id = { id: message['id'] }
    this.#note(message['usage'])
    // No token has been made yet, so this is no report of the answer.
    return { ...this.#delta({ content: '' }), usage: null }
  }

  #blockStart(index: unknown, block: unknown): Fields | null {
    if (!isFields(block)) return null
    const { type, id, name, input } = block
    if (type === 'text') return block['text'] ? { content: block['text'] } : null
    if (type === 'thinking') return block['thinking'] ? { reasoning_content: block['thinking'] } : null
    if (type === 'redacted_thinking') return { reasoning_details: [{ ...block, index }] }
    if (type !== 'tool_use') return null
    const whole = isFields(input) && Object.keys(input).length > 0
    const call = { index: this.#calls.size, has_input: whole }
    this.#calls.set(index, call)
    return { tool_calls: [{ index: call.index, id, type: 'function', function: { name, arguments: whole ? JSON.stringify(input) : '' } }] }
  }

  #blockDelta(index: unknown, delta: unknown): Fields | null {
    if (!isFields(delta)) return null
    const { type, text, thinking, signature, partial_json } = delta
    if (type === 'text_delta') return { content: text }
    if (type === 'thinking_delta') return { reasoning_content: thinking }
    if (type === 'signature_delta') return { reasoning_details: [{ type: 'thinking', index, signature }] }
    const call = this.#calls.get(index)
    if (type !== 'input_json_delta' || call === undefined || partial_json === '') return null
    call.has_input = true
    return { tool_calls: [{ index: call.index, function: { arguments: partial_json } }] }
  }

  /** A call without input has none in Anthropic's form, and an empty object in OpenAI's. */
  #blockStop(index: unknown): Fields | null {
    const call = this.#calls.get(index)
    if (call === undefined || call.has_input) return null
    return { tool_calls: [{ index: call.index, function: { arguments: '{}' } }] }
  }

  #messageDelta(delta: unknown, usage: unknown): NativeStep {
    this.#note(usage)
    const stop_reason = isFields(delta) ? delta['stop_reason'] : null
    const finished = typeof stop_reason === 'string' && stop_reason !== ''
    const chunks = finished ? [{ ...this.#id, choices: [{ index: 0, delta: {}, finish_reason: stop_reason }] }] : []
    return { chunks, usage: this.#usage, done: false }
  }

  #whole(value: Fields): NativeStep {
    this.#note(value['usage'])
    const id = typeof value['id'] === 'string' ? { id: value['id'] } : {}
    const message = messageOf([value['content']].flat().filter(isFields))
    const choice = { index: 0, delta: message, finish_reason: value['stop_reason'] ?? 'stop' }
    return { chunks: [{ ...id, choices: [choice] }], usage: this.#usage, done: true }
  }

  #delta(delta: Fields | null): NativeStep {
    if (delta === null) return NOTHING_SAID
    const role = this.#said_role ? {} : { role: 'assistant' }
    this.#said_role = true
    return {
      chunks: [{ ...this.#id, choices: [{ index: 0, delta: { ...role, ...delta }, finish_reason: null }] }],
      usage: null,
      done: false,
    }
  }

  /** Counts come in parts: the input at the start, the output at the end. A later zero takes nothing back. */
  #note(usage: unknown): void {
    if (!isFields(usage)) return
    const said = Object.entries(usage).filter(([name, count]) => count !== null && (count !== 0 || this.#usage[name] === undefined))
    this.#usage = { ...this.#usage, ...Object.fromEntries(said) }
  }
}
