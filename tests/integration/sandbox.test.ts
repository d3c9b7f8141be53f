import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import OpenAI from 'openai'
import { beforeEach, describe, expect, test } from 'vitest'
import type { PartialDirectives } from '../../src/sandbox/directives.ts'
import { startSandbox, type Sandbox } from '../../src/sandbox/server.ts'
import { atEnd } from '../support/cleanup.ts'
import { spawnNode } from '../support/processes.ts'
import { waitFor } from '../support/wait.ts'

const TIMEOUT_MS = 10_000
const HELLO = [{ role: 'user' as const, content: 'hello' }]
const WEATHER = {
  type: 'function' as const,
  function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } },
}

const sandbox: Sandbox = await startSandbox({ port: 0 })
atEnd(() => sandbox.close())
beforeEach(() => sandbox.reset())

const openai = (prefix = '', max_retries = 0) =>
  new OpenAI({ baseURL: `${sandbox.url}${prefix}/v1`, apiKey: 'none', maxRetries: max_retries })

interface Seen {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
  /** The body came to its end, rather than breaking off. */
  readonly ended: boolean
}

/** Sends a chat request without any client's kindness. Resolves with what came before the end, the break or `give_up_ms`. */
async function raw(directives: PartialDirectives, options: { stream?: boolean; path?: string; id?: string; give_up_ms?: number } = {}) {
  const { stream = true, path = '/v1/chat/completions', id = 'r-1', give_up_ms } = options
  const body = JSON.stringify({ model: 'm', messages: HELLO, stream, input: 'x', sandbox: directives })
  return await new Promise<Seen | 'broken' | 'silent'>((resolve) => {
    const sent = httpRequest(`${sandbox.url}${path}`, {
      method: 'POST',
      agent: false,
      headers: { 'x-request-id': id, 'x-weir-attempt': '2' },
    })
    let seen: { status: number; headers: IncomingMessage['headers']; body: string } | null = null
    const finish = (ended: boolean, otherwise: 'broken' | 'silent'): void => {
      clearTimeout(timer)
      sent.destroy()
      resolve(seen === null ? otherwise : { ...seen, ended })
    }
    const timer = setTimeout(() => finish(false, 'silent'), give_up_ms ?? TIMEOUT_MS)
    sent.on('error', () => finish(false, 'broken'))
    sent.on('response', (response) => {
      const partial = { status: response.statusCode ?? 0, headers: response.headers, body: '' }
      seen = partial
      response.setEncoding('utf8')
      response.on('data', (piece: string) => (partial.body += piece))
      response.on('error', () => finish(false, 'broken'))
      response.on('end', () => finish(response.complete, 'broken'))
    })
    sent.end(body)
  })
}

async function answered(...given: Parameters<typeof raw>): Promise<Seen> {
  const seen = await raw(...given)
  if (typeof seen === 'string') throw new Error(`no answer: ${seen}`)
  return seen
}

/** The sandbox's row of a request, once it is closed. */
async function rowOf(request_id = 'r-1') {
  return await waitFor(() => sandbox.served({ request_id }).served.findLast((row) => row.ended_at !== null), {
    timeout_ms: TIMEOUT_MS,
    what: `the row of ${request_id}`,
  })
}
const contents = (body: string): number => body.match(/"content":"[^"]/g)?.length ?? 0

