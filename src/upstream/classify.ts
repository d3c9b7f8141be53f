import { UpstreamFailure } from './failure.ts'
import type { FailureKind } from './failure.ts'
import type { ErrorRule, ProviderFacts } from './providers/provider.ts'

/** Longest wait that a provider may ask for. */
const RETRY_AFTER_CAP_MS = 600_000
const MESSAGE_LIMIT = 500
/** Characters of a message that are looked at for presenting it. */
const READ_LIMIT = 4_096
const CODE_LIMIT = 100
/** Error objects inside error objects, at most. */
const MAX_DEPTH = 4

type Headers = Readonly<Record<string, string | string[] | undefined>>

/** What an error says, whichever shape it came in. */
interface ErrorFacts {
  /** Everything that names the error: `code`, `type`, their likes, in that order. */
  readonly codes: readonly string[]
  readonly message: string
}

/**
 * The failure that a non-2xx answer means: the provider's own rules first, then those that hold for all.
 *
 * @param headers names in lower case
 * @param body the answer, possibly cut; what is not JSON counts as its message
 * @param now_ms wall clock, ms since the epoch, for a `Retry-After` that is a date
 */
export function classifyResponse(status: number, headers: Headers, body: Buffer, facts: ProviderFacts, now_ms: number): UpstreamFailure {
  const found = factsOf(body)
  const retry_after_ms = retryAfter(headers, now_ms)
  return failureOf(kindOf(found, status, facts.errors), found, status, retry_after_ms)
}

/**
 * The failure that an error inside a 200 means: a JSON body or a stream's event.
 *
 * @param error the whole object (`{error: {…}}`, `{error_code, error_msg}`, `{code, message}` …) or only the inner one
 */
export function classifyErrorObject(error: unknown, status: number, facts: ProviderFacts): UpstreamFailure {
  const found = factsOfJson(error)
  return failureOf(kindOf(found, statusInside(found, status), facts.errors), found, status, null)
}

function failureOf(kind: FailureKind, found: ErrorFacts, status: number, retry_after_ms: number | null): UpstreamFailure {
  const code = found.codes[0]
  return new UpstreamFailure(kind, {
    status,
    ...(retry_after_ms === null ? {} : { retry_after_ms }),
    ...(found.message === '' ? {} : { provider_message: presentable(found.message, MESSAGE_LIMIT) }),
    ...(code === undefined ? {} : { provider_code: presentable(code, CODE_LIMIT) }),
  })
}

/** vLLM and SGLang put the HTTP status that they could not send any more into `code`. */
function statusInside(found: ErrorFacts, status: number): number {
  if (status >= 400) return status
  const inside = found.codes.map(Number).find((code) => Number.isInteger(code) && code >= 400 && code < 600)
  return inside ?? status
}

function kindOf(found: ErrorFacts, status: number, rules: readonly ErrorRule[]): FailureKind {
  const codes = found.codes.map((code) => code.toLowerCase())
  const message = found.message.toLowerCase()
  const rule = rules.find((candidate) => matches(candidate, status, codes, message))
  return rule?.kind ?? kindOfWords(status, codes, message) ?? kindOfStatus(status) ?? kindOfCodes(codes)
}

function matches(rule: ErrorRule, status: number, codes: readonly string[], message: string): boolean {
  if (rule.status !== undefined && rule.status !== status) return false
  if (rule.code !== undefined && !codes.includes(String(rule.code).toLowerCase())) return false
  return rule.message === undefined || message.includes(rule.message.toLowerCase())
}

const CONTEXT_CODES: ReadonlySet<string> = new Set(['context_length_exceeded', 'tokens_too_long', 'string_above_max_length'])
const CONTEXT_WORDS =
  /maximum context length|range of input length|(exceed\w*|longer than|larger than|beyond)\b.{0,60}\bcontext( length| window| size)|prompt is too long/
const CONTENT_CODES: ReadonlySet<string> = new Set([
  'data_inspection_failed',
  'datainspectionfailed',
  'content_filter',
  'content_policy_violation',
  'sensitive',
  'unsafe_request',
  'system_unsafe',
])
/** Families of codes: Volcengine's, Tencent Cloud's. */
const CONTENT_CODE = /sensitivecontent|illegaldetected/
const CONTENT_WORDS =
  /inappropriate content|(?<!case[- ])\bsensitive (content|information|words?)\b|content (filter|security|risk)|considered high risk|敏感内容/
