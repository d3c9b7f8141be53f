import { COEFFICIENTS } from './estimate-coefficients.ts'
import { FEATURES, createScanner } from './estimate-features.ts'

/** Whose tokens are counted: `general` is the mean of the two fitted ones, for unknown tokenizers; `sandbox` has an exact rule of its own. */
export type Tokenizer = 'qwen3' | 'deepseek_v3' | 'general' | 'sandbox'

/** Counts a text that arrives in pieces: any pieces give the total of the whole text, and the total never falls. */
export interface TokenCounter {
  add(text: string): void
  /** Tokens so far, a whole number; at least 1 once anything was added. Cheap, and changes nothing. */
  total(): number
}

/** A counter that can be told where one text ends and another begins, so that nothing joins across and nothing is rounded twice. */
interface TextCounter extends TokenCounter {
  cut(): void
}

/** Tokens that a chat template puts around each message (role and delimiters): 4 to 5 in ChatML, fewer in DeepSeek's. */
export const MESSAGE_OVERHEAD_TOKENS = 4

/** Tokens that open the assistant's answer. */
export const REPLY_OVERHEAD_TOKENS = 3

/** What a part of a message's content may carry beside text. `file`: documents of every kind. */
export type AttachmentKind = 'image' | 'audio' | 'video' | 'file'
export type Attachments = Readonly<Record<AttachmentKind, number>>

/**
 * One image or other attachment, whose size is not known here: a picture of 1024 × 1024 pixels at one token per 32 × 32, as Qwen3-VL's
 * published preprocessor_config.json has it (patch_size 16, merge_size 2). Larger pictures cost more and are settled from reported usage.
 */
export const ATTACHMENT_TOKENS = 1024

/**
 * Tokens that are reserved for one attachment where the catalogue says nothing else. An image: 4 million pixels at one token per 32 × 32.
 * Audio: 164 seconds at 25 tokens a second (https://www.alibabacloud.com/help/en/model-studio/qwen-omni, 2025-05-09). A video or file:
 * the 16,384 tokens that vLLM allows for a Qwen-VL video (https://github.com/vllm-project/vllm/issues/20123). None is the largest there
 * is: an image of 16 million pixels takes 16,384 (`longest_edge` of Qwen's preprocessor_config.json), an hour of audio 90,000.
 */
export const ATTACHMENT_BOUNDS: Attachments = { image: 4096, audio: 4096, video: 16_384, file: 16_384 }

/** Nesting that is still counted inside message content; deeper parts count nothing. Real requests nest to 2. */
export const MAX_PART_DEPTH = 8

/** Nesting that is still written out of a tools or response_format value; anything deeper counts as `null`. */
export const MAX_JSON_DEPTH = 64

type FittedTokenizer = Exclude<Tokenizer, 'sandbox'>

const COSTS: Readonly<Record<FittedTokenizer, Float64Array>> = {
  qwen3: Float64Array.from(FEATURES, (name) => COEFFICIENTS[name][0]),
  deepseek_v3: Float64Array.from(FEATURES, (name) => COEFFICIENTS[name][1]),
  general: Float64Array.from(FEATURES, (name) => Math.round((COEFFICIENTS[name][0] + COEFFICIENTS[name][1]) / 2)),
}

/** Sums in whole thousandths: exact in a double up to 2^53, so order and grouping cannot matter. */
function fittedCounter(tokenizer: FittedTokenizer): TextCounter {
  const costs = COSTS[tokenizer]
  const scanner = createScanner()
  let empty = true
  return {
    add(text) {
      if (text.length > 0) empty = false
      scanner.scan(text)
    },
    cut: () => scanner.cut(),
    total() {
      if (empty) return 0
      let thousandths = 0
      for (let at = 0; at < costs.length; at++) thousandths += (costs[at] ?? 0) * (scanner.counts[at] ?? 0)
      return Math.max(1, Math.round(thousandths / 1000))
    },
  }
}

/** Longest run of word characters in one sandbox token. */
const SANDBOX_WORD_CHARACTERS = 8

const SANDBOX_OTHER = 0
const SANDBOX_WORD = 1
const SANDBOX_SPACE = 2

/** `\s` as ECMAScript has it, and ASCII `\w`. */
function sandboxKind(code: number): number {
  if (code > 0x7f) return code > 0x9f && /\s/.test(String.fromCharCode(code)) ? SANDBOX_SPACE : SANDBOX_OTHER
  if (code === 0x20 || (code >= 0x09 && code <= 0x0d)) return SANDBOX_SPACE
  const isWord = (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a) || code === 0x5f
  return isWord ? SANDBOX_WORD : SANDBOX_OTHER
}

const SANDBOX_KINDS = Uint8Array.from({ length: 0x10000 }, (_, code) => sandboxKind(code))

const isHighSurrogate = (code: number): boolean => code >= 0xd800 && code <= 0xdbff
const isLowSurrogate = (code: number): boolean => code >= 0xdc00 && code <= 0xdfff

