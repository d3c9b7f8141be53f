import { readText } from '../answer-text.ts'
import { saysFinished } from '../finish-reason.ts'
import { isFields } from '../openai-usage.ts'
import { SentText } from '../sent-text.ts'
import type { NativeProtocol, NativeReader, NativeStep } from './protocol.ts'

type Fields = Readonly<Record<string, unknown>>

/** Where a server may have put its texts, from the outside in. */
const OWNERS = ['delta', 'message', 'data', 'output', 'result', 'response', 'answer', 'payload', 'body'] as const
const TEXTS = ['content', 'text', 'response', 'result', 'answer', 'output', 'delta'] as const
const MAX_DEPTH = 4

/**
 * A shape that nobody has described: whatever is a text under one of the usual names is the answer's, piece by piece, and members that
 * speak of an end end it. Ollama's own API is one of these.
 */
export const unknown: NativeProtocol = {
  recognises: (value) => findTexts(value) !== null,
  reader: () => new UnknownReader(),
  whole(value) {
    const texts = findTexts(value)
    if (texts === null) return null
    const message = { role: 'assistant', ...texts }
    return {
      object: 'chat.completion',
      model: '',
      choices: [{ index: 0, message, finish_reason: endOf(value) ?? 'stop' }],
      usage: usageOf(value) ?? undefined,
    }
  },
}

class UnknownReader implements NativeReader {
  readonly #sent = new SentText()
  #said_role = false

  read(value: Fields): NativeStep {
    const texts = findTexts(value)
    const finish_reason = endOf(value)
    const usage = usageOf(value)
    if (texts === null && finish_reason === null) return { chunks: [], usage, done: false }
    const said = texts === null || (finish_reason !== null && this.#sent.isAgain(contentOf(texts))) ? {} : texts
    this.#sent.add(contentOf(said))
    const role = this.#said_role ? {} : { role: 'assistant' }
    this.#said_role = true
    return { chunks: [{ choices: [{ index: 0, delta: { ...role, ...said }, finish_reason }] }], usage, done: false }
  }
}

function contentOf({ content }: Fields): string {
  return typeof content === 'string' ? content : ''
}

/** The texts of the first object that has any, as a delta. */
function findTexts(value: Fields, depth = 0): Fields | null {
  const content = TEXTS.map((name) => value[name]).find((text) => typeof text === 'string')
  const read = readText(typeof content === 'string' ? { ...value, content } : value)
  const calls = value['tool_calls']
  if (content !== undefined || read.content !== '' || read.reasoning !== '' || (Array.isArray(calls) && calls.length > 0)) {
    return {
      ...(read.content === '' ? {} : { content: read.content }),
      ...(read.reasoning === '' ? {} : { reasoning_content: read.reasoning }),
      ...(calls === undefined ? {} : { tool_calls: calls }),
    }
  }
  if (depth >= MAX_DEPTH) return null
  for (const name of OWNERS) {
    const owner = value[name]
    const found = isFields(owner) ? findTexts(owner, depth + 1) : null
    if (found !== null) return found
  }
  return null
}

/** `done` (Ollama), `is_end`, `finished`, and finish reasons wherever texts may be. */
function endOf(value: Fields, depth = 0): string | null {
  for (const name of ['finish_reason', 'done_reason', 'stop_reason', 'finishReason']) if (saysFinished(value[name])) return value[name]
  for (const name of ['done', 'is_end', 'end', 'finished', 'is_finished', 'completed']) if (value[name] === true) return 'stop'
  if (depth >= MAX_DEPTH) return null
  for (const name of OWNERS) {
    const owner = value[name]
    const found = isFields(owner) ? endOf(owner, depth + 1) : null
    if (found !== null) return found
  }
  return null
}

function usageOf(value: Fields): Fields | null {
  if (isFields(value['usage'])) return value['usage']
  const { prompt_eval_count, eval_count } = value
  return eval_count === undefined ? null : { prompt_tokens: prompt_eval_count ?? 0, completion_tokens: eval_count }
}
