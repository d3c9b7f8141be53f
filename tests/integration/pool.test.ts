import { execFileSync } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createHttpsServer } from 'node:https'
import type { ServerOptions } from 'node:https'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { UpstreamFailure } from '../../src/upstream/failure.ts'
import { createTransport } from '../../src/upstream/pool.ts'
import type { PoolOptions } from '../../src/upstream/pool.ts'
import { proxyFor } from '../../src/upstream/proxy.ts'
import type { ByteSource, Transport, TransportOptions, UpstreamRequest, UpstreamTimeouts } from '../../src/upstream/source.ts'
import { atEnd } from '../support/cleanup.ts'
import { freePort } from '../support/ports.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

const WAIT_MS = 10_000
const DIRECT: TransportOptions = { ca_file: null, cert_file: null, key_file: null, proxy: null }
const TIMEOUTS: UpstreamTimeouts = {
  connect_timeout_ms: 5_000,
  headers_timeout_ms: 20_000,
  first_event_timeout_ms: 20_000,
  silence_timeout_ms: 20_000,
}

/** Called for every whole request that arrives, with its number on this server. */
type Script = (socket: Socket, number: number, request: string) => void

interface Upstream {
  readonly origin: string
  readonly port: number
  readonly requests: string[]
  connections: number
}

/** A server of raw bytes: reads HTTP requests with a Content-Length and leaves every answer to the script. */
async function upstream(script: Script): Promise<Upstream> {
  const requests: string[] = []
  const server = createServer((socket) => {
    self.connections += 1
    let buffered = ''
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk) => {
      buffered += chunk.toString('latin1')
      for (;;) {
        const head = buffered.indexOf('\r\n\r\n')
        if (head === -1) return
        const length = Number(/content-length: (\d+)/i.exec(buffered)?.[1] ?? 0)
        if (buffered.length < head + 4 + length) return
        const whole = buffered.slice(0, head + 4 + length)
        buffered = buffered.slice(head + 4 + length)
        requests.push(whole)
        script(socket, requests.length, whole)
      }
    })
  })
  const port = await listening(server)
  const self: Upstream = { origin: `http://127.0.0.1:${port}`, port, requests, connections: 0 }
  return self
}

async function listening(server: Server): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  atEnd(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return (server.address() as AddressInfo).port
}

function transport(options: Partial<PoolOptions> = {}): Transport {
  const made = createTransport({ connections_per_origin: 100, proxy: { https: null, http: null, no_proxy: null }, ...options })
  atEnd(() => made.close())
  return made
}

function request(
  origin: string,
  change: Partial<Omit<UpstreamRequest, 'timeouts'>> & { timeouts?: Partial<UpstreamTimeouts> } = {},
): UpstreamRequest {
  return {
    origin,
    path: '/v1/chat/completions',
    headers: { 'content-type': 'application/json', 'accept-encoding': 'identity' },
    body: Buffer.from('{"x":1}'),
    transport: DIRECT,
    signal: new AbortController().signal,
    ...change,
    timeouts: { ...TIMEOUTS, ...change.timeouts },
  }
}

/** Collects a body; `finished` gives 'end' or the kind of the failure. */
function collect(body: ByteSource): { text: () => string; bytes: () => number; finished: Promise<string> } {
  const chunks: Buffer[] = []
  const finished = new Promise<string>((resolve) => {
    body.flowTo({
      data: (chunk) => chunks.push(chunk),
      end: () => resolve('end'),
      failed: (failure) => resolve(failure.kind),
    })
  })
  return { text: () => Buffer.concat(chunks).toString(), bytes: () => chunks.reduce((sum, chunk) => sum + chunk.length, 0), finished }
}

async function kindOf(sending: Promise<unknown>): Promise<string> {
  try {
    await sending
    return 'answered'
  } catch (error) {
    if (error instanceof UpstreamFailure) return error.kind
    throw error
  }
}

/** A connection is free again one turn of the event loop after its answer, in case the upstream closes it after all. */
async function nextTurn(): Promise<void> {
  await sleep(20)
}

