import { request } from 'node:http'
import { expect, it } from 'vitest'
import { HELLO, startGateway, type TestGateway } from '../support/gateway.ts'
import { rawConnection } from '../support/raw-http.ts'
import { errorOf, type ErrorObject } from '../support/sse.ts'
import { waitFor } from '../support/wait.ts'

const PATH = '/v1/chat/completions'
const SOON_MS = 20_000

/** Nothing was held, journalled, billed or sent; and the gateway still answers. */
async function untouched(gateway: TestGateway): Promise<void> {
  expect(gateway.sandbox.served().totals.requests).toBe(0)
  expect(await gateway.audit()).toEqual({ events: 0, amount_nano: 0n })
  const { available_nano, held_nano } = await gateway.storage.limits.balance(gateway.tenant)
  expect([available_nano, held_nano]).toEqual([1000_000_000_000n, 0n])
  const { metrics } = gateway.plane
  const closed = async (): Promise<boolean> => (await metrics.render()).includes('\nweir_open_requests 0\n')
  await waitFor(closed, { timeout_ms: SOON_MS, what: 'every request to be closed in the metrics' })
  expect((await metrics.render()).includes('code="internal_error"')).toBe(false)
  expect((await gateway.chat({})).status).toBe(200)
}

const body = (more: object): string => JSON.stringify({ model: 'solo', messages: HELLO, ...more })
const NOT_A_REQUEST: ReadonlyArray<readonly [string, string | Buffer]> = [
  ['an empty body', ''],
  ['broken JSON', '{"model":"solo","messages":[}'],
  ['a body that stops', '{"model":"solo","messages":[{"role":"user","content":"hel'],
  ['two values', `${body({})}{}`],
  ['a list', '[]'],
  ['a string', '"solo"'],
  ['a number', '1'],
  ['null', 'null'],
  ['nothing in it', '{}'],
  ['no messages', '{"model":"solo"}'],
  ['no model', JSON.stringify({ messages: HELLO })],
  ['a model that is a number', body({ model: 7 })],
  ['an empty model', body({ model: '' })],
  ['a model of 10,000 characters', body({ model: 'x'.repeat(10_000) })],
  ['messages that are a string', body({ messages: 'hello' })],
  ['empty messages', body({ messages: [] })],
  ['a message that is null', body({ messages: [null] })],
  ['a message without a role', body({ messages: [{ content: 'x' }] })],
  ['stream: "yes"', body({ stream: 'yes' })],
  ['stream: 1', body({ stream: 1 })],
  ['stream_options: true', body({ stream: true, stream_options: true })],
  ['include_usage: "yes"', body({ stream: true, stream_options: { include_usage: 'yes' } })],
  ['n = 0', body({ n: 0 })],
  ['n = 129', body({ n: 129 })],
  ['n = 1.5', body({ n: 1.5 })],
  ['max_tokens = 0', body({ max_tokens: 0 })],
  ['max_tokens = -1', body({ max_tokens: -1 })],
  ['max_tokens = 1.5', body({ max_tokens: 1.5 })],
  ['max_tokens = 1e99', body({}).replace(/}$/, ',"max_tokens":1e99}')],
  ['max_tokens = 1e999', body({}).replace(/}$/, ',"max_tokens":1e999}')],
  ['max_completion_tokens = 0', body({ max_completion_tokens: 0 })],
  ['temperature: "hot"', body({ temperature: 'hot' })],
  ['user: 1', body({ user: 1 })],
  ['tools: {}', body({ tools: {} })],
  ['nesting 100,000 deep', `{"model":"solo","messages":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
  ['objects 100,000 deep', `{"model":"solo","messages":[{"role":"user","content":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}]}`],
]

it('every body that is no request is refused as one, naming no content', async () => {
  const gateway = await startGateway()
  for (const [name, sent] of NOT_A_REQUEST) {
    const response = await gateway.post(PATH, sent)
    const { code, request_id, message } = await errorOf(response)
    expect([name, response.status, code]).toEqual([name, 400, 'invalid_request'])
    expect(request_id).toBe(response.headers.get('x-request-id'))
    expect(message.length).toBeLessThan(1000)
    expect(response.headers.get('x-should-retry')).toBe('false')
  }
  await untouched(gateway)
})

it.each([
  ['model', '"model":"pair"'],
  ['model', String.raw`"\u006dodel":"pair"`],
  ['messages', '"messages":[{"role":"user","content":"x"}]'],
  ['stream', '"stream":false,"stream":true'],
  ['n', '"n":50,"n":1'],
  ['max_tokens', '"max_tokens":100000,"max_tokens":1'],
  ['max_tokens', '"temperature":1,"temperature":1,"max_tokens":100000,"max_tokens":null'],
  ['tools', '"tools":[],"tools":[]'],
])('%s given twice is refused, since the upstream may take the other one: %s', async (name, members) => {
  const gateway = await startGateway()
  const response = await gateway.post(PATH, body({}).replace(/}$/, `,${members}}`))
  expect(response.status).toBe(400)
  const { code, param, message } = await errorOf(response)
  expect({ code, param }).toEqual({ code: 'invalid_request', param: name })
  expect(message).toContain(`${name} is given twice`)
  await untouched(gateway)
})

it('input given twice is refused for embeddings too', async () => {
  const gateway = await startGateway()
  const response = await gateway.post('/v1/embeddings', '{"model":"embed","input":["a","b"],"input":"a"}')
  expect(await errorOf(response)).toMatchObject({ code: 'invalid_request', param: 'input' })
  await untouched(gateway)
})

it('an embeddings body that is no request is refused as one', async () => {
  const gateway = await startGateway()
  for (const input of ['', [], [''].slice(1), null, 7, {}, [[]], ['x', 1], [-1], [1.5]]) {
    const response = await gateway.post('/v1/embeddings', { model: 'embed', input })
    expect([JSON.stringify(input), response.status, (await errorOf(response)).code]).toEqual([
      JSON.stringify(input),
      400,
      'invalid_request',
    ])
  }
  await untouched(gateway)
})

/** Sends exact bytes with a client that lets a test send any. */
function sendBytes(
  gateway: TestGateway,
  bytes: Buffer,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ status: number; error: ErrorObject | null; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      gateway.url + PATH,
      { method: 'POST', headers: { authorization: `Bearer ${gateway.key}`, ...headers } },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          resolve({ status: response.statusCode ?? 0, error: (JSON.parse(text) as { error?: ErrorObject }).error ?? null, text })
        })
      },
    )
    outgoing.on('error', reject)
    outgoing.end(bytes)
  })
}

it('invalid UTF-8 and lone surrogates give a stable answer, never a failure of the gateway', async () => {
  const gateway = await startGateway()
  const [before, after] = body({ messages: [{ role: 'user', content: '@@' }] }).split('@@') as [string, string]
  const statuses: number[] = []
  for (const middle of [
    Buffer.of(0xff, 0xfe),
    Buffer.of(0xc3),
    Buffer.of(0xed, 0xa0, 0x80),
    Buffer.from(String.raw`\ud800`),
    Buffer.from(String.raw`\udfff\ud800`),
  ]) {
    const { status } = await sendBytes(gateway, Buffer.concat([Buffer.from(before), middle, Buffer.from(after)]))
    statuses.push(status)
  }
  expect(statuses.filter((status) => status !== 200 && status !== 400)).toEqual([])
  await gateway.audit()
  expect((await gateway.chat({})).status).toBe(200)
})

const TOO_MANY_BYTES = 100 * 1024 * 1024

it.each([
  ['its own key', 413, 'request_too_large', {}],
  ['a wrong key', 401, 'invalid_api_key', { authorization: 'Bearer sk-weir-wrong' }],
] as const)('a declared body of 100 MB with %s is refused, and the refusal can be read', async (_, status, code, headers) => {
  const gateway = await startGateway()
  const answer = await sendBytes(gateway, Buffer.alloc(TOO_MANY_BYTES, 0x20), headers)
  expect([answer.status, answer.error?.code]).toEqual([status, code])
  await untouched(gateway)
})

it.each([
  ['its own key', 413, 'request_too_large', true],
  ['a wrong key', 401, 'invalid_api_key', false],
] as const)('a chunked body of 100 MB with %s is refused, and the refusal can be read', async (_, status, code, right_key) => {
  const gateway = await startGateway()
  const piece = Buffer.alloc(1024 * 1024, 0x20)
  const answer = await new Promise<{ status: number; text: string }>((resolve, reject) => {
    const authorization = `Bearer ${right_key ? gateway.key : 'sk-weir-wrong'}`
    const outgoing = request(
      gateway.url + PATH,
      { method: 'POST', headers: { authorization, 'transfer-encoding': 'chunked' } },
      (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      },
    )
    outgoing.on('error', reject)
    let sent = 0
    const more = (): void => {
      while (sent < TOO_MANY_BYTES) {
        sent += piece.length
        if (!outgoing.write(piece)) return void outgoing.once('drain', more)
      }
      outgoing.end()
    }
    more()
  })
  expect([answer.status, (JSON.parse(answer.text) as { error: ErrorObject }).error.code]).toEqual([status, code])
  await untouched(gateway)
})

it('a client that sends 100 MB and reads nothing until the end still gets to see the refusal', async () => {
  const gateway = await startGateway({ settings: { limits: { max_body_bytes: 1024 } } })
  const answer = await sendBytes(gateway, Buffer.alloc(20 * 1024 * 1024, 0x20))
  expect([answer.status, answer.error?.code]).toEqual([413, 'request_too_large'])
  await untouched(gateway)
})

it('keys that are missing, wrong, malformed, expired or revoked are told apart and nothing is looked at', async () => {
  const gateway = await startGateway()
  const expired = await gateway.account({ key: { expires_at: 1 } })
  const revoked = await gateway.account()
  await gateway.revoke(revoked.key)
  const suspended = await gateway.account({ tenant: { status: 'suspended' } })
  const cases: ReadonlyArray<readonly [Record<string, string>, number, string]> = [
    [{ authorization: '' }, 401, 'invalid_api_key'],
    [{ authorization: 'Bearer' }, 401, 'invalid_api_key'],
    [{ authorization: 'Bearer sk-weir-wrong' }, 401, 'invalid_api_key'],
    [{ authorization: `Basic ${gateway.key}` }, 401, 'invalid_api_key'],
    [{ authorization: `Bearer ${gateway.key} x` }, 401, 'invalid_api_key'],
    [{ authorization: `Bearer ${'x'.repeat(5000)}` }, 401, 'invalid_api_key'],
    [{ authorization: `Bearer ${expired.secret}` }, 401, 'key_expired'],
    [{ authorization: `Bearer ${revoked.secret}` }, 401, 'key_revoked'],
    [{ authorization: `Bearer ${suspended.secret}` }, 403, 'tenant_suspended'],
  ]
  for (const [headers, status, code] of cases) {
    const response = await gateway.post(PATH, 'not even JSON', headers)
    expect([headers, response.status, (await errorOf(response)).code]).toEqual([headers, status, code])
  }
  expect((await gateway.chat({}, { authorization: '', 'x-api-key': gateway.key })).status).toBe(200)
})

it.each([
  ['POST', '/v1/nothing', 404, 'not_found'],
  ['GET', '/', 404, 'not_found'],
  ['GET', '/v1/chat/completions', 405, 'method_not_allowed'],
  ['DELETE', '/v1/models', 405, 'method_not_allowed'],
  ['PUT', '/v1/embeddings', 405, 'method_not_allowed'],
  ['GET', '/v1/../../etc/passwd', 404, 'not_found'],
  ['GET', '/v1/models/%00%ff', 404, 'model_not_found'],
  ['GET', `/v1/${'x'.repeat(5000)}`, 404, 'not_found'],
])('%s %s is %i %s', async (method, path, status, code) => {
  const gateway = await startGateway()
  const response = await fetch(gateway.url + path, { method, headers: { authorization: `Bearer ${gateway.key}` } })
  expect([response.status, (await errorOf(response)).code]).toEqual([status, code])
  await untouched(gateway)
})

it('an unknown model is 404 and makes no series of its own', async () => {
  const gateway = await startGateway()
  for (const model of ['gpt-none', '../../etc', 'a"b\nc{}', '堰', 'toString', '__proto__']) {
    const response = await gateway.chat({ model })
    expect([model, response.status, (await errorOf(response)).code]).toEqual([model, 404, 'model_not_found'])
  }
  const metrics = await gateway.plane.metrics.render()
  expect(
    [...metrics.matchAll(/model="([^"]*)"/g)]
      .map(([, model]) => model)
      .filter((model) => !['unknown', 'solo', 'pair', 'embed'].includes(model ?? '')),
  ).toEqual([])
  expect(metrics).toContain('model="unknown"')
  await untouched(gateway)
})

it('a prompt beyond the context of the model is refused before it is sent', async () => {
  const gateway = await startGateway({ models: { solo: { context_tokens: 1000, max_output_tokens: 100 } } })
  const response = await gateway.chat({ messages: [{ role: 'user', content: 'word '.repeat(5000) }] })
  expect([response.status, (await errorOf(response)).code]).toEqual([400, 'context_length_exceeded'])
  await untouched(gateway)
})

const HEAD = `POST ${PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`

it.each([
  ['one huge header', `x-huge: ${'x'.repeat(100_000)}\r\n`, ' 431 ', 'headers_too_large'],
  ['ten thousand headers', 'x-a: b\r\n'.repeat(10_000), ' 431 ', 'headers_too_large'],
  ['a header that is none', 'no colon here\r\n', ' 400 ', 'invalid_request'],
  ['two lengths', 'content-length: 5\r\ncontent-length: 6\r\n', ' 400 ', 'invalid_request'],
  ['a length and chunks', 'content-length: 5\r\ntransfer-encoding: chunked\r\n', ' 400 ', 'invalid_request'],
])('%s is refused in the usual shape and the connection closed', async (_, headers, status, code) => {
  const gateway = await startGateway()
  const connection = await rawConnection(gateway.url)
  connection.write(`${HEAD}authorization: Bearer ${gateway.key}\r\n${headers}\r\n`)
  const answer = await connection.closed
  expect(answer.slice(0, 20)).toContain(status)
  expect(answer).toContain(`"code":"${code}"`)
  await untouched(gateway)
})

it('1,500 small headers are within the size but not beyond what is looked at', async () => {
  const gateway = await startGateway()
  const connection = await rawConnection(gateway.url)
  connection.write(
    `GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer ${gateway.key}\r\n${'a: b\r\n'.repeat(1500)}\r\n`,
  )
  expect((await connection.closed).slice(0, 20)).toMatch(/ (200|431) /)
  await untouched(gateway)
})

const IMPATIENT = { limits: { headers_timeout_ms: 500, request_timeout_ms: 1000 } }

it('headers that drip in are given up', async () => {
  const gateway = await startGateway({ settings: IMPATIENT })
  const connection = await rawConnection(gateway.url)
  connection.write(HEAD)
  const drip = setInterval(() => connection.write('x-a: b\r\n'), 100)
  const answer = await connection.closed
  clearInterval(drip)
  expect(answer).toContain(' 408 ')
  expect(answer).toContain('"code":"request_timeout"')
  await untouched(gateway)
})

it.each(['a valid key', 'a wrong key'])('a body that drips in is given up (%s)', async (which) => {
  const gateway = await startGateway({ settings: IMPATIENT })
  const connection = await rawConnection(gateway.url)
  connection.write(`${HEAD}authorization: Bearer ${which === 'a valid key' ? gateway.key : 'wrong'}\r\ncontent-length: 1000000\r\n\r\n{`)
  const drip = setInterval(() => connection.write(' '), 100)
  const answer = await connection.closed
  clearInterval(drip)
  expect(answer.slice(0, 20)).toMatch(which === 'a valid key' ? / 408 / : / 401 /)
  await untouched(gateway)
})

it('a client that leaves in the middle of its body leaves nothing behind', async () => {
  const gateway = await startGateway()
  const connection = await rawConnection(gateway.url)
  connection.write(`${HEAD}authorization: Bearer ${gateway.key}\r\ncontent-length: 1000\r\n\r\n{"model":`)
  await waitFor(() => gateway.plane.open.total === 1, { timeout_ms: SOON_MS, what: 'the request to be open' })
  connection.socket.destroy()
  await untouched(gateway)
})
