import { isFields } from './openai-usage.ts'

type Fields = Readonly<Record<string, unknown>>

/** The texts of one delta or message, whatever they are called. */
export interface AnswerText {
  readonly content: string
  readonly reasoning: string
  /** `content` is not the text that official SDKs expect there: a list of parts, or an object. */
  readonly content_in_parts: boolean
  /** Where the reasoning was found; null where there is none. */
  readonly reasoning_field: string | null
}

/** Reads content and reasoning of a delta or a message. */
export function readText(delta: Fields): AnswerText {
  const given = delta['content']
  const parts = typeof given === 'object' && given !== null ? partsOf(given) : null
  const content = parts === null ? (typeof given === 'string' ? given : '') : parts.content
  const found = findReasoning(delta)
  const reasoning = found?.text ?? parts?.reasoning ?? ''
  const reasoning_field = found?.field ?? (reasoning === '' ? null : 'content')
  return { content, reasoning, content_in_parts: parts !== null, reasoning_field }
}

/**
 * Three spellings are known (DeepSeek and most others; StepFun and vLLM; MiniMax), the rest is what a server might think of. Some send
 * two of them with one text, so only the first that says something counts.
 */
const REASONING_FIELDS = [
  'reasoning_content',
  'reasoning',
  'reasoning_details',
  'thinking',
  'thinking_content',
  'reasoning_text',
  'thought',
] as const

function findReasoning(delta: Fields): { readonly field: string; readonly text: string } | null {
  for (const field of REASONING_FIELDS) {
    const value = delta[field]
    if (value === undefined || value === null) continue
    const text = textIn(value)
    if (text !== '') return { field, text }
  }
  return null
}

const TEXT_FIELDS = ['text', 'content', 'thinking', 'reasoning', 'summary', 'value'] as const

/** The text in a value: itself, in an object under one of the usual names, or in a list of these. */
export function textIn(value: unknown, depth = 0): string {
  if (typeof value === 'string') return value
  if (depth > 4) return ''
  if (Array.isArray(value)) return value.map((item) => textIn(item, depth + 1)).join('')
  if (!isFields(value)) return ''
  for (const name of TEXT_FIELDS) {
    const text = textIn(value[name], depth + 1)
    if (text !== '') return text
  }
  return ''
}

/** Content as a list of parts: text, and thinking where a part says so. */
function partsOf(value: object): { readonly content: string; readonly reasoning: string } {
  const texts = { content: '', reasoning: '' }
  for (const part of Array.isArray(value) ? value : [value]) {
    const type: unknown = isFields(part) ? part['type'] : null
    const thinks = typeof type === 'string' && /think|reason/.test(type)
    texts[thinks ? 'reasoning' : 'content'] += textIn(part)
  }
  return texts
}

/** Members that are known not to be text of the answer, or are counted by themselves. */
const NOT_TEXT: ReadonlySet<string> = new Set([
  ...['role', 'content', 'refusal', 'tool_calls', 'function_call', 'audio', 'annotations', 'encrypted_content', 'signature'],
  ...['id', 'type', 'name', 'object', 'model', 'index', 'format', 'status', 'finish_reason', 'tool_call_id', 'obfuscation'],
  ...REASONING_FIELDS,
])

/** Text under names that nobody knows: it passes like everything else, and must not be counted as nothing. */
export function unknownText(delta: Fields): string {
  let found = ''
  for (const [name, value] of Object.entries(delta)) {
    if (typeof value === 'string' && !NOT_TEXT.has(name)) found += value
  }
  return found
}
