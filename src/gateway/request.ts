import * as z from 'zod'
import { WeirError } from '../base/errors.ts'
import { keyIs, objectMembers, type MemberSpan } from '../base/json-spans.ts'
import { viewHistory } from '../upstream/requests/history.ts'
import { NO_HISTORY, type RequestView } from '../upstream/requests/view.ts'
import type { Protocol } from './call.ts'

const Stop = z.union([z.string(), z.array(z.string()).max(64), z.null()])
const Tokens = z.int().min(1).max(10_000_000)

const ChatBody = z.looseObject({
  model: z.string().min(1).max(256),
  messages: z
    .array(z.looseObject({ role: z.string().min(1) }))
    .min(1)
    .max(10_000),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: Tokens.nullish(),
  max_completion_tokens: Tokens.nullish(),
  n: z.int().min(1).max(128).nullish(),
  user: z.string().max(1024).nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  stop: Stop.optional(),
  tools: z
    .array(z.looseObject({ type: z.string() }))
    .max(1024)
    .nullish(),
})

const TokenIds = z.array(z.int().min(0))
const EmbeddingsBody = z.looseObject({
  model: z.string().min(1).max(256),
  input: z.union([z.string().min(1), z.array(z.string()).min(1).max(2048), TokenIds.min(1), z.array(TokenIds.min(1)).min(1).max(2048)]),
  user: z.string().max(1024).nullish(),
})

const Document = z.union([z.string(), z.looseObject({ text: z.string().optional() })])
const RerankBody = z.looseObject({
  model: z.string().min(1).max(256),
  query: z.union([z.string().min(1), z.looseObject({})]),
  documents: z.array(Document).min(1).max(10_000),
  top_n: z.int().min(1).nullish(),
  return_documents: z.boolean().nullish(),
  user: z.string().max(1024).nullish(),
})

/** What Weir reads of a request body. The body itself is forwarded spliced, never re-serialised. */
export interface RequestFacts extends RequestView {
  readonly protocol: Protocol
  readonly model_asked: string
  /** Texts to embed, or lists of token ids; 0 for other requests. */
  readonly inputs: number
  readonly user: string | null
  readonly thinking: boolean
  /** `machine`: the caller wants a form that any other text in it would break, such as JSON. */
  readonly answer_form: 'text' | 'machine'
  readonly body: RequestBody
}

/**
 * Top-level members that decide what a request may cost, or whom it counts for. Given twice, the upstream may take the one that is not
 * read here. Members inside of these are as `JSON.parse` has them.
 */
const READ_ONCE: readonly string[] = [
  ...['model', 'messages', 'input', 'tools', 'functions', 'response_format'],
  ...['stream', 'stream_options', 'max_tokens', 'max_completion_tokens', 'n'],
  ...['thinking', 'enable_thinking', 'reasoning_effort', 'user', 'query', 'documents'],
]

/** A request and its parsed body, which only the quote needs: an open stream must not keep it. */
export interface ReadRequest {
  readonly facts: RequestFacts
  readonly parsed: Readonly<Record<string, unknown>>
}

/** The bytes of a request body, until no more tries can need them. */
export class RequestBody {
  bytes: Buffer

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  /** Lets the memory go. */
  forget(): void {
    this.bytes = NOTHING
  }
}

const NOTHING = Buffer.alloc(0)

/**
 * Reads and checks a request body.
 *
 * @throws WeirError `invalid_request`, naming every field that is wrong in one message
 */
export function readFacts(protocol: Protocol, body: Buffer, max_json_depth: number): ReadRequest {
  const parsed = parseJson(body, max_json_depth)
  if (protocol === 'embeddings') return embeddingsFacts(body, parsed)
  return protocol === 'rerank' ? rerankFacts(body, parsed) : chatFacts(body, parsed)
}

function chatFacts(body: Buffer, parsed: unknown): ReadRequest {
  const chat = check(ChatBody, parsed)
  const caps = { max_tokens: chat.max_tokens ?? null, max_completion_tokens: chat.max_completion_tokens ?? null }
  const given = Object.entries(caps).filter(([, cap]) => cap !== null)
  const facts: RequestFacts = {
    protocol: 'chat_completions',
    model_asked: chat.model,
    stream: chat.stream ?? false,
    usage_asked: chat.stream_options?.include_usage ?? false,
    stream_options: chat.stream_options ?? null,
    n: chat.n ?? 1,
    // With both given, the upstream may go by either: the larger one bounds it.
    max_tokens: given.length === 0 ? null : Math.max(...given.map(([, cap]) => cap ?? 0)),
    max_tokens_fields: given.length === 0 ? ['max_tokens'] : given.map(([name]) => name),
    user: chat.user ?? null,
    thinking: asksForThinking(chat),
    answer_form: asksForForm(chat) ? 'machine' : 'text',
    inputs: 0,
    given: givenIn(chat),
    history: viewHistory(chat.messages),
    body: new RequestBody(body),
  }
  return { facts, parsed: chat }
}

/** Of a request whose answer is made of its input: no stream, no cap, no thinking. */
const ONE_ANSWER = {
  ...{ stream: false, usage_asked: false, stream_options: null, n: 1, max_tokens: null, max_tokens_fields: [], thinking: false },
  ...{ given: {}, history: NO_HISTORY },
  answer_form: 'text',
} as const

