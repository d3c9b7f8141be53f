/** What a request to the sandbox may ask of it beyond the OpenAI dialect. */

/** Where a stream reports its usage, named as in the provider facts; `continuous` is vLLM's running count. */
export const SHAPES = ['own_chunk', 'finish_chunk', 'choice', 'absent', 'continuous'] as const
export type Shape = (typeof SHAPES)[number]

/** Whose chunk layout is spoken: key order, members beside the standard ones, how an answer opens and ends. */
export const LAYOUTS = [
  'openai',
  'deepseek',
  'qwen',
  'doubao',
  'qianfan',
  'zhipu',
  'moonshot',
  'minimax',
  'spark',
  'stepfun',
  'baichuan',
  'siliconflow',
  'vllm',
  'sglang',
  'mindie',
  'ollama',
  'ragflow',
] as const
export type LayoutName = (typeof LAYOUTS)[number]

/** What can be wrong with an account or a request, whichever words a provider has for it. */
export const CAUSES = ['auth', 'balance', 'quota', 'rate', 'overload', 'content', 'context', 'invalid', 'model'] as const
export type Cause = (typeof CAUSES)[number]

/** Kinds of failure that can be asked for. */
export const FAULT_KINDS = [
  'refuse',
  'provider',
  'rate',
  'stall_before_headers',
  'stall_before_first',
  'stall_middle',
  'cut_before_headers',
  'cut_middle',
  'end_middle',
  'error_event',
  'error_in_200',
  'malformed_json',
  'bad_whole',
  'wrong_content_type',
  'html_page',
  'slow_headers',
] as const
export type FaultKind = (typeof FAULT_KINDS)[number]

/** A failure, and which attempts it is for. */
export interface Fault {
  readonly kind: FaultKind
  /** Completion tokens written before it happens (writes, for `raw`). The end of a shorter answer counts as reached. */
  readonly at: number
  /** HTTP status of `refuse` and `rate`. */
  readonly status: number
  /** Whole body of `refuse`, `rate` and `error_in_200`, or null for an OpenAI-shaped error. */
  readonly body: string | null
  /** `provider`: what is wrong, told in the words of the provider that is played. */
  readonly cause: Cause
  /** `code` and `message` of the error that is told. */
  readonly code: string | null
  readonly message: string | null
  /** `Retry-After` in seconds, or null for none. */
  readonly retry_after: number | null
  /** Fails only the first n attempts of a request id; null fails them all. Requests without an id share one count. */
  readonly times: number | null
  /** Fails only requests under this path prefix: `a` is `/a/v1/…`. */
  readonly only_prefix: string | null
  /** Fails only this endpoint. */
  readonly endpoint: 'chat' | 'embeddings' | 'models' | 'rerank' | null
  /** `error_event`: whether `[DONE]` follows it, as vLLM does. */
  readonly done: boolean
  /** `wrong_content_type`: the type that is claimed. */
  readonly content_type: string
  /** `slow_headers`: how late they are. */
  readonly delay_ms: number
  /** Stalls end by cutting the connection after this long. */
  readonly stall_ms: number
}

/** Every directive with its value. */
export interface Directives {
  /** The provider that is played: its layout, its errors, and what it refuses. */
  readonly play: string | null
  readonly shape: Shape
  readonly layout: LayoutName
  readonly reasoning_field: 'reasoning_content' | 'reasoning' | 'reasoning_details'
  /** Tokens of thinking before the answer. */
  readonly reasoning_tokens: number
  /** Prompt tokens reported as served from a cache. */
  readonly cached_tokens: number
  /** Comments before the first data event, and a comment after every so many data events (0: none). */
  readonly keep_alive: number
  readonly keep_alive_every: number
  /** When a tool is called: if the request suggests it, always, never. */
  readonly tool_call: 'auto' | 'always' | 'never'
  readonly tool_count: number
  /** Later fragments of a tool call carry no id, or an empty one. */
  readonly tool_id: 'first' | 'empty'
  /** A space after `data:`. */
  readonly data_space: boolean
  /** How an unfinished choice says so. */
  readonly unfinished: 'null' | 'empty' | 'omit'
  /** Whether `[DONE]` ends a stream. */
  readonly done: boolean
  readonly line_end: 'lf' | 'crlf' | 'cr'
  readonly bom: boolean
  /** Every data event spread over several `data:` lines. */
  readonly multi_line: boolean
  /** A member nobody knows, with values that do not survive re-serialising. */
  readonly extra_fields: boolean
  readonly tokens_per_chunk: number
  /** Length of the answer in tokens; null for as long as the text is. */
  readonly tokens: number | null
  /** Padding per token, in a member `obfuscation`, the one OpenAI pads with. */
  readonly bytes_per_token: number
  readonly first_token_delay_ms: number
  readonly token_delay_ms: number
  /** A socket write per chunk, or as few as fit. */
  readonly writes: 'each' | 'corked'
  /** HTTP status of a good answer. */
  readonly status: number
  /** Finish reason said instead of the real one. */
  readonly finish_reason: string | null
  /** Most inputs of one embeddings request; more are refused. */
  readonly embeddings_batch: number | null
  /** Figures reported instead of the counted ones; the tally still counts. */
  readonly report: { readonly prompt_tokens?: number; readonly completion_tokens?: number; readonly cached_tokens?: number } | null
  /** Base64 of an exact body to replay. */
  readonly raw: string | null
  readonly raw_type: string
  /** Where `raw` is cut into writes: byte offsets, or every n bytes. */
  readonly split: readonly number[] | { readonly every: number } | null
  readonly fail: Fault | null
}

