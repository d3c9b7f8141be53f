import { request } from 'node:http'
import { expect, it } from 'vitest'
import { startGateway } from '../support/gateway.ts'
import { rawConnection } from '../support/raw-http.ts'
import { errorOf } from '../support/sse.ts'
import { waitFor } from '../support/wait.ts'

const SOON_MS = 20_000

async function exchange(url: string, bytes: string): Promise<string> {
  const connection = await rawConnection(url)
  connection.write(bytes)
  return connection.closed
}

it('a health check of HTTP/1.0 needs no Host', async () => {
  const { url } = await startGateway()
  for (const path of ['/healthz', '/readyz']) expect(await exchange(url, `GET ${path} HTTP/1.0\r\n\r\n`)).toMatch(/^HTTP\/1\.1 200 /)
})

it('OPTIONS * is answered', async () => {
  const { url } = await startGateway()
  expect(await exchange(url, 'OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 204 /)
})

it.each([
  ['no Host', 'GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n'],
  ['a Host that is none', 'GET /healthz HTTP/1.1\r\nhost: a b/c\r\nconnection: close\r\n\r\n'],
  ['an absolute URL that is none', 'GET http://[x/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'],
])('%s is refused in the usual shape', async (_, bytes) => {
  const { url } = await startGateway()
  const answer = await exchange(url, bytes)
  expect(answer).toMatch(/^HTTP\/1\.1 400 /)
  expect(answer).toContain('"code":"invalid_request"')
})

it('a wrong method is told the right ones', async () => {
  const gateway = await startGateway()
  const allowed = async (method: string, path: string): Promise<readonly [number, string | null]> => {
    const response = await fetch(gateway.url + path, { method })
    return [response.status, response.headers.get('allow')]
  }
  expect(await allowed('GET', '/v1/chat/completions')).toEqual([405, 'POST, OPTIONS'])
  expect(await allowed('DELETE', '/v1/models/solo')).toEqual([405, 'GET, HEAD, OPTIONS'])
  expect(await allowed('POST', '/healthz')).toEqual([405, 'GET, HEAD, OPTIONS'])
  expect(await allowed('GET', '/v1/nothing')).toEqual([404, null])
})

it('garbage after a request ends the connection without a byte in the middle of the answer', async () => {
  const gateway = await startGateway({ sandbox: { tokens: 50, fail: { kind: 'stall_middle', at: 5 } } })
  const body = JSON.stringify({ model: 'solo', messages: [{ role: 'user', content: 'hello' }], stream: true })
  const connection = await rawConnection(gateway.url)
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${gateway.key}\r\ncontent-length: ${body.length}\r\n\r\n`
  connection.write(head + body)
  await waitFor(async () => connection.received().includes('data: '), { timeout_ms: SOON_MS, what: 'the answer to begin' })
  connection.write('\x00\x01 garbage\r\n\r\n')
  const answer = await connection.closed
  expect(answer).toMatch(/^HTTP\/1\.1 200 /)
  expect(answer).not.toContain('HTTP/1.1 400')
})

it('a draining gateway lets go of the connections of its health checks', async () => {
  const gateway = await startGateway()
  gateway.plane.state.draining = true
  const connectionOf = (path: string): Promise<readonly [number | undefined, string | undefined]> =>
    new Promise((resolve, reject) => {
      const outgoing = request(gateway.url + path, { headers: { connection: 'keep-alive' } }, (response) => {
        response.resume()
        resolve([response.statusCode, response.headers.connection])
      })
      outgoing.on('error', reject).end()
    })
  expect(await connectionOf('/healthz')).toEqual([200, 'close'])
  expect(await connectionOf('/readyz')).toEqual([503, 'close'])
})

it('a lookup takes a place like any request, and gives it back', async () => {
  const gateway = await startGateway()
  const { max_open_requests, tenant_share_percent } = gateway.plane.snapshot().configuration.settings.limits
  const places: Array<() => void> = []
  try {
    for (;;) places.push(gateway.plane.open.enter(gateway.tenant, max_open_requests, tenant_share_percent))
  } catch {
    // Every place of the tenant is taken.
  }
  for (const path of ['/v1/usage', '/v1/models', '/v1/balance']) {
    const full = await gateway.get(path)
    expect([full.status, (await errorOf(full)).code]).toEqual([503, 'overloaded'])
  }
  for (const leave of places) leave()
  for (const path of ['/v1/usage', '/v1/models', '/v1/balance']) expect((await gateway.get(path)).status).toBe(200)
  expect(gateway.plane.open.total).toBe(0)
})

it('a flood of lookups that storage cannot take is told to wait, never that the gateway failed', async () => {
  const gateway = await startGateway()
  const one = `GET /v1/usage HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${gateway.key}\r\n`
  const answer = await exchange(gateway.url, `${one}\r\n`.repeat(3999) + `${one}connection: close\r\n\r\n`)
  const statuses = new Set(Array.from(answer.matchAll(/HTTP\/1\.1 (\d+) /g), ([, status]) => status))
  expect(statuses).toContain('200')
  expect(statuses).not.toContain('500')
})
