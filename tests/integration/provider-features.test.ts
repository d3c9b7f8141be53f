import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { atEnd } from '../support/cleanup.ts'
import { HELLO, startGateway, type TestGateway } from '../support/gateway.ts'
import { meaningOf } from '../support/meaning.ts'
import { readSse } from '../support/sse.ts'

type Members = Readonly<Record<string, unknown>>

/** What an upstream of a test was asked. */
interface Asked {
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: Members
}

interface Scripted {
  readonly url: string
  readonly asked: Asked[]
  readonly last: () => Asked
}

/** An upstream that answers everything alike, and remembers what it was asked. */
async function scripted(content_type: string, answer: string): Promise<Scripted> {
  const asked: Asked[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => void chunks.push(chunk))
    request.on('end', () => {
      asked.push({ path: request.url ?? '', headers: request.headers, body: JSON.parse(Buffer.concat(chunks).toString()) as Members })
      response.writeHead(200, { 'content-type': content_type }).end(answer)
    })
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  atEnd(() => void server.close())
  const last = (): Asked => {
    const found = asked.at(-1)
    if (found === undefined) throw new Error('nothing was asked')
    return found
  }
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, last }
}

const CHAT = { kind: 'chat', owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 100_000 }
const at = (url: string, provider: string, more: Members = {}, model: Members = {}): Members => ({
  ...CHAT,
  ...model,
  endpoints: [{ provider, base_url: url, api_key: 'key-id.key-secret', zone: 'private', ...more }],
})