/** Counts the pieces of {@link sandboxTokens} without making them. */
function sandboxCounter(): TextCounter {
  let tokens = 0
  let word = 0
  let spacePending = false
  let highPending = false

  function addOne(code: number): void {
    const kind = SANDBOX_KINDS[code]
    const isSecondHalf = highPending && isLowSurrogate(code)
    highPending = !isSecondHalf && isHighSurrogate(code)
    if (kind === SANDBOX_WORD) {
      if (word === 0 || word === SANDBOX_WORD_CHARACTERS) {
        tokens += 1
        word = 0
      }
      word += 1
    } else {
      word = 0
      if (kind === SANDBOX_OTHER && !isSecondHalf) tokens += 1
    }
    spacePending = kind === SANDBOX_SPACE
  }

  return {
    add(text) {
      for (let at = 0; at < text.length; at++) addOne(text.charCodeAt(at))
    },
    cut() {
      if (spacePending) tokens += 1
      word = 0
      spacePending = false
      highPending = false
    },
    total: () => (spacePending ? tokens + 1 : tokens),
  }
}

function counterOf(tokenizer: Tokenizer): TextCounter {
  return tokenizer === 'sandbox' ? sandboxCounter() : fittedCounter(tokenizer)
}

/** A counter for one text, for instance the deltas of one streamed answer. */
export function createCounter(tokenizer: Tokenizer): TokenCounter {
  return counterOf(tokenizer)
}

/** Tokens of one whole text. */
export function countTokens(text: string, tokenizer: Tokenizer): number {
  const counter = counterOf(tokenizer)
  counter.add(text)
  return counter.total()
}

const SANDBOX_TOKEN = /\s*(?:[0-9A-Za-z_]{1,8}|\S)|\s+$/gu

/**
 * The sandbox's own tokens. Their concatenation is the text. A token is any whitespace (ECMAScript's `\s`) followed by either 1 to 8 ASCII
 * letters, digits or underscores, as many as there are, or one other code point (an unpaired surrogate is one); whitespace at the end is
 * one token.
 */
export function sandboxTokens(text: string): string[] {
  return text.match(SANDBOX_TOKEN) ?? []
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}

/** Feeds a value as JSON.stringify would write it, without making the whole text and without unbounded recursion. */
function addJson(counter: TextCounter, value: unknown, depth: number): void {
  if (typeof value !== 'object' || value === null || depth > MAX_JSON_DEPTH) {
    counter.add(scalarJson(value))
    return
  }
  const isArray = Array.isArray(value)
  let separator = isArray ? '[' : '{'
  for (const [key, item] of Object.entries(value)) {
    if (!isArray && item === undefined) continue
    counter.add(isArray ? separator : `${separator}${JSON.stringify(key)}:`)
    addJson(counter, item, depth + 1)
    separator = ','
  }
  if (separator !== ',') counter.add(separator)
  counter.add(isArray ? ']' : '}')
}

function scalarJson(value: unknown): string {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return JSON.stringify(value)
  return 'null'
}

/** Adds one text of its own: nothing joins with what came before. */
function addText(counter: TextCounter, text: unknown): void {
  if (typeof text === 'string') {
    counter.cut()
    counter.add(text)
  } else if (text !== undefined && text !== null) {
    counter.cut()
    addJson(counter, text, 0)
  }
}

const ATTACHMENT_TYPE = /image|audio|video|file|document/
/** Members that servers (vLLM) read from a part without a type too. */
const ATTACHMENT_MEMBERS: ReadonlyArray<readonly [string, AttachmentKind]> = [
  ['image_url', 'image'],
  ['video_url', 'video'],
  ['audio_url', 'audio'],
  ['input_audio', 'audio'],
]

type Tally = Record<AttachmentKind, number>

function attachmentOf(part: object): AttachmentKind | null {
  const type = fieldOf(part, 'type')
  const [named] = (typeof type === 'string' ? ATTACHMENT_TYPE.exec(type) : null) ?? []
  if (named === 'image' || named === 'audio' || named === 'video') return named
  if (named !== undefined) return 'file'
  return ATTACHMENT_MEMBERS.find(([name]) => fieldOf(part, name) !== undefined)?.[1] ?? null
}

/** Adds the texts of a message's content and counts its attachments. */
function addContent(counter: TextCounter, content: unknown, depth: number, tally: Tally): void {
  if (typeof content === 'string') addText(counter, content)
  if (typeof content !== 'object' || content === null || depth > MAX_PART_DEPTH) return
  if (Array.isArray(content)) {
    for (const part of content) addContent(counter, part, depth + 1, tally)
    return
  }
  const attachment = attachmentOf(content)
  if (attachment !== null) tally[attachment] += 1
  const text = fieldOf(content, 'text')
  if (typeof text === 'string') addText(counter, text)
  else if (attachment === null) addContent(counter, fieldOf(content, 'content'), depth + 1, tally)
}