/** Some directives, as given; a fault may leave out all but its kind. */
export type PartialDirectives = Partial<Omit<Directives, 'fail'>> & { readonly fail?: PartialFault | null }
type PartialFault = Partial<Fault> & { readonly kind: FaultKind }

/** A directive that is not one. The message says what would be. */
export class DirectiveError extends Error {
  override name = 'DirectiveError'
}

export const MAX_WAIT_MS = 600_000
const MAX_TOKENS = 1_000_000
const MAX_PADDING_BYTES = 65_536

type Check = (value: unknown) => string | null

const whole =
  (least: number, most: number): Check =>
  (value) =>
    Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most ? null : `a whole number from ${least} to ${most}`
const wait: Check = (value) =>
  typeof value === 'number' && value >= 0 && value <= MAX_WAIT_MS ? null : `milliseconds from 0 to ${MAX_WAIT_MS}`
const flag: Check = (value) => (typeof value === 'boolean' ? null : 'true or false')
const text: Check = (value) => (typeof value === 'string' ? null : 'a string')
const oneOf =
  (names: readonly string[]): Check =>
  (value) =>
    typeof value === 'string' && names.includes(value) ? null : `one of ${names.join(', ')}`
const orNull =
  (check: Check): Check =>
  (value) => {
    const expected = value === null ? null : check(value)
    return expected === null ? null : `${expected}, or null`
  }
const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
const split: Check = (value) => {
  const offset = whole(1, Number.MAX_SAFE_INTEGER)
  if (Array.isArray(value)) return value.every((at) => offset(at) === null) ? null : 'byte offsets from 1 on'
  return isObject(value) && offset(value['every']) === null ? null : 'a list of byte offsets or {"every": n}'
}
const objectOf =
  (checks: Readonly<Record<string, Check>>): Check =>
  (value) => {
    if (!isObject(value)) return 'an object'
    return problemIn(value, checks)
  }

const FAULT_CHECKS: Readonly<Record<keyof Fault, Check>> = {
  kind: oneOf(FAULT_KINDS),
  at: whole(0, MAX_TOKENS),
  status: whole(400, 599),
  body: orNull(text),
  cause: oneOf(CAUSES),
  code: orNull(text),
  message: orNull(text),
  retry_after: orNull(whole(0, 86_400)),
  times: orNull(whole(0, MAX_TOKENS)),
  only_prefix: orNull(text),
  endpoint: orNull(oneOf(['chat', 'embeddings', 'models', 'rerank'])),
  done: flag,
  content_type: text,
  delay_ms: wait,
  stall_ms: wait,
}

const fault: Check = (value) => {
  if (!isObject(value) || value['kind'] === undefined) return `an object with a kind: ${FAULT_KINDS.join(', ')}`
  return problemIn(value, FAULT_CHECKS)
}

const count = whole(0, MAX_TOKENS)
const CHECKS: Readonly<Record<keyof Directives, Check>> = {
  play: orNull(text),
  shape: oneOf(SHAPES),
  layout: oneOf(LAYOUTS),
  reasoning_field: oneOf(['reasoning_content', 'reasoning', 'reasoning_details']),
  reasoning_tokens: count,
  cached_tokens: count,
  keep_alive: whole(0, 10_000),
  keep_alive_every: count,
  tool_call: oneOf(['auto', 'always', 'never']),
  tool_count: whole(1, 16),
  tool_id: oneOf(['first', 'empty']),
  data_space: flag,
  unfinished: oneOf(['null', 'empty', 'omit']),
  done: flag,
  line_end: oneOf(['lf', 'crlf', 'cr']),
  bom: flag,
  multi_line: flag,
  extra_fields: flag,
  tokens_per_chunk: whole(1, MAX_TOKENS),
  tokens: orNull(count),
  bytes_per_token: whole(0, MAX_PADDING_BYTES),
  first_token_delay_ms: wait,
  token_delay_ms: wait,
  writes: oneOf(['each', 'corked']),
  status: whole(200, 299),
  finish_reason: orNull(text),
  embeddings_batch: orNull(whole(1, MAX_TOKENS)),
  report: orNull(objectOf({ prompt_tokens: count, completion_tokens: count, cached_tokens: count })),
  raw: orNull(text),
  raw_type: text,
  split: orNull(split),
  fail: orNull(fault),
}