describe('the official SDK finds in the sandbox', () => {
  test('a chat model', async () => {
    const answer = await openai().chat.completions.create({ model: 'sandbox-chat', messages: HELLO })
    expect(answer.choices[0]?.message.content).toContain('"hello"')
    expect(answer.choices[0]?.finish_reason).toBe('stop')
    const row = sandbox.served().served[0]
    expect(row).toMatchObject({ sent_tokens: answer.usage?.completion_tokens, prompt_tokens: answer.usage?.prompt_tokens, finished: true })
  })

  test('the same text in a stream, with the usage that was asked for', async () => {
    const whole = await openai().chat.completions.create({ model: 'm', messages: HELLO })
    const stream = await openai().chat.completions.create({
      model: 'm',
      messages: HELLO,
      stream: true,
      stream_options: { include_usage: true },
    })
    let text = ''
    let usage = null
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? ''
      usage = chunk.usage ?? usage
    }
    expect(text).toBe(whole.choices[0]?.message.content)
    expect(usage).toEqual(whole.usage)
  })

  test('tools, in a stream and whole', async () => {
    const given = { model: 'm', tools: [WEATHER], messages: [{ role: 'user' as const, content: 'Weather in Paris please' }] }
    const whole = await openai().chat.completions.create(given)
    const runner = openai().chat.completions.stream(given)
    const streamed = await runner.finalChatCompletion()
    for (const answer of [whole, streamed]) {
      expect(answer.choices[0]?.finish_reason).toBe('tool_calls')
      const call = answer.choices[0]?.message.tool_calls?.[0]
      expect(call).toMatchObject({ function: { name: 'get_weather', arguments: '{"city":"Paris"}' } })
    }
  })

  test('embeddings, alike in both encodings', async () => {
    const [floats, packed] = await Promise.all([
      openai().embeddings.create({ model: 'e', input: ['发票', 'b'], dimensions: 32, encoding_format: 'float' }),
      openai().embeddings.create({ model: 'e', input: ['发票', 'b'], dimensions: 32 }),
    ])
    expect(floats.data.map((one) => one.embedding)).toEqual(packed.data.map((one) => one.embedding))
    expect(floats.data[0]?.embedding).toHaveLength(32)
    expect(floats.usage).toEqual({ prompt_tokens: 3, total_tokens: 3 })
  })

  test('models, and an error it understands', async () => {
    const models = await openai().models.list()
    expect(models.data.map((model) => model.id)).toEqual(['sandbox-chat', 'sandbox-embedding'])
    await expect(openai().chat.completions.create({ model: 'm', messages: [] })).rejects.toMatchObject({ status: 400, param: 'messages' })
  })

  test('every layout, with thinking', async () => {
    const texts: string[] = []
    for (const layout of ['openai', 'deepseek', 'qwen', 'moonshot', 'minimax', 'stepfun', 'vllm']) {
      const given = { model: 'm', messages: HELLO, stream: true as const, sandbox: { layout, reasoning_tokens: 3, tokens: 10 } }
      let text = ''
      for await (const chunk of await openai().chat.completions.create(given)) text += chunk.choices[0]?.delta.content ?? ''
      texts.push(text)
    }
    expect(texts).toEqual(Array.from({ length: 7 }, () => 'Hello from the Weir sandbox model. You said:'))
    expect(sandbox.served().totals).toMatchObject({ finished: 7, sent_tokens: 7 * 13, reasoning_tokens: 21 })
  })

  test('an answer after two failures, when it retries', async () => {
    const given = { model: 'm', messages: HELLO, sandbox: { fail: { kind: 'refuse', times: 2 } } }
    const answer = await openai('', 2).chat.completions.create(given, { headers: { 'x-request-id': 'retried' } })
    expect(answer.choices).toHaveLength(1)
    expect(sandbox.served({ request_id: 'retried' }).served.map((row) => row.status)).toEqual([503, 503, 200])
  })
})

