import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { classifyErrorObject, classifyResponse } from '../../src/upstream/classify.ts'
import { FAILURES } from '../../src/upstream/failure.ts'
import type { FailureKind, UpstreamFailure } from '../../src/upstream/failure.ts'
import type { ProviderFacts } from '../../src/upstream/providers/provider.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { ERROR_CASES } from '../support/provider-errors.ts'
import { sharedData } from '../support/shared.ts'

const NOW = Date.UTC(2026, 10, 23, 4, 0, 0)

function factsOf(provider: string): ProviderFacts {
  const facts = PROVIDERS.get(provider)
  if (facts === undefined) throw new Error(`no provider ${provider}`)
  return facts
}

function classify(provider: string, status: number, body: unknown, headers: Record<string, string> = {}): UpstreamFailure {
  const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
  return classifyResponse(status, headers, bytes, factsOf(provider), NOW)
}

const openai = (message: string, type: string | null = null, code: string | number | null = null): unknown => ({
  error: { message, type, param: null, code },
})

/** provider, status, body, kind. The first rows of each provider are those of its documentation. */
const TABLE: readonly (readonly [string, number, unknown, FailureKind])[] = [
  ['deepseek', 400, '', 'invalid'],
  [
    'deepseek',
    400,
    openai('The reasoning_content in the thinking mode must be passed back to the API.', 'invalid_request_error'),
    'invalid',
  ],
  [
    'deepseek',
    400,
    openai("This model's maximum context length is 131072 tokens. However, you requested 150000 tokens", 'invalid_request_error'),
    'context_length',
  ],
  ['deepseek', 400, openai('Content Exists Risk', 'invalid_request_error', 'invalid_request_error'), 'content'],
  ['deepseek', 400, openai('Model Not Exist', 'invalid_request_error', 'invalid_request_error'), 'model_missing'],
  ['deepseek', 401, openai('Authentication Fails', 'authentication_error', 'invalid_request_error'), 'auth'],
  ['deepseek', 402, openai('Insufficient Balance', 'unknown_error', 'invalid_request_error'), 'balance'],
  ['deepseek', 422, '', 'invalid'],
  ['deepseek', 429, '', 'rate'],
  ['deepseek', 500, '', 'server'],
  ['deepseek', 503, '', 'overload'],
  [
    'qwen',
    400,
    {
      error: {
        code: 'Arrearage',
        type: 'Arrearage',
        message: 'Access denied, please make sure your account is in good standing.',
        param: null,
      },
      request_id: 'r',
    },
    'balance',
  ],
  [
    'qwen',
    400,
    {
      error: {
        code: 'data_inspection_failed',
        type: 'data_inspection_failed',
        message: 'Input data may contain inappropriate content.',
        param: null,
      },
    },
    'content',
  ],
  ['qwen', 400, { code: 'DataInspectionFailed', message: 'Input data may contain inappropriate content.', request_id: 'r' }, 'content'],
  ['qwen', 400, { code: 'InvalidParameter', message: '…', request_id: 'r' }, 'invalid'],
  [
    'qwen',
    400,
    openai(
      '<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]',
      'invalid_request_error',
      'invalid_parameter_error',
    ),
    'context_length',
  ],
  [
    'qwen',
    400,
    openai(
      '<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]',
      'invalid_request_error',
      'invalid_parameter_error',
    ),
    'invalid',
  ],
  ['qwen', 401, openai('Incorrect API key provided.', 'invalid_request_error', 'invalid_api_key'), 'auth'],
  ['qwen', 403, openai('Access denied.', 'AccessDenied', 'AccessDenied'), 'auth'],
  [
    'qwen',
    403,
    openai('The free tier of the model has been exhausted.', 'AllocationQuota.FreeTierOnly', 'AllocationQuota.FreeTierOnly'),
    'quota',
  ],
  ['qwen', 404, openai('The model `x` does not exist', 'invalid_request_error', 'model_not_found'), 'model_missing'],
  ['qwen', 429, openai('Requests rate limit exceeded', 'Throttling.RateQuota', 'Throttling.RateQuota'), 'rate'],
  [
    'qwen',
    429,
    openai('Allocated quota exceeded, please increase your quota limit.', 'Throttling.AllocationQuota', 'Throttling.AllocationQuota'),
    'rate',
  ],
  ['qwen', 429, openai('You have exceeded your request limit.', 'limit_requests', 'limit_requests'), 'rate'],
  ['qwen', 429, openai('You exceeded your current quota', 'insufficient_quota', 'insufficient_quota'), 'quota'],
  [
    'qwen',
    503,
    openai(
      '<503> InternalError.Algo: An error occurred in model serving, error message is: [Too many requests. …]',
      'ServiceUnavailable',
      'ServiceUnavailable',
    ),
    'overload',
  ],
  ['qwen', 400, openai('<503> InternalError.Algo: [Too many requests. …]', 'ServiceUnavailable', 'ServiceUnavailable'), 'overload'],
  ['vllm', 400, openai('<message>', '<type>', 400), 'invalid'],
  [
    'vllm',
    400,
    {
      object: 'error',
      message: "This model's maximum context length is 4096 tokens. However, you requested 4472 tokens",
      type: 'BadRequestError',
      param: null,
      code: 400,
    },
    'context_length',
  ],
  [
    'vllm',
    400,
    openai('The decoder prompt (length 163840) is longer than the maximum model length of 131072.', 'BadRequestError', 400),
    'context_length',
  ],
  ['vllm', 404, openai('The model `x` does not exist.', 'NotFoundError', 404), 'model_missing'],
  ['sglang', 400, '', 'invalid'],
  [
    'sglang',
    400,
    {
      object: 'error',
      message: "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
      type: 'BadRequestError',
      param: null,
      code: 400,
    },
    'context_length',
  ],
  ['sglang', 503, { object: 'error', message: 'The request queue is full.', type: 'ServiceUnavailable', code: 503 }, 'overload'],
  ['ollama', 404, openai('model "x" not found, try pulling it first', '<type>'), 'model_missing'],
  ['ollama', 503, { error: 'server busy, please try again. maximum pending requests exceeded' }, 'overload'],
  ['sandbox', 408, '', 'server'],
  ['sandbox', 413, '', 'invalid'],
  ['sandbox', 413, openai('prompt is too long: 9 tokens'), 'context_length'],
  ['sandbox', 418, '', 'invalid'],
  ['sandbox', 451, '', 'content'],
  ['sandbox', 402, '', 'balance'],
  ['sandbox', 429, openai('slow down', 'insufficient_quota', 'insufficient_quota'), 'quota'],
  ['sandbox', 400, openai('no', 'invalid_request_error', 'context_length_exceeded'), 'context_length'],
  ['sandbox', 400, openai('Model names are case sensitive'), 'invalid'],
  ['sandbox', 302, '', 'server'],
  ['sandbox', 500, openai('insufficient balance of the force'), 'server'],
  ['sandbox', 502, '<html><body><h1>502 Bad Gateway</h1></body></html>', 'server'],
  ['sandbox', 504, '', 'server'],
  ['sandbox', 529, '', 'overload'],
]

