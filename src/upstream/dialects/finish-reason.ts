import type { FailureKind } from '../failure.ts'

/** What an upstream's finish reason means. */
export interface Finish {
  /** One of OpenAI's set. */
  readonly reason: 'stop' | 'length' | 'tool_calls' | 'content_filter' | 'function_call'
  /** The upstream's own word where it is another one, else null. */
  readonly native: string | null
}

const OPENAI: ReadonlySet<string> = new Set(['stop', 'length', 'tool_calls', 'content_filter', 'function_call'])

/** In lower case, without `_`, `-` and blanks. Zhipu `sensitive`, Qianfan `normal`, Anthropic's stop reasons, and what others made of them. */
const MEANINGS: Readonly<Record<string, Finish['reason']>> = {
  length: 'length',
  maxtokens: 'length',
  maxlength: 'length',
  maxoutputtokens: 'length',
  lengthlimit: 'length',
  modellength: 'length',
  modelcontextwindowexceeded: 'length',
  toolcalls: 'tool_calls',
  toolcall: 'tool_calls',
  tooluse: 'tool_calls',
  functioncall: 'function_call',
  contentfilter: 'content_filter',
  contentfiltered: 'content_filter',
  filtered: 'content_filter',
  sensitive: 'content_filter',
  safety: 'content_filter',
  risk: 'content_filter',
  blocked: 'content_filter',
  moderation: 'content_filter',
  refusal: 'content_filter',
}

/** The upstream broke off by itself: an answer that ends so is not whole. DeepSeek, Zhipu, SGLang, and likely words of others. */
const BROKEN_OFF: Readonly<Record<string, FailureKind>> = {
  insufficientsystemresource: 'overload',
  networkerror: 'server',
  abort: 'server',
  aborted: 'server',
  cancelled: 'server',
  canceled: 'server',
  error: 'server',
  failed: 'server',
  timeout: 'server',
}

const plain = (word: string): string => word.toLowerCase().replaceAll(/[_\-\s]/g, '')

/** A finish reason that says so: no empty text, no `"null"` (Qwen's native frames before the last). */
export function saysFinished(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value !== 'null'
}

/** The meaning of a finish reason; an unknown word ends an answer like `stop`. */
export function finishOf(word: string): Finish {
  if (OPENAI.has(word)) return { reason: word as Finish['reason'], native: null }
  return { reason: MEANINGS[plain(word)] ?? 'stop', native: word }
}

/** The failure that an answer with this finish reason really ended in, or null. */
export function brokenOff(word: string): FailureKind | null {
  return OPENAI.has(word) ? null : (BROKEN_OFF[plain(word)] ?? null)
}
