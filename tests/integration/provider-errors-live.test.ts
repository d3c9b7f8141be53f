import { describe, expect, it } from 'vitest'
import { CAUSES, type Cause } from '../../src/sandbox/directives.ts'
import { startSandbox } from '../../src/sandbox/server.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { atEnd } from '../support/cleanup.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { readSse } from '../support/sse.ts'

/** What the caller is told where another try elsewhere would be wrong; all other causes move on to the next target. */
const ENDS: Partial<Record<Cause, { readonly status: number; readonly code: string }>> = {
  content: { status: 400, code: 'content_filtered' },
  context: { status: 400, code: 'context_length_exceeded' },
  invalid: { status: 400, code: 'invalid_request' },
}

/** Applications are asked in a form of their own, which has no place for what a test tells the sandbox; they have a test of their own. */
const PLAYED = [...PROVIDERS].filter(([id, { speaks }]) => id !== 'sandbox' && speaks === undefined).map(([id]) => id)

/** A model per provider and cause, so that a breaker that one cause opens hides no other: the provider first, then a sandbox. */
async function start(): Promise<TestGateway> {
  const sandbox = await startSandbox({ port: 0 })
  atEnd(() => sandbox.close())
  const models = Object.fromEntries(
    PLAYED.flatMap((provider) =>
      CAUSES.map((cause) => {
        const id = `${provider}-${cause}`
        const first = {
          id: `${id}-a`,
          provider,
          base_url: `${sandbox.url}/as/${provider}/v1`,
          api_key: 'test-id.test-secret',
          zone: 'private',
        }
        const second = { id: `${id}-b`, provider: 'sandbox', base_url: `${sandbox.url}/b/v1`, tier: 2 }
        const endpoints = [provider === 'ollama' ? { ...first, api_key: undefined } : first, second]
        return [id, { kind: 'chat', owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 100_000, endpoints }]
      }),
    ),
  )
  return startGateway({ models })
}

describe("a provider's refusal, told in its own words", () => {
  it('moves on to the next target, or ends the request, by its cause: never silently for its content', { timeout: 120_000 }, async () => {
    const gateway = await start()
    for (const provider of PLAYED) {
      for (const cause of CAUSES) {
        for (const stream of [false, true]) {
          // As many other requests went well: a minute of nothing but failures is not retried.
          for (let others = 0; others < 20; others += 1) gateway.plane.retries.request(gateway.plane.clock.monotonic_ms())
          const fail = { kind: 'provider', cause, only_prefix: `as/${provider}` }
          const response = await gateway.chat({ model: `${provider}-${cause}`, stream, sandbox: { fail } })
          const body = await response.text()
          const end = ENDS[cause]
          const told = response.status === 200 ? null : (JSON.parse(body) as { error: { code: string } }).error.code
          expect([provider, cause, stream, response.status, told]).toEqual([provider, cause, stream, end?.status ?? 200, end?.code ?? null])
          if (end === undefined && stream) expect(readSse(body)).toMatchObject({ done_count: 1, error: null })
          if (end !== undefined) expect(response.headers.get('x-should-retry')).toBe('false')
        }
      }
    }
    await gateway.audit()
  })

  it('after the first words is an error event, without [DONE], and only what was delivered is billed', async () => {
    const sandbox = await startSandbox({ port: 0 })
    atEnd(() => sandbox.close())
    const bodies: readonly (readonly [provider: string, body: unknown, code: string])[] = [
      ['minimax', { base_resp: { status_code: 1027, status_msg: 'x' } }, 'content_filtered'],
      ['spark', { code: 10014, message: 'x', sid: 's' }, 'content_filtered'],
      ['qwen', { error: { code: 'data_inspection_failed', message: 'x' } }, 'content_filtered'],
      ['mindie', { error: 'x', error_type: 'Generation Error' }, 'upstream_error'],
      ['hunyuan', { ErrorMsg: { Msg: 'x', Code: 4001 } }, 'upstream_error'],
    ]
    const models = Object.fromEntries(
      bodies.map(([provider]) => [
        provider,
        {
          ...{ kind: 'chat', owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 100_000 },
          endpoints: [{ provider, base_url: `${sandbox.url}/as/${provider}/v1`, api_key: 'k', zone: 'private' }],
        },
      ]),
    )
    const gateway = await startGateway({ models })
    for (const [provider, body, code] of bodies) {
      const fail = { kind: 'error_event', at: 3, body: JSON.stringify(body), done: true }
      const response = await gateway.chat({ model: provider, stream: true, sandbox: { fail } })
      const stream = readSse(await response.text())
      expect([provider, stream.done_count, stream.error]).toEqual([provider, 0, expect.objectContaining({ code })])
      const event = await gateway.event(response.headers.get('x-request-id'))
      expect(event).toMatchObject({ status: 'truncated', code, usage_source: 'estimated', tokens: { output: 3 } })
    }
  })
})