describe('an answer that is not 2xx', () => {
  it.each(TABLE)('of %s, %i %j, is %s', (provider, status, body, kind) => {
    const failure = classify(provider, status, body)
    expect(failure.kind).toBe(kind)
    expect(failure.details.status).toBe(status)
  })

  it('is never of a kind that leaves it open whether the upstream worked', () => {
    for (const [, , , kind] of TABLE) expect(FAILURES[kind].reached).toBe(false)
  })

  it('lets another target be tried and counts against the breaker as the kind says', () => {
    const decisions = Object.fromEntries(TABLE.map(([, , , kind]) => [kind, [FAILURES[kind].retry, FAILURES[kind].breaks]]))
    expect(decisions).toEqual({
      invalid: [false, false],
      context_length: [false, false],
      content: [false, false],
      rate: [true, false],
      auth: [true, true],
      balance: [true, true],
      quota: [true, true],
      model_missing: [true, true],
      server: [true, true],
      overload: [true, true],
    })
  })
})

const shared = sharedData('providers.json')
describe.skipIf(shared === null)('the recorded error rows of the providers', () => {
  interface Row {
    readonly status: number | null
    readonly body_example: string | null
    readonly meaning: string
  }
  const recorded = shared === null ? [] : (JSON.parse(readFileSync(shared, 'utf8')) as { provider: string; errors: Row[] }[])
  const rows = recorded
    .filter(({ provider }) => PROVIDERS.has(provider))
    .flatMap(({ provider, errors }) => errors.map((row) => ({ provider, ...row })))

  it('are there', () => {
    expect(rows.length).toBeGreaterThan(15)
  })

  it.each(rows.filter((row) => row.status !== null && row.status !== 200))('$provider $status ($meaning) is in the table above', (row) => {
    const covered = [...TABLE, ...ERROR_CASES].filter(([provider, status]) => provider === row.provider && status === row.status)
    expect(covered).not.toEqual([])
    if (row.body_example === null) return
    const kind = classify(row.provider, row.status ?? 0, row.body_example).kind
    expect(covered.map((row_of_table) => row_of_table[3])).toContain(kind)
  })
})