const ANSWER = JSON.stringify({
  ...{ id: 'c', object: 'chat.completion', created: 7, model: 'up' },
  choices: [{ index: 0, message: { role: 'assistant', content: 'Hi there', reasoning: 'Hm' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 },
})
const STREAM =
  'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi there"},"finish_reason":null}]}\n\n' +
  'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\ndata: [DONE]\n\n'

async function eventOf(gateway: TestGateway, response: Response): Promise<unknown> {
  return gateway.event(response.headers.get('x-request-id'))
}

describe('credentials', () => {
  it('go out as each provider wants them, and the secret half of a pair never does', async () => {
    const upstream = await scripted('application/json', ANSWER)
    const gateway = await startGateway({
      models: {
        glm: at(upstream.url, 'zhipu'),
        nova: at(upstream.url, 'sensenova'),
        kimi: at(upstream.url, 'moonshot', { dialect: 'anthropic' }),
        hunyuan: at(upstream.url, 'hunyuan', { dialect: 'hunyuan_native' }),
        ernie: at(upstream.url, 'qianfan', { dialect: 'qianfan_v1', upstream_model: 'ernie 3.5' }),
        deepseek: at(upstream.url, 'deepseek'),
      },
    })
    const sent = async (model: string): Promise<Asked> => {
      expect([model, (await gateway.chat({ model })).status]).toEqual([model, 200])
      return upstream.last()
    }
    expect((await sent('glm')).headers.authorization).toMatch(/^Bearer [\w-]+\.[\w-]+\.[\w-]+$/)
    expect((await sent('nova')).headers.authorization).toMatch(/^Bearer [\w-]+\.[\w-]+\.[\w-]+$/)
    const kimi = await sent('kimi')
    expect([kimi.path, kimi.headers['x-api-key'], kimi.headers['anthropic-version'], kimi.headers.authorization]).toEqual([
      '/v1/messages',
      'key-id.key-secret',
      '2023-06-01',
      undefined,
    ])
    const hunyuan = await sent('hunyuan')
    expect([hunyuan.path, hunyuan.headers['x-tc-action'], hunyuan.headers['x-tc-version']]).toEqual(['/', 'ChatCompletions', '2023-09-01'])
    expect(hunyuan.headers.authorization).toMatch(/^TC3-HMAC-SHA256 Credential=key-id\//)
    const ernie = await sent('ernie')
    expect([ernie.path, ernie.headers.authorization]).toEqual([
      '/chat/ernie%203.5',
      expect.stringMatching(/^bce-auth-v1\/key-id\//) as unknown,
    ])
    expect((await sent('deepseek')).headers.authorization).toBe('Bearer key-id.key-secret')
    const secret = upstream.asked
      .slice(0, 2)
      .map(({ headers }) => JSON.stringify(headers))
      .join('')
    expect(secret).not.toContain('key-secret')
    expect(gateway.log_lines.join('')).not.toContain('key-secret')
  })
})

describe('what was changed for a target', () => {
  it('is told in a header, streamed or not, and the answer is that of the request as sent', async () => {
    const upstream = await scripted('text/event-stream', STREAM)
    const gateway = await startGateway({
      models: { kimi: at(upstream.url, 'moonshot', { upstream_model: 'kimi-k3' }, { max_output_tokens: 100 }) },
    })
    for (const stream of [false, true]) {
      const response = await gateway.chat({ model: 'kimi', stream, temperature: 0.3, max_tokens: 5000, thinking: { type: 'disabled' } })
      await response.text()
      expect(response.headers.get('x-weir-adjusted')).toBe('max_tokens=100, temperature=1.0, thinking=low')
      const { model, temperature, max_completion_tokens, max_tokens, reasoning_effort, thinking } = upstream.last().body
      expect([model, temperature, max_completion_tokens, max_tokens, reasoning_effort, thinking]).toEqual([
        'kimi-k3',
        1,
        100,
        undefined,
        'low',
        undefined,
      ])
    }
    const plain = await gateway.chat({ model: 'kimi', temperature: 1 })
    expect(plain.headers.get('x-weir-adjusted')).toBeNull()
    await plain.text()
  })

  it('a target that cannot do what was asked is passed over; where none can, the caller learns why', async () => {
    const gateway = await startGateway({
      models: {
        alone: at('http://127.0.0.1:1', 'minimax'),
        both: {
          ...CHAT,
          endpoints: [
            { id: 'both-a', provider: 'minimax', base_url: 'http://127.0.0.1:1', api_key: 'k', zone: 'private' },
            { id: 'both-b', provider: 'sandbox', base_url: `${(await startGateway()).sandbox.url}/b/v1`, tier: 2 },
          ],
        },
      },
    })
    const refused = await gateway.chat({ model: 'alone', n: 2 })
    expect([refused.status, await refused.json()]).toMatchObject([
      400,
      { error: { code: 'invalid_request', message: expect.stringContaining('n is 2') as unknown } },
    ])
    const answered = (await (await gateway.chat({ model: 'both', n: 2 })).json()) as { choices: unknown[] }
    expect(answered.choices).toHaveLength(2)
    await gateway.audit()
  })
})

describe('an upstream that answers in another manner than it was asked', () => {
  it('with JSON for a stream: a stream it is, billed as reported', async () => {
    const upstream = await scripted('application/json', ANSWER)
    const gateway = await startGateway({ models: { odd: at(upstream.url, 'yi') } })
    const response = await gateway.chat({ model: 'odd', stream: true, stream_options: { include_usage: true } })
    const text = await response.text()
    expect(response.headers.get('content-type')).toContain('text/event-stream')
    expect(readSse(text)).toMatchObject({ done_count: 1, error: null })
    expect(meaningOf(text)).toMatchObject({
      content: 'Hi there',
      reasoning: 'Hm',
      finish: 'stop',
      usage: { prompt_tokens: 7, completion_tokens: 3 },
    })
    expect(await eventOf(gateway, response)).toMatchObject({
      status: 'completed',
      usage_source: 'reported',
      tokens: { input: 7, output: 3 },
    })
  })

  it('with a stream for JSON: JSON it is', async () => {
    const upstream = await scripted('text/event-stream', STREAM)
    const gateway = await startGateway({ models: { odd: at(upstream.url, 'yi') } })
    const response = await gateway.chat({ model: 'odd' })
    expect(await response.json()).toMatchObject({
      ...{ object: 'chat.completion', model: 'odd', usage: { prompt_tokens: 7, completion_tokens: 3 } },
      choices: [{ message: { role: 'assistant', content: 'Hi there' }, finish_reason: 'stop' }],
    })
    expect(await eventOf(gateway, response)).toMatchObject({
      status: 'completed',
      usage_source: 'reported',
      tokens: { input: 7, output: 3 },
    })
  })

  it('with half a stream for JSON: a failure, and nothing is billed', async () => {
    const upstream = await scripted('text/event-stream', STREAM.slice(0, 120))
    const gateway = await startGateway({ models: { odd: at(upstream.url, 'yi') } })
    const response = await gateway.chat({ model: 'odd' })
    expect([response.status, await response.json()]).toMatchObject([502, { error: { code: 'upstream_error' } }])
    expect(await eventOf(gateway, response)).toMatchObject({ amount_nano: 0n })
  })

  it('a model that only streams is asked for a stream, and answers as it was asked', async () => {
    const upstream = await scripted('text/event-stream', STREAM)
    const gateway = await startGateway({ models: { qwq: at(upstream.url, 'qwen', { upstream_model: 'qwq-plus' }) } })
    const response = await gateway.chat({ model: 'qwq' })
    expect(((await response.json()) as { choices: { message: Members }[] }).choices[0]?.message['content']).toBe('Hi there')
    expect(upstream.last().body).toMatchObject({ stream: true, stream_options: { include_usage: true } })
    expect(upstream.last().headers.accept).toBe('text/event-stream')
  })
})

describe('embeddings and reranking', () => {
  const embedding = (url: string, batch: number): Members => ({
    ...{ kind: 'embeddings', owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 100_000 },
    endpoints: [{ provider: 'sandbox', base_url: `${url}/a/v1`, embeddings_batch: batch }],
  })

  it('more inputs than the provider takes are several requests, one answer and one event', async () => {
    const sandbox = (await startGateway({ sandbox: { embeddings_batch: 10 } })).sandbox
    const gateway = await startGateway({ models: { small: embedding(sandbox.url, 10), large: embedding(sandbox.url, 2048) } })
    const input = Array.from({ length: 95 }, (_, index) => `text number ${index}`)
    const response = await gateway.post('/v1/embeddings', { model: 'small', input, encoding_format: 'base64' })
    const answer = (await response.json()) as { data: { index: number; embedding: string }[]; usage: { prompt_tokens: number } }
    expect(answer.data.map(({ index }) => index)).toEqual(input.map((_, index) => index))
    const { totals } = sandbox.served()
    expect([totals.requests, totals.prompt_tokens]).toEqual([10, answer.usage.prompt_tokens])
    expect(await eventOf(gateway, response)).toMatchObject({
      tokens: { input: totals.prompt_tokens },
      usage_source: 'reported',
      protocol: 'embeddings',
    })
    expect((await gateway.audit()).events).toBe(1)
    const refused = await gateway.post('/v1/embeddings', { model: 'large', input })
    expect(refused.status).toBe(400)
  })

  it('if one part fails, all fails, and nothing is billed', async () => {
    const sandbox = (await startGateway({ sandbox: { embeddings_batch: 10, fail: { kind: 'refuse', status: 500, times: 1 } } })).sandbox
    const gateway = await startGateway({ models: { small: embedding(sandbox.url, 10) } })
    const response = await gateway.post('/v1/embeddings', { model: 'small', input: Array.from({ length: 95 }, () => 'x') })
    expect(response.status).toBe(502)
    expect(sandbox.served().totals.requests).toBeLessThan(10)
    expect((await gateway.audit()).amount_nano).toBe(0n)
  })

  const RANKER = { kind: 'rerank', owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 8192 }

  it('documents are ranked by POST /v1/rerank, metered by input tokens', async () => {
    const sandbox = (await startGateway()).sandbox
    const gateway = await startGateway({
      models: { ranker: { ...RANKER, endpoints: [{ provider: 'sandbox', base_url: `${sandbox.url}/v1` }] } },
    })
    const response = await gateway.post('/v1/rerank', { model: 'ranker', query: 'abc', documents: ['xyz', 'abc'], return_documents: true })
    expect(await response.json()).toMatchObject({
      model: 'ranker',
      results: [{ index: 1, relevance_score: 1, document: { text: 'abc' } }, { index: 0 }],
    })
    const tokens = sandbox.served().totals.prompt_tokens
    expect(await eventOf(gateway, response)).toMatchObject({
      protocol: 'rerank',
      tokens: { input: tokens, output: 0 },
      usage_source: 'reported',
    })
    expect(await gateway.get('/v1/models/ranker').then((answer) => answer.json())).toMatchObject({ kind: 'rerank' })
  })

  it.each([
    ['no documents', { query: 'q', documents: [] }, 'documents'],
    ['no query', { documents: ['a'] }, 'query'],
    ['a document of a number', { query: 'q', documents: [7] }, 'documents'],
  ])('refuses %s', async (_, body, param) => {
    const gateway = await startGateway({
      models: { ranker: { ...RANKER, endpoints: [{ provider: 'sandbox', base_url: 'http://127.0.0.1:1' }] } },
    })
    const response = await gateway.post('/v1/rerank', { model: 'ranker', ...body })
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { code: 'invalid_request', param: expect.stringContaining(param) as unknown } },
    ])
  })

  it('a model of another kind says where it is called', async () => {
    const gateway = await startGateway()
    const response = await gateway.post('/v1/rerank', { model: 'solo', query: 'q', documents: ['a'] })
    expect(await response.json()).toMatchObject({
      error: { code: 'invalid_request', message: expect.stringContaining('call /v1/chat/completions') as unknown },
    })
    expect((await gateway.post('/v1/chat/completions', { model: 'embed', messages: HELLO })).status).toBe(400)
  })

  it('usage in other forms is read: a total alone, or what Cohere and SiliconFlow say', async () => {
    const results = [{ index: 0, relevance_score: 0.5 }]
    for (const usage of [
      { usage: { total_tokens: 9 } },
      { meta: { tokens: { input_tokens: 9, output_tokens: 0 } } },
      { meta: { billed_units: { input_tokens: 9 } } },
    ]) {
      const upstream = await scripted('application/json', JSON.stringify({ id: 'r', results, ...usage }))
      const gateway = await startGateway({
        models: { ranker: { ...RANKER, endpoints: [{ provider: 'siliconflow', base_url: upstream.url, api_key: 'k', zone: 'private' }] } },
      })
      const response = await gateway.post('/v1/rerank', { model: 'ranker', query: 'q', documents: ['a'] })
      expect(upstream.last().path).toBe('/rerank')
      expect(await eventOf(gateway, response)).toMatchObject({ tokens: { input: 9 }, usage_source: 'reported' })
    }
  })
})
