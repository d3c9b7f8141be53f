import { describe, expect, it } from 'vitest'
import { classifyErrorObject, classifyResponse } from '../../src/upstream/classify.ts'
import { dialectFor } from '../../src/upstream/dialects/registry.ts'
import { FAILURES, UpstreamFailure } from '../../src/upstream/failure.ts'
import type { FailureKind } from '../../src/upstream/failure.ts'
import type { ProviderFacts } from '../../src/upstream/providers/provider.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { ANTHROPIC_ERRORS, ERROR_CASES } from '../support/provider-errors.ts'
import { answerContext, translate } from '../support/streams.ts'

function factsOf(provider: string): ProviderFacts {
  const facts = PROVIDERS.get(provider)
  if (facts === undefined) throw new Error(`no provider ${provider}`)
  return facts
}

function kindOf(provider: string, status: number, body: unknown): FailureKind {
  const facts = factsOf(provider)
  if (status === 200) return classifyErrorObject(body, 200, facts).kind
  return classifyResponse(status, {}, Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), facts, 0).kind
}

describe("a provider's error: our kind, our code, and what happens next", () => {
  it.each(ERROR_CASES)('of %s, %i %j, is %s', (provider, status, body, kind) => {
    expect(kindOf(provider, status, body)).toBe(kind)
    const { retry, code } = FAILURES[kind]
    // What is about the request ends it: another target would get the same words, and content never moves on silently.
    const ends = kind === 'content' || kind === 'invalid' || kind === 'context_length'
    expect(retry).toBe(!ends)
    expect(code).toBe(
      ends
        ? { content: 'content_filtered', invalid: 'invalid_request', context_length: 'context_length_exceeded' }[kind]
        : 'upstream_error',
    )
  })

  it.each(ERROR_CASES.filter(([, status]) => status === 200))(
    'of %s, %i %j, as a whole body, a first event and in the middle, is %s',
    (provider, _, body, kind) => {
      const dialect = dialectFor('openai', factsOf(provider))
      const json = JSON.stringify(body)
      expect(() => dialect.whole(Buffer.from(json), answerContext())).toThrow(expect.objectContaining({ kind }))
      expect(translate(dialect, answerContext(), [Buffer.from(json)])).toMatchObject({ failure: kind, out: '', data_events: 0 })
      expect(translate(dialect, answerContext(), [Buffer.from(`data:${json}\n\n`)])).toMatchObject({
        failure: kind,
        out: '',
        data_events: 0,
      })
      const text = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"hi"},"finish_reason":null}]}\n\n'
      const middle = translate(dialect, answerContext(), [Buffer.from(`${text}data: ${json}\n\ndata: [DONE]\n\n`)])
      expect(middle).toMatchObject({ failure: kind, out: text, data_events: 1 })
    },
  )

  it.each(ANTHROPIC_ERRORS)("of Anthropic's form, %s, is %s", (type, kind) => {
    for (const provider of ['zhipu', 'deepseek', 'moonshot']) {
      const error = { type: 'error', error: { type, message: 'x' } }
      expect(kindOf(provider, 200, error)).toBe(kind)
      const stream = `event: error\ndata: ${JSON.stringify(error)}\n\n`
      expect(translate(dialectFor('anthropic', factsOf(provider)), answerContext(), [Buffer.from(stream)]).failure).toBe(kind)
    }
  })

  it.each(['deepseek', 'qwen', 'vllm', 'sglang', 'ollama', ...new Set(ERROR_CASES.map(([provider]) => provider)), 'sandbox'])(
    '%s is known',
    (provider) => {
      expect(factsOf(provider).id).toBe(provider)
    },
  )

  it('leaves no provider without a case, and knows twenty-three beside the sandbox', () => {
    const covered = new Set([...ERROR_CASES.map(([provider]) => provider), 'deepseek', 'qwen', 'vllm', 'sglang', 'ollama', 'sandbox'])
    expect([...PROVIDERS.keys()].toSorted()).toEqual([...covered].toSorted())
    expect(PROVIDERS.size).toBe(24)
  })
})

it.each([
  [
    'MiniMax warns with a code of 0',
    { base_resp: { status_code: 0, status_msg: 'Invalid parameters detected, json: unknown field "user"' } },
  ],
  ['an error of nothing', { error: { message: '', code: 0, type: null } }],
  ['an empty error', { error: {} }],
  ['no error', { error: false }],
  ['a good code', { code: 0, message: 'Success' }],
  ['a good code in words', { code: 'Success', message: 'ok' }],
  ['an HTTP code', { code: 200, message: 'ok' }],
])('is no error: %s', (_, members) => {
  const choice = { index: 0, message: { role: 'assistant', content: 'hi' }, finish_reason: 'stop' }
  const body = Buffer.from(JSON.stringify({ ...members, choices: [choice] }))
  expect(dialectFor('openai', factsOf('minimax')).whole(body, answerContext()).observation.finished).toBe(true)
})

it.each([
  ['deepseek', 'insufficient_system_resource', 'overload'],
  ['zhipu', 'network_error', 'server'],
  ['sglang', 'abort', 'server'],
] as const)('%s says with %s that it broke off: no clean end, streamed or not', (provider, finish_reason, kind) => {
  const dialect = dialectFor('openai', factsOf(provider))
  const chunk = (delta: object, finish: string | null): string =>
    `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`
  const stream = chunk({ role: 'assistant', content: 'half' }, null) + chunk({}, finish_reason)
  const outcome = translate(dialect, answerContext(), [Buffer.from(`${stream}data: [DONE]\n\n`)])
  expect(outcome).toMatchObject({ failure: kind, observed: { finished: false } })
  const whole = { choices: [{ index: 0, message: { content: 'half' }, finish_reason }] }
  expect(() => dialect.whole(Buffer.from(JSON.stringify(whole)), answerContext())).toThrow(UpstreamFailure)
})