describe('an error inside a 200', () => {
  const INSIDE: readonly (readonly [string, unknown, FailureKind])[] = [
    ['vllm', openai('The prompt is longer than the maximum model length', 'BadRequestError', 400), 'context_length'],
    ['vllm', openai('boom', 'InternalServerError', 500), 'server'],
    ['sglang', { object: 'error', message: 'bad', type: 'BadRequestError', code: 400 }, 'invalid'],
    ['sglang', { message: 'overloaded', type: 'x', code: 503 }, 'overload'],
    ['qwen', { code: 'Throttling', message: 'slow down', request_id: 'r' }, 'rate'],
    ['qwen', openai('no', 'data_inspection_failed', 'data_inspection_failed'), 'content'],
    ['deepseek', openai('Insufficient Balance'), 'balance'],
    ['deepseek', openai('x', 'rate_limit_error'), 'rate'],
    ['deepseek', openai('x', 'authentication_error'), 'auth'],
    ['deepseek', openai('x', 'invalid_request_error'), 'invalid'],
    ['ollama', { error: 'model "x" not found, try pulling it first' }, 'model_missing'],
    ['sandbox', { error_code: 336100, error_msg: 'try again' }, 'server'],
    ['sandbox', { error: null }, 'server'],
    ['sandbox', null, 'server'],
    ['sandbox', 'plain words', 'server'],
  ]
  it.each(INSIDE)('of %s, %j, is %s', (provider, error, kind) => {
    expect(classifyErrorObject(error, 200, factsOf(provider)).kind).toBe(kind)
  })

  it('keeps the words of the provider, whichever shape they came in', () => {
    const shapes: unknown[] = [
      { error: { message: 'why', code: 'c1' } },
      { message: 'why', code: 'c1' },
      { error_msg: 'why', error_code: 'c1' },
      { error: { error: { message: 'why', type: 'c1' } } },
    ]
    for (const shape of shapes) {
      expect(classifyErrorObject(shape, 200, factsOf('sandbox')).details).toMatchObject({ provider_message: 'why', provider_code: 'c1' })
    }
  })

  it('does not follow objects without end', () => {
    let deep: unknown = 'x'
    for (let i = 0; i < 10_000; i += 1) deep = { error: deep }
    expect(classifyErrorObject(deep, 200, factsOf('sandbox')).kind).toBe('server')
  })
})

describe('Retry-After', () => {
  it.each([
    [{ 'retry-after': '7' }, 7_000],
    [{ 'retry-after': '1.5' }, 1_500],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after-ms': '250', 'retry-after': '9' }, 250],
    [{ 'retry-after': 'Mon, 23 Nov 2026 04:00:30 GMT' }, 30_000],
    [{ 'retry-after': 'Mon, 23 Nov 2026 03:00:00 GMT' }, 0],
    [{ 'retry-after': '86400' }, 600_000],
    [{ 'retry-after': 'soon' }, undefined],
    [{ 'retry-after': '-5' }, undefined],
    [{}, undefined],
  ])('%j is a wait of %s ms', (headers, wait_ms) => {
    expect(classify('sandbox', 429, '', headers as Record<string, string>).details.retry_after_ms).toBe(wait_ms)
  })
})

describe('the words of a provider', () => {
  const wordsOf = (text: string): string => classify('sandbox', 400, openai(text)).details.provider_message ?? ''

  it('are cut to 500 characters, without half a character', () => {
    expect(wordsOf('a'.repeat(499) + '😀'.repeat(50))).toHaveLength(500)
    expect(wordsOf('a'.repeat(499) + '😀'.repeat(50)).isWellFormed()).toBe(true)
  })

  it('have no control characters', () => {
    expect(wordsOf('a\u0000b\r\nc\u001b[31md\u202e')).toBe('a b c [31md')
  })

  it.each([
    ['Incorrect API key provided: sk-abc123def456ghi789.', 'sk-abc'],
    ['header was "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"', 'eyJ'],
    ['api key: 0123456789abcdef is unknown', '01234'],
    ['token 0123456789abcdef0123456789abcdef.AbCdEfGhIjKlMnOp', 'AbCd'],
    ['x'.repeat(490) + ' sk-abcdefghijklmnop', 'sk-a'],
  ])('have no secret: %s', (text, secret) => {
    expect(wordsOf(text)).not.toContain(secret)
    expect(wordsOf(text)).toContain('***')
  })

  it('are found in a body that was cut in the middle', () => {
    const failure = classify('qwen', 400, '{"error":{"code":"Arrearage","type":"Arrearage","message":"Access denied, please ma')
    expect(failure.kind).toBe('balance')
    expect(failure.details).toMatchObject({ provider_code: 'Arrearage', provider_message: 'Access denied, please ma' })
  })

  it('are the text of a page that is not JSON', () => {
    expect(classify('sandbox', 400, '<html><h1>400 Bad Request</h1>').details.provider_message).toBe('400 Bad Request')
  })
})

describe('a 403', () => {
  it.each([
    [
      'the page of a firewall',
      '<html><head><title>403 Forbidden</title></head><body>Access Denied. Your request was blocked.</body></html>',
    ],
    ['an empty body', ''],
    ['JSON that names no cause', { message: 'Forbidden' }],
    ['a code that is only the status', openai('blocked', null, 403)],
  ])('may be about one request, so it never shuts an endpoint at once: %s', (_, body) => {
    expect(classify('deepseek', 403, body).kind).toBe('server')
  })

  it.each([
    openai('Access denied.', null, 'AccessDenied'),
    openai('x', 'permission_error'),
    openai('Invalid API key'),
    { detail: 'The API key has expired' },
  ])('is about the account if it says so: %j', (body) => {
    expect(classify('sandbox', 403, body).kind).toBe('auth')
  })
})

it("the caller's own words, sent back by a validator, are not read", () => {
  const body = { detail: [{ loc: ['body', 'messages'], msg: 'not valid', input: 'insufficient balance' }] }
  const failure = classify('vllm', 422, body)
  expect(failure.kind).toBe('invalid')
  expect(failure.details.provider_message).not.toContain('balance')
})