describe('a failure that was asked for', () => {
  test('refuses with any status and body', async () => {
    const seen = await answered({ fail: { kind: 'refuse', status: 402, body: '{"arrears":1}' } })
    expect(seen).toMatchObject({ status: 402, body: '{"arrears":1}', ended: true })
    expect(await rowOf()).toMatchObject({ status: 402, sent_tokens: 0, finished: false, aborted: false, directive: 'refuse', attempt: 2 })
  })

  test('limits the rate, saying when to come back or not', async () => {
    const told = await answered({ fail: { kind: 'rate', retry_after: 7 } })
    expect(told).toMatchObject({ status: 429, headers: { 'retry-after': '7' } })
    const untold = await answered({ fail: { kind: 'rate' } })
    expect(untold.status).toBe(429)
    expect(untold.headers['retry-after']).toBeUndefined()
  })

  test('stalls before the headers', async () => {
    expect(await raw({ fail: { kind: 'stall_before_headers' } }, { give_up_ms: 200 })).toBe('silent')
    expect(await rowOf()).toMatchObject({ status: null, aborted: true, finished: false, sent_tokens: 0 })
  })

  test('stalls after the headers', async () => {
    const seen = await answered({ fail: { kind: 'stall_before_first' } }, { give_up_ms: 200 })
    expect(seen).toMatchObject({ status: 200, body: '', ended: false })
    expect(await rowOf()).toMatchObject({ status: 200, aborted: true, sent_tokens: 0 })
  })

  test('stalls in the middle, and ends even if nobody leaves', async () => {
    const seen = await answered({ fail: { kind: 'stall_middle', at: 4, stall_ms: 100 } })
    expect(contents(seen.body)).toBe(4)
    expect(seen.ended).toBe(false)
    expect(await rowOf()).toMatchObject({ sent_tokens: 4, aborted: false, finished: false })
  })

  test('cuts the connection before the headers', async () => {
    expect(await raw({ fail: { kind: 'cut_before_headers' } })).toBe('broken')
    expect(await rowOf()).toMatchObject({ status: null, aborted: false, finished: false })
  })

  test.each(['each', 'corked'] as const)('cuts the connection in the middle, writing %s', async (writes) => {
    const seen = await answered({ writes, fail: { kind: 'cut_middle', at: 5 } })
    expect(contents(seen.body)).toBe(5)
    expect(seen.ended).toBe(false)
    expect(await rowOf()).toMatchObject({ sent_tokens: 5, finished: false, aborted: false })
  })

  test('ends the body cleanly without finishing the answer', async () => {
    const seen = await answered({ fail: { kind: 'end_middle', at: 5 } })
    expect(contents(seen.body)).toBe(5)
    expect(seen.ended).toBe(true)
    expect(seen.body).not.toContain('[DONE]')
    expect(await rowOf()).toMatchObject({ sent_tokens: 5, finished: false, aborted: false })
  })

  test.each([true, false])('tells an error inside the stream (then [DONE]: %s)', async (done) => {
    const seen = await answered({ fail: { kind: 'error_event', at: 2, done } })
    expect(contents(seen.body)).toBe(2)
    expect(seen.body).toContain('data: {"error":{"message"')
    expect(seen.body.includes('[DONE]')).toBe(done)
    expect(await rowOf()).toMatchObject({ sent_tokens: 2, finished: false })
  })

  test('breaks the JSON of one event and goes on', async () => {
    const seen = await answered({ fail: { kind: 'malformed_json', at: 2 } })
    const broken = seen.body.split('\n\n').filter((event) => event.startsWith('data: {') && !event.endsWith('}'))
    expect(broken).toHaveLength(1)
    expect(seen.body).toContain('[DONE]')
  })

  test.each([
    ['error_in_200', 200, 'application/json', /^\{"error"/],
    ['html_page', 200, 'text/html', /^<!doctype html>/],
    ['wrong_content_type', 200, 'text/plain', /data: \[DONE\]\n\n$/],
  ] as const)('answers with %s', async (kind, status, type, body) => {
    const seen = await answered({ fail: { kind } })
    expect(seen.status).toBe(status)
    expect(seen.headers['content-type']).toBe(type)
    expect(seen.body).toMatch(body)
  })

  test('sends its headers late', async () => {
    expect(await raw({ fail: { kind: 'slow_headers', delay_ms: 60_000 } }, { give_up_ms: 200 })).toBe('silent')
    const seen = await answered({ fail: { kind: 'slow_headers', delay_ms: 20 } })
    expect(seen.body).toContain('[DONE]')
  })

  test.each(['bad_whole', 'end_middle', 'malformed_json'] as const)('breaks a whole answer with %s', async (kind) => {
    const seen = await answered({ fail: { kind } }, { stream: false })
    expect(seen.ended).toBe(true)
    expect(() => JSON.parse(seen.body) as unknown).toThrow(SyntaxError)
    expect(await rowOf()).toMatchObject({ sent_tokens: 0, finished: false })
  })

  test('cuts a whole answer in half', async () => {
    const seen = await answered({ fail: { kind: 'cut_middle' } }, { stream: false })
    expect(seen.body.length).toBe(Number(seen.headers['content-length']) >> 1)
    expect(seen.ended).toBe(false)
  })

  test('comes at the end of an answer that is shorter than its place', async () => {
    const seen = await answered({ tokens: 3, fail: { kind: 'cut_middle', at: 50 } })
    expect(contents(seen.body)).toBe(3)
    expect(seen.body).not.toContain('"finish_reason":"stop"')
  })

  test('is for one prefix or endpoint only', async () => {
    const fail = { kind: 'refuse', only_prefix: 'a' } as const
    expect((await answered({ fail }, { path: '/a/v1/chat/completions' })).status).toBe(503)
    expect((await answered({ fail }, { path: '/b/v1/chat/completions' })).status).toBe(200)
    expect((await answered({ fail: { kind: 'refuse', endpoint: 'embeddings' } })).status).toBe(200)
    expect((await answered({ fail: { kind: 'refuse', endpoint: 'embeddings' } }, { path: '/embeddings' })).status).toBe(503)
  })

  test('happens a number of times per request id', async () => {
    const fail = { kind: 'refuse', times: 1 } as const
    const statuses = []
    for (const id of ['x', 'y', 'x', 'y', 'x']) statuses.push((await answered({ fail }, { id })).status)
    expect(statuses).toEqual([503, 503, 200, 200, 200])
  })
})

describe('the sandbox counts', () => {
  test('what it had written when the client left', async () => {
    const controller = new AbortController()
    const given = { model: 'm', messages: HELLO, stream: true as const, sandbox: { tokens: 10_000, token_delay_ms: 2 } }
    const stream = await openai().chat.completions.create(given, {
      signal: controller.signal,
      headers: { 'x-request-id': 'gone' },
    })
    let received = 0
    for await (const chunk of stream) {
      if ((chunk.choices[0]?.delta.content ?? '') !== '') received += 1
      if (received === 20) controller.abort()
    }
    const row = await rowOf('gone')
    expect(row).toMatchObject({ aborted: true, finished: false, stream: true, status: 200 })
    expect(row.sent_tokens).toBeGreaterThanOrEqual(20)
    expect(row.sent_tokens).toBeLessThan(10_000)
  })

  test('by pieces written, whatever usage it is told to report', async () => {
    const seen = await answered({ tokens: 12, shape: 'finish_chunk', report: { completion_tokens: 99_999 } })
    expect(seen.body).toContain('"completion_tokens":99999')
    expect(await rowOf()).toMatchObject({ sent_tokens: 12, finished: true })
  })

  test('no further than a slow reader reads', async () => {
    const padding = 60_000
    const body = JSON.stringify({ model: 'm', messages: HELLO, stream: true, sandbox: { tokens: 5_000, bytes_per_token: padding } })
    const socket = connect(sandbox.port, '127.0.0.1')
    atEnd(() => {
      socket.destroy()
    })
    socket.pause()
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: slow\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
    const written = () => sandbox.served({ request_id: 'slow' }).served[0]?.sent_tokens ?? 0
    let last = -1
    await waitFor(
      async () => {
        const before = last
        await new Promise((resolve) => setTimeout(resolve, 100))
        last = written()
        return last > 0 && last === before
      },
      { timeout_ms: TIMEOUT_MS, what: 'the writes to stop' },
    )
    expect(last).toBeLessThan(1_000)
    socket.destroy()
    expect(await rowOf('slow')).toMatchObject({ aborted: true, finished: false })
  })

  test('and gives its count over HTTP, page by page, until it is reset', async () => {
    for (const id of ['a', 'b', 'c']) await answered({ tokens: 2, cached_tokens: 1 }, { id })
    await rowOf('c')
    const get = async (query: string) => (await fetch(`${sandbox.url}/sandbox/served${query}`)).json()
    expect(await get('?limit=2')).toMatchObject({
      served: [{ request_id: 'a' }, { request_id: 'b' }],
      next: 2,
      totals: { requests: 3, sent_tokens: 6 },
    })
    expect(await get('?since=2')).toMatchObject({ served: [{ request_id: 'c', sent_tokens: 2, cached_tokens: 1 }], next: null })
    expect(await get('?request_id=b')).toMatchObject({ served: [{ request_id: 'b' }] })
    expect((await fetch(`${sandbox.url}/sandbox/served?since=x`)).status).toBe(400)
    await fetch(`${sandbox.url}/sandbox/served`, { method: 'DELETE' })
    expect(await get('')).toMatchObject({ served: [], totals: { requests: 0 } })
  })
})

describe('the sandbox', () => {
  test('has finished once a client has seen [DONE], even one that leaves at that very moment', async () => {
    for (const writes of ['each', 'corked']) {
      for (let round = 0; round < 20; round += 1) {
        const sent = JSON.stringify({ model: 'm', messages: HELLO, stream: true, sandbox: { tokens: 3, writes } })
        const response = await fetch(`${sandbox.url}/v1/chat/completions`, { method: 'POST', body: sent })
        let seen = ''
        for await (const part of response.body ?? []) {
          seen += Buffer.from(part).toString()
          if (seen.includes('[DONE]')) break
        }
      }
    }
    expect(sandbox.served().totals).toMatchObject({ requests: 40, finished: 40, aborted: 0, open: 0, sent_tokens: 120 })
  })

  test('replays an exact body in the writes that were asked for', async () => {
    const body = 'data: {"choices":[]}\r\n\r\ndata:堰\n\n'
    const parts: Buffer[] = []
    const socket = connect(sandbox.port, '127.0.0.1')
    const asked = JSON.stringify({
      model: 'm',
      messages: HELLO,
      sandbox: { raw: Buffer.from(body).toString('base64'), split: { every: 5 } },
    })
    socket.on('data', (part: Buffer) => parts.push(part))
    socket.write(`POST /chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: ${asked.length}\r\n\r\n${asked}`)
    await new Promise((resolve) => socket.once('close', resolve))
    const whole = Buffer.concat(parts).toString('latin1')
    const sizes = [...whole.matchAll(/(?:\r\n\r\n|\r\n)(5|[1-4])\r\n/g)].map((match) => Number(match[1]))
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(Buffer.byteLength(body))
    expect(sizes.slice(0, -1).every((size) => size === 5)).toBe(true)
  })

  test('takes directives from the header, below those of the body', async () => {
    const sent = { model: 'm', messages: HELLO, sandbox: { tokens: 2 } }
    const headers = { 'x-sandbox': '{"tokens":1,"cached_tokens":3}' }
    const response = await fetch(`${sandbox.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(sent), headers })
    expect(await response.json()).toMatchObject({ usage: { completion_tokens: 2, prompt_tokens_details: { cached_tokens: 3 } } })
  })

  test.each([
    ['no JSON', '/v1/chat/completions', '{', {}, 400],
    ['an unknown directive', '/v1/chat/completions', '{"sandbox":{"x":1}}', {}, 400],
    ['a broken header', '/v1/chat/completions', '{}', { 'x-sandbox': '{' }, 400],
    ['an unknown path', '/v1/audio', '{}', {}, 404],
    ['a rerank without documents', '/v1/rerank', '{"model":"m","query":"q"}', {}, 400],
    ['a provider nobody knows', '/as/nobody/v1/chat/completions', '{}', {}, 400],
    ['a wrong method', '/v1/models', '{}', {}, 405],
  ])('refuses %s', async (_, path, body, headers, status) => {
    const response = await fetch(`${sandbox.url}${path}`, { method: 'POST', body, headers })
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ error: { code: 'invalid_request' } })
  })

  test('refuses a body that is announced as too large', async () => {
    const socket = connect(sandbox.port, '127.0.0.1')
    socket.write('POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 67108865\r\n\r\n')
    const first = await new Promise<Buffer>((resolve) => socket.once('data', resolve))
    expect(first.toString()).toMatch(/^HTTP\/1.1 413/)
    socket.destroy()
  })

  test('closes promptly, whatever is stalled', async () => {
    const own = await startSandbox({ port: 0, defaults: { fail: { kind: 'stall_before_headers' } } })
    const stalled = fetch(`${own.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', messages: HELLO }) })
    const outcome = stalled.then(
      () => 'answered',
      () => 'broken',
    )
    await waitFor(() => own.served().totals.open === 1, { timeout_ms: TIMEOUT_MS, what: 'the request' })
    await own.close()
    expect(await outcome).toBe('broken')
  })

  test('runs alone, prints its URL and ends on SIGTERM', async () => {
    const program = spawnNode('src/sandbox/main.ts', ['--port', '0', '--tokens', '4', '--layout', 'vllm', '--no-done'])
    const [, url = ''] = await program.waitForOutput(/listening on (http:\S+)/, TIMEOUT_MS)
    const sent = { method: 'POST', body: JSON.stringify({ model: 'm', messages: HELLO, stream: true }) }
    const body = await (await fetch(`${url}/v1/chat/completions`, sent)).text()
    expect(contents(body)).toBe(4)
    expect(body).not.toContain('[DONE]')
    expect(await program.stop()).toEqual({ code: 0, signal: null })
  })

  test('explains itself, and refuses what it does not understand', async () => {
    const help = spawnNode('src/sandbox/main.ts', ['--help'])
    expect(await help.exited).toMatchObject({ code: 0 })
    expect(help.stdout()).toContain('--token-delay-ms')
    const wrong = spawnNode('src/sandbox/main.ts', ['--shape', 'ring'])
    expect(await wrong.exited).toMatchObject({ code: 1 })
    expect(wrong.stderr()).toContain('own_chunk')
  })
})
