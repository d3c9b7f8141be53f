import { textIn } from '../answer-text.ts'
import { saysFinished } from '../finish-reason.ts'
import { isFields } from '../openai-usage.ts'
import { GrowingText } from '../sent-text.ts'
import { indexOf, readToolCall } from '../tool-calls.ts'
import { NOTHING_SAID } from './protocol.ts'
import type { NativeProtocol, NativeReader, NativeStep } from './protocol.ts'

type Fields = Readonly<Record<string, unknown>>

/**
 * DashScope's own API: `output.choices[].message` (or `output.text`), whose texts grow from frame to frame unless
 * `incremental_output` was asked for, `finish_reason: "null"` until the end, usage with every frame, no `[DONE]`.
 * Source: dashscope-sdk-python as of 2026.
 */
export const qwen: NativeProtocol = {
  recognises: ({ output }) => isFields(output) && (Array.isArray(output['choices']) || typeof output['text'] === 'string'),
  reader: () => new QwenReader(),
  whole(value) {
    const choices = choicesOf(value).map((choice, index) => {
      const message = isFields(choice['message']) ? choice['message'] : {}
      return { index, message: { ...message, content: textIn(message['content']) }, finish_reason: choice['finish_reason'] ?? 'stop' }
    })
    return { ...identityOf(value), object: 'chat.completion', model: '', choices, usage: usageOf(value) }
  },
}

interface Growing {
  readonly content: GrowingText
  readonly reasoning: GrowingText
  readonly calls: Map<number, GrowingText>
}

class QwenReader implements NativeReader {
  readonly #growing = new Map<number, Growing>()

  read(value: Fields): NativeStep {
    const usage = usageOf(value)
    const choices = choicesOf(value).map((choice, position) => this.#choice(choice, indexOf(choice['index']) ?? position))
    if (choices.length === 0 && usage === null) return NOTHING_SAID
    return { chunks: choices.length === 0 ? [] : [{ ...identityOf(value), choices }], usage, done: false }
  }

  #choice(choice: Fields, index: number): Fields {
    const message = isFields(choice['message']) ? choice['message'] : {}
    const growing = this.#of(index)
    const finished = saysFinished(choice['finish_reason'])
    const grow = (text: GrowingText, said: unknown): string => text.take(textIn(said)) + (finished ? text.flush() : '')
    const content = grow(growing.content, message['content'])
    const reasoning = grow(growing.reasoning, message['reasoning_content'])
    const calls = [message['tool_calls'] ?? []].flat().filter(isFields)
    const delta = {
      ...(typeof message['role'] === 'string' ? { role: 'assistant' } : {}),
      ...(content === '' ? {} : { content }),
      ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
      ...(calls.length === 0 ? {} : { tool_calls: calls.map((call, position) => grownCall(call, position, growing, finished)) }),
    }
    return { index, delta, finish_reason: finished ? choice['finish_reason'] : null }
  }

  #of(index: number): Growing {
    const known = this.#growing.get(index) ?? { content: new GrowingText(), reasoning: new GrowingText(), calls: new Map() }
    this.#growing.set(index, known)
    return known
  }
}

function grownCall(call: Fields, position: number, growing: Growing, finished: boolean): Fields {
  const piece = readToolCall(call)
  const index = piece.index ?? position
  const text = growing.calls.get(index) ?? new GrowingText()
  growing.calls.set(index, text)
  const grown = text.take(piece.arguments ?? '') + (finished ? text.flush() : '')
  return { ...call, index, function: { ...(piece.name === '' ? {} : { name: piece.name }), arguments: grown } }
}

/** `result_format: text` has one text and no choices. */
function choicesOf({ output }: Fields): readonly Fields[] {
  if (!isFields(output)) return []
  if (Array.isArray(output['choices'])) return output['choices'].filter(isFields)
  if (typeof output['text'] !== 'string') return []
  const { text, finish_reason, reasoning_content } = output
  return [{ message: { role: 'assistant', content: text, reasoning_content }, finish_reason }]
}

function identityOf({ request_id }: Fields): Fields {
  return typeof request_id === 'string' ? { id: request_id } : {}
}

function usageOf({ usage }: Fields): Fields | null {
  return isFields(usage) ? usage : null
}