const BALANCE_CODES: ReadonlySet<string> = new Set(['arrearage', 'insufficient_balance', 'accountoverdueerror', 'billing_not_active'])
const BALANCE_WORDS = /insufficient (account )?balance|balance is insufficient|in arrears|account (is )?overdue|余额不足|欠费/
/** Refusals of the account itself. A 403 in other words may be about one request only, as that of a firewall that dislikes a prompt. */
const AUTH_CODES: ReadonlySet<string> = new Set([
  'accessdenied',
  'access_denied',
  'accessdenied.unpurchased',
  'model.accessdenied',
  'workspace.accessdenied',
  'authentication_error',
  'invalid_api_key',
  'invalidapikey',
  'permission_denied',
  'permission_error',
  'unauthorized',
])
const AUTH_WORDS =
  /\b(invalid|incorrect|wrong|expired|missing|disabled|revoked) (api[ _-]?key|access token|token|credentials?)\b|\bapi[ _-]?key (provided )?(is|was|has|not)\b|authentication (fail|error)/
const QUOTA_CODES: ReadonlySet<string> = new Set(['insufficient_quota', 'quota_exceeded', 'quotaexceeded', 'billing_hard_limit_reached'])

/** Statuses whose words are worth reading: providers disagree on which of them an error gets, and errors inside a 200 have none. */
const READ_WORDS_OF: ReadonlySet<number> = new Set([200, 400, 402, 403, 413, 422, 429, 451])

function kindOfWords(status: number, codes: readonly string[], message: string): FailureKind | null {
  if (!READ_WORDS_OF.has(status)) return null
  const isOneOf = (known: ReadonlySet<string>): boolean => codes.some((code) => known.has(code))
  if (isOneOf(QUOTA_CODES)) return 'quota'
  if (isOneOf(BALANCE_CODES) || BALANCE_WORDS.test(message)) return 'balance'
  if (status === 429 || status === 402) return null
  if (isOneOf(CONTEXT_CODES) || CONTEXT_WORDS.test(message)) return 'context_length'
  if (isOneOf(CONTENT_CODES) || codes.some((code) => CONTENT_CODE.test(code)) || CONTENT_WORDS.test(message)) return 'content'
  if (status === 403 && (isOneOf(AUTH_CODES) || AUTH_WORDS.test(message))) return 'auth'
  return null
}

const KINDS_OF_STATUS: ReadonlyMap<number, FailureKind> = new Map([
  [401, 'auth'],
  [402, 'balance'],
  [403, 'server'],
  [404, 'model_missing'],
  [408, 'server'],
  [424, 'server'],
  [425, 'server'],
  [429, 'rate'],
  [451, 'content'],
  [503, 'overload'],
  [529, 'overload'],
])

/** Null below 300, where the status says nothing. A redirect is an upstream that is not where it was said to be. */
function kindOfStatus(status: number): FailureKind | null {
  const known = KINDS_OF_STATUS.get(status)
  if (known !== undefined) return known
  if (status >= 400 && status < 500) return 'invalid'
  return status >= 300 ? 'server' : null
}

/** For errors inside a 200 that name no status: OpenAI's types, and what others made of them. */
function kindOfCodes(codes: readonly string[]): FailureKind {
  const names = codes.join(' ')
  if (/rate_?limit|limit_requests|throttling|too_?many_?requests/.test(names)) return 'rate'
  if (/authentication|invalid_api_?key|permission|unauthorized/.test(names)) return 'auth'
  if (/model_?not_?found|not_found_error/.test(names)) return 'model_missing'
  if (/billing_error/.test(names)) return 'balance'
  if (/overload|service_?unavailable/.test(names)) return 'overload'
  return /invalid_?(request|parameter)|bad_?request/.test(names) ? 'invalid' : 'server'
}

function factsOf(body: Buffer): ErrorFacts {
  const text = body.toString('utf8').trim()
  if (text === '') return { codes: [], message: '' }
  try {
    return factsOfJson(JSON.parse(text))
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    return factsOfCutJson(text)
  }
}