const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
const CHUNKED = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n'
const piece = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`

describe('an exchange', () => {
  it('sends the body once and gives status, headers and bytes', async () => {
    const server = await upstream((socket) => socket.write('HTTP/1.1 429 Slow\r\nRetry-After: 3\r\ncontent-length: 2\r\n\r\nno'))
    const { status, headers, body } = await transport().send(request(server.origin))
    const read = collect(body)
    expect([status, headers['retry-after'], await read.finished, read.text()]).toEqual([429, '3', 'end', 'no'])
    expect(server.requests).toHaveLength(1)
    expect(server.requests[0]).toMatch(/^POST \/v1\/chat\/completions HTTP\/1\.1\r\n/)
    expect(server.requests[0]).toContain('accept-encoding: identity')
    expect(server.requests[0]).toMatch(/\r\n\r\n\{"x":1\}$/)
  })

  it('uses a connection again, and leaves no listener on the signal', async () => {
    const server = await upstream((socket) => socket.write(OK))
    const client = transport()
    const { signal } = new AbortController()
    for (let i = 0; i < 5; i += 1) {
      await collect((await client.send(request(server.origin, { signal }))).body).finished
      await nextTurn()
    }
    expect([server.requests.length, server.connections, getEventListeners(signal, 'abort').length]).toEqual([5, 1, 0])
  })

  it('skips informational answers', async () => {
    const server = await upstream((socket) => socket.write(`HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n${OK}`))
    expect((await transport().send(request(server.origin))).status).toBe(200)
  })

  it('delivers nothing before flowTo, and everything after, also when the upstream has closed meanwhile', async () => {
    const server = await upstream((socket) => socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello'))
    const { body } = await transport().send(request(server.origin))
    await sleep(100)
    const read = collect(body)
    expect([await read.finished, read.text()]).toEqual(['end', 'hello'])
  })

  it('can move the flow to another sink in the middle', async () => {
    const server = await upstream((socket) => {
      socket.write(CHUNKED + piece('one'))
      setTimeout(() => socket.write(piece('two') + '0\r\n\r\n'), 50)
    })
    const { body } = await transport().send(request(server.origin))
    const second = await new Promise<ReturnType<typeof collect>>((resolve) => {
      body.flowTo({ data: () => resolve(collect(body)), end: () => undefined, failed: () => undefined })
    })
    expect([await second.finished, second.text()]).toEqual(['end', 'two'])
  })

  it('says nothing more after cancel, and closes the connection', async () => {
    let closed = false
    const server = await upstream((socket) => {
      socket.on('close', () => (closed = true))
      socket.write(CHUNKED + piece('one'))
    })
    const { body } = await transport().send(request(server.origin))
    const read = collect(body)
    await waitFor(() => read.text() === 'one', { timeout_ms: WAIT_MS, what: 'the first piece' })
    body.cancel()
    let finished = false
    void read.finished.then(() => (finished = true))
    await waitFor(() => closed, { timeout_ms: WAIT_MS, what: 'the connection to close' })
    expect(finished).toBe(false)
  })
})

describe('back-pressure', () => {
  /** Writes without end, respecting the socket's own signal; counts what left. */
  function flood(): { script: Script; written: () => number } {
    let written = 0
    const block = 'x'.repeat(16 * 1024)
    const script: Script = (socket) => {
      socket.write(CHUNKED)
      const more = (): void => {
        while (!socket.destroyed && socket.write(piece(block))) written += block.length
      }
      socket.on('drain', more)
      more()
    }
    return { script, written: () => written }
  }

  async function settled(read: () => number): Promise<number> {
    let last = -1
    await waitFor(
      async () => {
        const before = last
        last = read()
        await sleep(200)
        return last === before && last > 0
      },
      { timeout_ms: WAIT_MS, what: 'the flow to stand still' },
    )
    return last
  }

  it('stops an upstream that nobody reads yet', async () => {
    const { script, written } = flood()
    const server = await upstream(script)
    const { body } = await transport().send(request(server.origin))
    expect(await settled(written)).toBeLessThan(16 * 1024 * 1024)
    body.cancel()
  })

  it('stops at pause, delivers nothing meanwhile, and loses nothing', async () => {
    const text = Array.from({ length: 200_000 }, (_, i) => String(i)).join(' ')
    const server = await upstream((socket) => socket.write(CHUNKED + piece(text) + '0\r\n\r\n'))
    const { body } = await transport().send(request(server.origin))
    const chunks: Buffer[] = []
    let paused = false
    let wrong = 0
    const ending = await new Promise<string>((resolve) => {
      body.flowTo({
        data: (chunk) => {
          if (paused) wrong += 1
          chunks.push(chunk)
          paused = true
          body.pause()
          setTimeout(() => {
            paused = false
            body.resume()
          }, 5)
        },
        end: () => resolve(paused ? 'ended while paused' : 'end'),
        failed: (failure) => resolve(failure.kind),
      })
    })
    expect([ending, wrong, Buffer.concat(chunks).toString() === text]).toEqual(['end', 0, true])
  })

  it('does not take the silence of an upstream that we paused for a failure', async () => {
    const { script } = flood()
    const server = await upstream(script)
    const { body } = await transport().send(request(server.origin, { timeouts: { silence_timeout_ms: 500 } }))
    const read = collect(body)
    await waitFor(() => read.bytes() > 0, { timeout_ms: WAIT_MS, what: 'the first bytes' })
    body.pause()
    const before = read.bytes()
    let ending = 'none'
    void read.finished.then((how) => (ending = how))
    await sleep(3_000)
    expect([ending, read.bytes()]).toEqual(['none', before])
    body.resume()
    await waitFor(() => read.bytes() > before + 1_000_000, { timeout_ms: WAIT_MS, what: 'the flow after the pause' })
    expect(ending).toBe('none')
    body.cancel()
  })

  it('still notices the silence that comes after a pause', async () => {
    const server = await upstream((socket) => socket.write(CHUNKED + piece('x'.repeat(300_000))))
    const { body } = await transport().send(request(server.origin, { timeouts: { silence_timeout_ms: 500 } }))
    const read = collect(body)
    await waitFor(() => read.bytes() > 0, { timeout_ms: WAIT_MS, what: 'the first bytes' })
    body.pause()
    await sleep(1_500)
    body.resume()
    expect(await read.finished).toBe('silence_timeout')
  })

  it('may be used from inside the sink of another answer', async () => {
    const server = await upstream((socket, number) => socket.write(CHUNKED + piece(`${number}`.repeat(100_000)) + '0\r\n\r\n'))
    const client = transport()
    const [first, second] = [await client.send(request(server.origin)), await client.send(request(server.origin))]
    const read = collect(second.body)
    second.body.pause()
    let bytes = 0
    const ending = await new Promise<string>((resolve) => {
      first.body.flowTo({
        data: (chunk) => {
          bytes += chunk.length
          second.body.resume()
          second.body.pause()
          second.body.resume()
        },
        end: () => resolve('end'),
        failed: (failure) => resolve(failure.kind),
      })
    })
    expect([ending, bytes, await read.finished, read.bytes()]).toEqual(['end', 100_000, 'end', 100_000])
  })
})

describe('a failure before the answer', () => {
  it('is dial_failed when nobody listens', async () => {
    expect(await kindOf(transport().send(request(`http://127.0.0.1:${await freePort()}`)))).toBe('dial_failed')
  })

  it('is connect_timeout when the handshake never comes', async () => {
    const port = await listening(createServer(() => undefined))
    const sending = transport().send(request(`https://127.0.0.1:${port}`, { timeouts: { connect_timeout_ms: 300 } }))
    expect(await kindOf(sending)).toBe('connect_timeout')
  })

  it('is tls_failed when the other side does not speak TLS', async () => {
    const port = await listening(createServer((socket) => socket.on('error', () => undefined).end('HTTP/1.1 400 Bad Request\r\n\r\n')))
    expect(await kindOf(transport().send(request(`https://127.0.0.1:${port}`)))).toBe('tls_failed')
  })

  it('is tls_failed when the CA file cannot be read, for every try', async () => {
    const client = transport()
    const missing = { ...DIRECT, ca_file: join(tempDir(), 'none.pem') }
    expect(await kindOf(client.send(request('https://127.0.0.1:9', { transport: missing })))).toBe('tls_failed')
    expect(await kindOf(client.send(request('https://127.0.0.1:9', { transport: missing })))).toBe('tls_failed')
  })

  it('is headers_timeout when nothing is answered', async () => {
    const server = await upstream(() => undefined)
    expect(await kindOf(transport().send(request(server.origin, { timeouts: { headers_timeout_ms: 300 } })))).toBe('headers_timeout')
    expect(server.requests).toHaveLength(1)
  })

  it.each([
    ['closes', (socket: Socket) => void socket.end()],
    ['resets', (socket: Socket) => void socket.resetAndDestroy()],
  ])('is reset when the upstream %s after the request, which is not sent again', async (_, script) => {
    const server = await upstream(script)
    expect(await kindOf(transport().send(request(server.origin)))).toBe('reset')
    await sleep(300)
    expect([server.requests.length, server.connections]).toEqual([1, 1])
  })

  it.each([
    ['closes', (socket: Socket) => void socket.end()],
    ['resets', (socket: Socket) => void socket.resetAndDestroy()],
  ])('is reset when the upstream %s a connection that was used before, and nothing is sent again', async (_, fail) => {
    const server = await upstream((socket, number) => (number === 1 ? void socket.write(OK) : fail(socket)))
    const client = transport()
    await collect((await client.send(request(server.origin))).body).finished
    await nextTurn()
    expect(await kindOf(client.send(request(server.origin)))).toBe('reset')
    await sleep(300)
    expect([server.requests.length, server.connections]).toEqual([2, 1])
  })

  it.each([
    ['bytes that are not HTTP', 'SSH-2.0-OpenSSH_9.9\r\n'],
    ['headers that are too large', `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(70_000)}\r\n\r\n`],
    ['an upgrade that nobody asked for', 'HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'],
  ])('is malformed for %s', async (_, bytes) => {
    const server = await upstream((socket) => socket.write(bytes))
    expect(await kindOf(transport().send(request(server.origin)))).toBe('malformed')
  })

  it('is saturated at once when every connection is taken, and not any more when one is free', async () => {
    const server = await upstream((socket, number) => (number <= 2 ? undefined : void socket.write(OK)))
    const client = transport({ connections_per_origin: 2 })
    const stop = new AbortController()
    const pending = [1, 2].map(() => kindOf(client.send(request(server.origin, { signal: stop.signal }))))
    expect(await kindOf(client.send(request(server.origin)))).toBe('saturated')
    await waitFor(() => server.requests.length === 2, { timeout_ms: WAIT_MS, what: 'two requests' })
    stop.abort()
    expect(await Promise.all(pending)).toEqual(['client_gone', 'client_gone'])
    expect(await kindOf(client.send(request(server.origin)))).toBe('answered')
  })
})