function embeddingsFacts(body: Buffer, parsed: unknown): ReadRequest {
  const { model, input, user } = check(EmbeddingsBody, parsed)
  const several = Array.isArray(input) && typeof input[0] !== 'number'
  const facts: RequestFacts = {
    ...ONE_ANSWER,
    protocol: 'embeddings',
    model_asked: model,
    inputs: several ? input.length : 1,
    user: user ?? null,
    body: new RequestBody(body),
  }
  return { facts, parsed: parsed as ReadRequest['parsed'] }
}

function rerankFacts(body: Buffer, parsed: unknown): ReadRequest {
  const { model, user } = check(RerankBody, parsed)
  const facts: RequestFacts = {
    ...ONE_ANSWER,
    protocol: 'rerank',
    model_asked: model,
    inputs: 0,
    user: user ?? null,
    body: new RequestBody(body),
  }
  return { facts, parsed: parsed as ReadRequest['parsed'] }
}

/** Large, or read elsewhere: only that they are there may matter. */
const LARGE: ReadonlySet<string> = new Set(['model', 'messages', 'tools', 'functions', 'response_format', 'stream', 'stream_options'])

/** The members that rules of a target may be about. */
function givenIn(chat: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const given: Record<string, unknown> = {}
  for (const name in chat) {
    const value = chat[name]
    if (value !== undefined && value !== null) given[name] = LARGE.has(name) ? true : ofSmallSize(value)
  }
  return given
}

/** Longest text, and most items of a list or mapping, that are kept as they are: rules are about no larger ones. */
const SMALL_CHARACTERS = 1024
const SMALL_ITEMS = 64

/** The value, or `true` where it is large: what is kept of a request while its answer flows has a bound. */
function ofSmallSize(value: unknown): unknown {
  if (typeof value === 'string') return value.length <= SMALL_CHARACTERS ? value : true
  if (typeof value !== 'object' || value === null) return value
  const items: readonly unknown[] = Object.values(value)
  const small = (item: unknown): boolean => typeof item !== 'object' && (typeof item !== 'string' || item.length <= SMALL_CHARACTERS)
  return items.length <= SMALL_ITEMS && items.every((item) => item === null || small(item)) ? value : true
}

/** The providers' spellings of "think first": DeepSeek and GLM `thinking.type`, Qwen `enable_thinking`. */
function asksForThinking(body: Readonly<Record<string, unknown>>): boolean {
  if (body['enable_thinking'] === true) return true
  const thinking = body['thinking']
  return typeof thinking === 'object' && thinking !== null && 'type' in thinking && thinking.type === 'enabled'
}

/** Beside OpenAI's, what servers such as vLLM, SGLang and Ollama call an answer that is bound to a form. */
const FORMS = ['guided_json', 'guided_regex', 'guided_choice', 'guided_grammar', 'structured_outputs', 'regex', 'ebnf', 'grammar', 'format']

function asksForForm(body: Readonly<Record<string, unknown>>): boolean {
  const format = body['response_format'] ?? null
  const is_text = format === null || format === 'text' || (typeof format === 'object' && Reflect.get(format, 'type') === 'text')
  return !is_text || FORMS.some((name) => (body[name] ?? null) !== null)
}

function parseJson(body: Buffer, max_json_depth: number): unknown {
  if (body.length === 0) throw new WeirError('invalid_request', { values: { detail: 'the body is empty; send a JSON object.' } })
  try {
    // The scan bounds the depth before anything recursive can see the value.
    const members = objectMembers(body, 0, { max_depth: max_json_depth })
    const parsed = JSON.parse(body.toString('utf8')) as object
    // Fewer than there are in the text: some name occurs twice.
    if (Object.keys(parsed).length < members.length) refuseTwice(body, members)
    return parsed
  } catch (cause) {
    if (cause instanceof WeirError) throw cause
    const why = cause instanceof Error ? cause.message.slice(0, 120) : 'not JSON'
    // JSON.parse quotes the text around the mistake; a message must not carry what the caller wrote.
    const detail = cause instanceof SyntaxError ? 'the body is not valid JSON.' : `the body is not an acceptable JSON object: ${why}.`
    throw new WeirError('invalid_request', { values: { detail }, cause })
  }
}

function refuseTwice(body: Buffer, members: readonly MemberSpan[]): void {
  const name = READ_ONCE.find((read) => members.filter((member) => keyIs(body, member, read)).length > 1)
  if (name === undefined) return
  throw new WeirError('invalid_request', { values: { detail: `${name} is given twice; give it once.` }, param: name })
}

function check<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issues = result.error.issues.slice(0, 8)
  const detail = issues.map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`).join('; ')
  const param = issues[0]?.path.join('.')
  throw new WeirError('invalid_request', { values: { detail: `${detail}.` }, ...(param ? { param } : {}) })
}

/** Up to 8 `name=value` tags from the `x-weir-tags` header, for reports. Names and values of 1–64 characters. */
export function readTags(header: string | string[] | undefined): Readonly<Record<string, string>> {
  if (header === undefined) return {}
  const pairs = String(header)
    .split(',')
    .map((pair) => pair.trim())
    .filter((pair) => pair !== '')
  const tags = pairs.map((pair) => /^([\w.-]{1,64})=([\w.:/ -]{1,64})$/.exec(pair))
  if (pairs.length > 8 || tags.includes(null)) {
    throw new WeirError('invalid_request', {
      values: { detail: 'x-weir-tags takes up to 8 pairs name=value, separated by commas.' },
      param: 'x-weir-tags',
    })
  }
  return Object.fromEntries(tags.map((match) => [match?.[1] ?? '', match?.[2] ?? '']))
}