/** A body that was cut, or never was JSON: its first `code` and `message` if they can be found, else its text. */
function factsOfCutJson(text: string): ErrorFacts {
  if (!text.startsWith('{')) return { codes: [], message: text.slice(0, READ_LIMIT).replaceAll(/<[^>]*>/g, ' ') }
  const first = (name: string): string | undefined => new RegExp(`"${name}"\\s*:\\s*"((?:[^"\\\\]|\\\\.)*)`, 'i').exec(text)?.[1]
  const codes = [first('code') ?? first('error_code'), first('type')].filter((code) => code !== undefined)
  return { codes, message: first('message') ?? first('error_msg') ?? text }
}

const CODE_FIELDS = ['code', 'error_code', 'type', 'error_type', 'status_code', 'Code'] as const
const MESSAGE_FIELDS = ['message', 'error_msg', 'msg', 'detail', 'status_msg', 'error', 'Message', 'Msg'] as const
const INNER_FIELDS = ['error', 'base_resp', 'header', 'Response', 'ResponseMetadata', 'Error', 'ErrorMsg'] as const

function factsOfJson(value: unknown, depth = 0): ErrorFacts {
  if (typeof value === 'string') return { codes: [], message: value }
  if (typeof value !== 'object' || value === null || depth > MAX_DEPTH) return { codes: [], message: '' }
  const fields = value as Readonly<Record<string, unknown>>
  const own = {
    codes: CODE_FIELDS.map((name) => textOf(fields[name])).filter((code) => code !== '' && code !== 'error'),
    message: MESSAGE_FIELDS.map((name) => textOf(fields[name])).find((text) => text !== '') ?? '',
  }
  const inner = INNER_FIELDS.map((name) => fields[name]).find((field) => typeof field === 'object' && field !== null)
  if (inner === undefined) return own
  const within = factsOfJson(inner, depth + 1)
  return { codes: [...within.codes, ...own.codes], message: within.message === '' ? own.message : within.message }
}

/** Text as it is, numbers written out, FastAPI's `detail` as JSON without the caller's `input` in it; anything else is no text. */
function textOf(field: unknown): string {
  if (typeof field === 'string') return field
  if (typeof field === 'number') return String(field)
  // The caller's own words must not be read as the upstream's: a prompt about an empty account would shut the endpoint.
  return Array.isArray(field) ? JSON.stringify(field, (name, value: unknown) => (name === 'input' ? undefined : value)) : ''
}

/** `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date (RFC 9110 §10.2.3), at most {@link RETRY_AFTER_CAP_MS}; else null. */
function retryAfter(headers: Headers, now_ms: number): number | null {
  const wait_ms = parseWait(single(headers['retry-after-ms']), 1, now_ms) ?? parseWait(single(headers['retry-after']), 1_000, now_ms)
  return wait_ms === null ? null : Math.min(Math.max(Math.ceil(wait_ms), 0), RETRY_AFTER_CAP_MS)
}

function parseWait(value: string, unit_ms: number, now_ms: number): number | null {
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * unit_ms
  // Date.parse takes many a thing for a date; an HTTP date has a weekday, a comma or an asctime form, and a time.
  const at_ms = /^[A-Z][a-z]+,? .*\d\d:\d\d:\d\d/.test(value) ? Date.parse(value) : NaN
  return Number.isNaN(at_ms) ? null : at_ms - now_ms
}

function single(value: string | string[] | undefined): string {
  return ((Array.isArray(value) ? value[0] : value) ?? '').trim()
}

/** What looks like a secret: OpenAI-like keys, bearer tokens, Zhipu's id.secret, and whatever follows "api key:". */
const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/\bbearer\s+[^\s"',;]+/gi, 'Bearer ***'],
  [/\bsk-[\w*-]+/gi, 'sk-***'],
  [/\b[0-9a-f]{32}\.\w{16}\b/gi, '***'],
  [/(\bapi[ _-]?key(?: provided)?["']?\s*[:=]\s*["']?)[^\s"',;]+/gi, '$1***'],
]

/** A provider's words, fit to be shown: no control characters, no secrets, not long. Masked before it is cut, so that no half key is left. */
function presentable(text: string, limit: number): string {
  const plain = text
    .slice(0, READ_LIMIT)
    .replaceAll(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]+/gu, ' ')
    .replaceAll(/ {2,}/g, ' ')
    .trim()
  const masked = SECRETS.reduce((masking, [pattern, mask]) => masking.replaceAll(pattern, mask), plain)
  return masked.slice(0, limit).toWellFormed()
}