/** Names of all directives. */
export const DIRECTIVE_NAMES: readonly string[] = Object.keys(CHECKS)
/** Names of those that are true or false. */
export const FLAG_NAMES: ReadonlySet<string> = new Set(Object.entries(CHECKS).flatMap(([name, check]) => (check === flag ? [name] : [])))

function problemIn(value: Readonly<Record<string, unknown>>, checks: Readonly<Record<string, Check>>): string | null {
  for (const [name, member] of Object.entries(value)) {
    const check = Object.hasOwn(checks, name) ? checks[name] : undefined
    if (check === undefined) return `known members only (${Object.keys(checks).join(', ')}), not ${JSON.stringify(name)}`
    const expected = check(member)
    if (expected !== null) return `${name}: ${expected}`
  }
  return null
}

/**
 * Directives as they arrive in a body, a header or on the command line.
 * @throws DirectiveError naming the member and what it must be
 */
export function parseDirectives(value: unknown): PartialDirectives {
  if (!isObject(value)) throw new DirectiveError('sandbox directives must be an object')
  const expected = problemIn(value, CHECKS)
  if (expected !== null) throw new DirectiveError(`sandbox directives: expected ${expected}`)
  return value
}

const BUILT_IN: Omit<Directives, 'shape' | 'layout'> = {
  play: null,
  reasoning_field: 'reasoning_content',
  reasoning_tokens: 0,
  cached_tokens: 0,
  keep_alive: 0,
  keep_alive_every: 0,
  tool_call: 'auto',
  tool_count: 1,
  tool_id: 'first',
  data_space: true,
  unfinished: 'null',
  done: true,
  line_end: 'lf',
  bom: false,
  multi_line: false,
  extra_fields: false,
  tokens_per_chunk: 1,
  tokens: null,
  bytes_per_token: 0,
  first_token_delay_ms: 0,
  token_delay_ms: 0,
  writes: 'each',
  status: 200,
  finish_reason: null,
  embeddings_batch: null,
  report: null,
  raw: null,
  raw_type: 'text/event-stream',
  split: null,
  fail: null,
}

const FAULT_DEFAULTS: Omit<Fault, 'kind' | 'status'> = {
  at: 3,
  body: null,
  cause: 'invalid',
  code: null,
  message: null,
  retry_after: null,
  times: null,
  only_prefix: null,
  endpoint: null,
  done: false,
  content_type: 'text/plain',
  delay_ms: 1_000,
  stall_ms: MAX_WAIT_MS,
}

/** What a provider's layout implies; whatever is asked for expressly wins. */
const OF_LAYOUT: Readonly<Record<LayoutName, Partial<Directives>>> = {
  openai: { shape: 'own_chunk' },
  deepseek: { shape: 'finish_chunk' },
  qwen: { shape: 'own_chunk', tool_id: 'empty' },
  moonshot: { shape: 'choice' },
  minimax: { shape: 'finish_chunk', reasoning_field: 'reasoning_details' },
  stepfun: { shape: 'own_chunk', reasoning_field: 'reasoning' },
  baichuan: { shape: 'finish_chunk', data_space: false, unfinished: 'empty', done: false },
  vllm: { shape: 'continuous', reasoning_field: 'reasoning' },
  doubao: { shape: 'own_chunk' },
  qianfan: { shape: 'own_chunk' },
  zhipu: { shape: 'finish_chunk', unfinished: 'omit' },
  spark: { shape: 'finish_chunk', data_space: false, unfinished: 'omit' },
  siliconflow: { shape: 'own_chunk' },
  sglang: { shape: 'own_chunk' },
  mindie: { shape: 'finish_chunk' },
  ollama: { shape: 'own_chunk', reasoning_field: 'reasoning' },
  ragflow: { shape: 'finish_chunk', data_space: false },
}

/** The provider whose layout a shape is best known from. */
const OF_SHAPE: Readonly<Record<Shape, LayoutName>> = {
  own_chunk: 'openai',
  finish_chunk: 'deepseek',
  choice: 'moonshot',
  absent: 'openai',
  continuous: 'vllm',
}

/**
 * Directives in full from those given, later ones winning: built in, implied by the layout, then `given` in order
 * (the server's defaults, the header, the body). A shape without a layout takes the layout it is best known from.
 */
export function resolveDirectives(given: readonly PartialDirectives[]): Directives {
  const merged: PartialDirectives = Object.assign({}, ...given)
  const layout = merged.layout ?? OF_SHAPE[merged.shape ?? 'own_chunk']
  const shape = merged.shape ?? OF_LAYOUT[layout].shape ?? 'own_chunk'
  const { fail, ...rest } = merged
  return { ...BUILT_IN, ...OF_LAYOUT[layout], ...rest, layout, shape, fail: fail ? resolveFault(fail) : null }
}

function resolveFault(given: PartialFault): Fault {
  return { ...FAULT_DEFAULTS, status: given.kind === 'rate' ? 429 : 503, ...given }
}