describe('a failure inside the answer', () => {
  it.each([
    ['a Content-Length that is not reached', 'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc', 'truncated'],
    ['the same with Connection: close', 'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nabc', 'truncated'],
    ['chunks without the last one', CHUNKED + piece('abc'), 'truncated'],
    ['the same with Connection: close', CHUNKED.replace('\r\n\r\n', '\r\nconnection: close\r\n\r\n') + piece('abc'), 'truncated'],
    ['a chunk cut in the middle', CHUNKED + 'ff\r\nabc', 'truncated'],
    ['a chunk without a length', CHUNKED + piece('abc') + 'zz\r\n', 'malformed'],
  ])('of %s is told after what came before', async (_, bytes, kind) => {
    const server = await upstream((socket) => socket.end(bytes))
    const read = collect((await transport().send(request(server.origin))).body)
    expect([await read.finished, read.text()]).toEqual([kind, 'abc'])
  })

  it('is reset when the connection is reset', async () => {
    const server = await upstream((socket) => {
      socket.write(CHUNKED + piece('abc'))
      setTimeout(() => socket.resetAndDestroy(), 100)
    })
    const read = collect((await transport().send(request(server.origin))).body)
    expect([await read.finished, read.text()]).toEqual(['reset', 'abc'])
  })

  it('is silence_timeout when nothing more comes', async () => {
    const server = await upstream((socket) => socket.write(CHUNKED + piece('abc')))
    const { body } = await transport().send(request(server.origin, { timeouts: { silence_timeout_ms: 300 } }))
    expect(await collect(body).finished).toBe('silence_timeout')
  })

  it('is told to a sink that comes only afterwards', async () => {
    const server = await upstream((socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc'))
    const { body } = await transport().send(request(server.origin))
    await sleep(100)
    const read = collect(body)
    expect([await read.finished, read.text()]).toEqual(['truncated', 'abc'])
  })

  it.each(['data', 'end'] as const)('is told to the sink when its own %s throws', async (thrower) => {
    const server = await upstream((socket) => {
      socket.write(CHUNKED)
      setTimeout(() => socket.write(piece('abc') + '0\r\n\r\n'), 50)
    })
    const { body } = await transport().send(request(server.origin))
    const bug = new Error('a bug')
    const failIf = (now: boolean): void => {
      if (now) throw bug
    }
    const told = await new Promise<UpstreamFailure>((resolve) => {
      body.flowTo({ data: () => failIf(thrower === 'data'), end: () => failIf(thrower === 'end'), failed: resolve })
    })
    expect(told.details.cause).toBe(bug)
  })
})

describe('the signal', () => {
  it('keeps a request from being sent when it was aborted before', async () => {
    const server = await upstream((socket) => socket.write(OK))
    expect(await kindOf(transport().send(request(server.origin, { signal: AbortSignal.abort() })))).toBe('client_gone')
    expect(server.connections).toBe(0)
  })

  it('gives its own failure, before the answer and inside it, also to a paused reader', async () => {
    const server = await upstream((socket, number) => (number === 1 ? undefined : void socket.write(CHUNKED + piece('abc'))))
    const client = transport()
    const early = new AbortController()
    const sending = kindOf(client.send(request(server.origin, { signal: early.signal })))
    await waitFor(() => server.requests.length === 1, { timeout_ms: WAIT_MS, what: 'the request' })
    early.abort(new UpstreamFailure('deadline'))
    expect(await sending).toBe('deadline')

    const late = new AbortController()
    const { body } = await client.send(request(server.origin, { signal: late.signal }))
    const read = collect(body)
    body.pause()
    late.abort(new UpstreamFailure('first_event_timeout'))
    expect(await read.finished).toBe('first_event_timeout')
    expect(getEventListeners(late.signal, 'abort')).toEqual([])
  })

  it('ends a request that is still dialling, which is then never written', async () => {
    const port = await listening(createServer(() => undefined))
    const stop = new AbortController()
    const sending = kindOf(transport().send(request(`https://127.0.0.1:${port}`, { signal: stop.signal })))
    stop.abort()
    expect(await sending).toBe('client_gone')
  })
})

describe('close', () => {
  it('fails what is open and takes nothing more', async () => {
    const server = await upstream((socket, number) => (number === 1 ? void socket.write(CHUNKED + piece('abc')) : undefined))
    const client = transport()
    const read = collect((await client.send(request(server.origin))).body)
    const waiting = kindOf(client.send(request(server.origin)))
    await waitFor(() => server.requests.length === 2, { timeout_ms: WAIT_MS, what: 'both requests' })
    await client.close()
    expect([await read.finished, await waiting]).toEqual(['reset', 'reset'])
    expect(await kindOf(client.send(request(server.origin)))).toBe('saturated')
  })
})

describe('the proxy of an origin', () => {
  const settings = (no_proxy: string | null): Parameters<typeof proxyFor>[1] => ({ https: 'http://p:1', http: 'http://p:2', no_proxy })
  it.each([
    ['https://a.test', null, 'http://p:1'],
    ['http://a.test', '', 'http://p:2'],
    ['https://a.test', '*', null],
    ['https://a.test', 'a.test', null],
    ['https://x.a.test', 'b.test, a.test', null],
    ['https://x.a.test', '.a.test', null],
    ['https://a.test', '.a.test', null],
    ['https://a.test', '*.a.test', 'http://p:1'],
    ['https://x.a.test', '*.a.test', null],
    ['https://xa.test', 'a.test', 'http://p:1'],
    ['https://A.Test', 'a.TEST.', null],
    ['https://a.test:8443', 'a.test:8443', null],
    ['https://a.test', 'a.test:8443', 'http://p:1'],
    ['https://a.test', 'a.test:443', null],
    ['http://[fd00::1]:80', 'fd00::1', null],
    ['http://[fd00::1]:81', '[fd00::1]:80', 'http://p:2'],
    ['http://10.0.0.5', '10.0.0.5', null],
    ['http://localhost:3000', null, null],
    ['http://127.0.0.9', null, null],
    ['http://[::1]:9', null, null],
  ])('%s with NO_PROXY=%s is %s', (origin, no_proxy, proxy) => {
    expect(proxyFor(origin, settings(no_proxy))).toBe(proxy)
  })
})

describe('a proxy', () => {
  it('gets plain HTTP in absolute form, by the settings', async () => {
    const proxy = await upstream((socket) => socket.write(OK))
    const client = transport({ proxy: { https: null, http: proxy.origin, no_proxy: null } })
    const read = collect((await client.send(request('http://model.test:8000'))).body)
    expect([await read.finished, read.text()]).toEqual(['end', 'ok'])
    expect(proxy.requests[0]).toMatch(/^POST http:\/\/model\.test:8000\/v1\/chat\/completions HTTP\/1\.1\r\n/)
    expect(proxy.requests[0]).toMatch(/\r\nhost: model\.test:8000\r\n/i)
  })

  it.each([
    ['refuses', (socket: Socket) => void socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n'), 'dial_failed'],
    ['closes', (socket: Socket) => void socket.end(), 'dial_failed'],
    ['says nothing', () => undefined, 'connect_timeout'],
  ])('that %s the CONNECT means the upstream was not reached', async (_, script, kind) => {
    const proxy = await upstream(script)
    const options = { ...DIRECT, proxy: proxy.origin }
    const sending = transport().send(request('https://model.test', { transport: options, timeouts: { connect_timeout_ms: 400 } }))
    expect(await kindOf(sending)).toBe(kind)
  })
})

const openssl = hasOpenssl()
describe.skipIf(!openssl)('TLS', () => {
  it('trusts the CA file of the endpoint and nothing else', async () => {
    const files = certificates()
    const port = await tlsServer(files)
    const client = transport()
    expect(await kindOf(client.send(request(`https://localhost:${port}`)))).toBe('tls_failed')
    const read = collect((await client.send(request(`https://localhost:${port}`, { transport: { ...DIRECT, ca_file: files.ca } }))).body)
    expect([await read.finished, read.text()]).toEqual(['end', 'hello nobody'])
  })

  it('refuses a certificate of another name', async () => {
    const files = certificates()
    const port = await tlsServer(files)
    expect(await kindOf(transport().send(request(`https://127.0.0.1:${port}`, { transport: { ...DIRECT, ca_file: files.ca } })))).toBe(
      'tls_failed',
    )
  })

  it('shows the client certificate of the endpoint', async () => {
    const files = certificates()
    const port = await tlsServer(files, { requestCert: true, rejectUnauthorized: true, maxVersion: 'TLSv1.2' })
    const client = transport()
    const origin = `https://localhost:${port}`
    expect(['tls_failed', 'reset', 'dial_failed']).toContain(
      await kindOf(client.send(request(origin, { transport: { ...DIRECT, ca_file: files.ca } }))),
    )
    const mutual = { ...DIRECT, ca_file: files.ca, cert_file: files.client, key_file: files.client_key }
    const read = collect((await client.send(request(origin, { transport: mutual }))).body)
    expect([await read.finished, read.text()]).toEqual(['end', 'hello weir client'])
  })

  it('goes through a CONNECT proxy, with proxy credentials, end to end', async () => {
    const files = certificates()
    const port = await tlsServer(files)
    const seen: string[] = []
    const proxy = await connectProxy(seen)
    const client = transport({ proxy: { https: `http://user:secret@127.0.0.1:${proxy}`, http: null, no_proxy: 'other.test' } })
    // Only the proxy knows where models.weir.test is.
    const read = collect(
      (await client.send(request(`https://models.weir.test:${port}`, { transport: { ...DIRECT, ca_file: files.ca } }))).body,
    )
    expect([await read.finished, read.text()]).toEqual(['end', 'hello nobody'])
    expect(seen).toHaveLength(1)
    expect(seen[0]).toContain(`CONNECT models.weir.test:${port} HTTP/1.1`)
    expect(seen[0]).toContain(`proxy-authorization: Basic ${Buffer.from('user:secret').toString('base64')}`)
  })
})

function hasOpenssl(): boolean {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' })
    return true
  } catch {
    console.warn('openssl is absent: the TLS tests are skipped')
    return false
  }
}

interface Certificates {
  readonly ca: string
  readonly server: string
  readonly server_key: string
  readonly client: string
  readonly client_key: string
}

/** A CA, a server certificate for localhost and *.weir.test, and a client certificate. */
function certificates(): Certificates {
  const dir = tempDir()
  const file = (name: string): string => join(dir, name)
  const run = (...args: string[]): unknown => execFileSync('openssl', args, { stdio: 'ignore' })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  run('req', '-x509', ...key, '-keyout', file('ca.key'), '-out', file('ca.pem'), '-subj', '/CN=weir test CA')
  const issue = (name: string, subject: string, extension: string): void => {
    const signed = ['-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-addext', extension]
    run('req', '-x509', ...key, ...signed, '-keyout', file(`${name}.key`), '-out', file(`${name}.pem`), '-subj', subject)
  }
  issue('server', '/CN=server', 'subjectAltName=DNS:localhost,DNS:*.weir.test')
  issue('client', '/CN=weir client', 'extendedKeyUsage=clientAuth')
  return {
    ca: file('ca.pem'),
    server: file('server.pem'),
    server_key: file('server.key'),
    client: file('client.pem'),
    client_key: file('client.key'),
  }
}

async function tlsServer(files: Certificates, options: ServerOptions = {}): Promise<number> {
  const identity = { cert: readFileSync(files.server), key: readFileSync(files.server_key), ca: readFileSync(files.ca) }
  const server = createHttpsServer({ ...identity, ...options }, (incoming, answer) => {
    const socket = incoming.socket as TLSSocket
    const name = socket.getPeerCertificate().subject?.CN
    answer.end(`hello ${String(name ?? 'nobody')}`)
  })
  return await listening(server)
}

/** Tunnels every CONNECT to the port it names on the loopback interface. */
async function connectProxy(seen: string[]): Promise<number> {
  const server = createServer((socket) => {
    socket.once('data', (head) => {
      seen.push(head.toString('latin1'))
      const port = Number(/^CONNECT [^:]+:(\d+)/.exec(head.toString('latin1'))?.[1])
      const onward = connect(port, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection Established\r\n\r\n')
        socket.pipe(onward).pipe(socket)
      })
      for (const side of [socket, onward]) side.on('error', () => side.destroy())
    })
  })
  return await listening(server)
}