function addCall(counter: TextCounter, call: unknown): void {
  addText(counter, fieldOf(call, 'name'))
  addText(counter, fieldOf(call, 'arguments'))
}

/** Adds one message's texts and counts its attachments. */
function addMessage(counter: TextCounter, message: unknown, tokenizer: Tokenizer, tally: Tally): void {
  addContent(counter, fieldOf(message, 'content'), 0, tally)
  const calls = fieldOf(message, 'tool_calls')
  if (Array.isArray(calls)) for (const call of calls) addCall(counter, fieldOf(call, 'function'))
  if (tokenizer === 'sandbox') return
  addCall(counter, fieldOf(message, 'function_call'))
  addText(counter, fieldOf(message, 'name'))
  addText(counter, fieldOf(message, 'reasoning_content'))
  addText(counter, fieldOf(message, 'refusal'))
}

/** The parts of an OpenAI chat request that become prompt tokens. Nothing about their form is relied on. */
export interface ChatPrompt {
  readonly messages: readonly unknown[]
  readonly tools?: unknown
  /** What `tools` were called before; upstreams that still take them count them likewise. */
  readonly functions?: unknown
  readonly response_format?: unknown
}

/**
 * Prompt tokens of an OpenAI chat request. Text parts, names, reasoning, tool calls, tools, functions and a `json_schema` response format
 * count as text; each message adds {@link MESSAGE_OVERHEAD_TOKENS}, the answer {@link REPLY_OVERHEAD_TOKENS}, each attachment
 * {@link ATTACHMENT_TOKENS}. What has an unknown form counts nothing. Never throws on parsed JSON, whatever its form.
 *
 * With `sandbox` the figure is exact by definition: for every message 4, the tokens of each text of its content and of each tool call's name
 * and arguments (each a text of its own), then 3, then the tokens of the tools as JSON. Attachments count nothing.
 */
export function estimateChatPrompt(request: ChatPrompt, tokenizer: Tokenizer): number {
  const { text_tokens, attachments } = measureChatPrompt(request, tokenizer)
  if (tokenizer === 'sandbox') return text_tokens
  return text_tokens + tokensOfAttachments(attachments, ATTACHMENT_BOUNDS, ATTACHMENT_TOKENS)
}

/** Tokens of attachments at `bounds` each, and at most `most` each. */
export function tokensOfAttachments(attachments: Attachments, bounds: Attachments, most = Infinity): number {
  const tokens = (kind: AttachmentKind): number => (attachments[kind] === 0 ? 0 : attachments[kind] * Math.min(bounds[kind], most))
  return tokens('image') + tokens('audio') + tokens('video') + tokens('file')
}

/** The same in two parts: all that is not an attachment, in tokens, and how many attachments there are. */
export function measureChatPrompt(
  request: ChatPrompt,
  tokenizer: Tokenizer,
): { readonly text_tokens: number; readonly attachments: Attachments } {
  const counter = counterOf(tokenizer)
  const attachments: Tally = { image: 0, audio: 0, video: 0, file: 0 }
  for (const message of request.messages) addMessage(counter, message, tokenizer, attachments)
  if (request.tools !== undefined && request.tools !== null) {
    counter.cut()
    addJson(counter, request.tools, 0)
  }
  if (tokenizer !== 'sandbox' && request.functions !== undefined && request.functions !== null) {
    counter.cut()
    addJson(counter, request.functions, 0)
  }
  if (tokenizer !== 'sandbox' && fieldOf(request.response_format, 'type') === 'json_schema') {
    counter.cut()
    addJson(counter, request.response_format, 0)
  }
  const fixed = request.messages.length * MESSAGE_OVERHEAD_TOKENS + REPLY_OVERHEAD_TOKENS
  return { text_tokens: fixed + counter.total(), attachments }
}

/** Tokens of an OpenAI embeddings input: a text, texts, token ids or lists of token ids (one token each). Other forms count nothing. */
export function estimateEmbeddingsInput(input: unknown, tokenizer: Tokenizer): number {
  const counter = counterOf(tokenizer)
  let ids = 0
  for (const item of Array.isArray(input) ? input : [input]) {
    if (typeof item === 'string') addText(counter, item)
    else if (typeof item === 'number') ids += 1
    else if (Array.isArray(item)) ids += item.length
  }
  return ids + counter.total()
}

/**
 * Tokens of a request that ranks documents (texts, or objects with a `text`) by a query. The query is read once with each document,
 * and providers count it so. Other forms count nothing.
 */
export function estimateRerankInput(query: unknown, documents: unknown, tokenizer: Tokenizer): number {
  const list: unknown[] = Array.isArray(documents) ? documents : []
  const texts = list.map((document) => (typeof document === 'object' && document !== null && 'text' in document ? document.text : document))
  return estimateEmbeddingsInput(query, tokenizer) * list.length + estimateEmbeddingsInput(texts, tokenizer)
}
