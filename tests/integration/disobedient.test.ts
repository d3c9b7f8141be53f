import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { cnyFromNano } from '../../src/money/amount.ts'
import { atEnd } from '../support/cleanup.ts'
import { INPUT_NANO, OUTPUT_NANO, startGateway } from '../support/gateway.ts'

/** An upstream of the test's own that answers as `play` says. */
async function upstream(play: (response: ServerResponse) => Promise<void> | void): Promise<string> {
  const server = createServer((request, response) => {
    request.resume()
    request.once('end', () => void play(response))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  atEnd(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function chunk(content: string, finish_reason: string | null = null): string {
  return `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', model: 'm', choices: [{ index: 0, delta: { content }, finish_reason }] })}\n\n`
}

it('an upstream that ignores max_tokens is stopped when the wallet ends, not when it pleases', async () => {
  const url = await upstream(async (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (let sent = 0; sent < 20_000 && !response.destroyed; sent += 1) {
      response.write(chunk(' word'))
      if (sent % 50 === 0) await sleep(1)
    }
    response.end(chunk('', 'stop'))
  })
  const wallet = 100n * INPUT_NANO + 600n * OUTPUT_NANO
  const gateway = await startGateway({ upstream: url, wallet_cny: cnyFromNano(wallet) })
  const response = await gateway.chat({ stream: true, max_tokens: 10 })
  const text = await response.text()
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(text).toContain('insufficient_balance')
  expect(text).not.toContain('[DONE]')
  expect(event?.status).toBe('truncated')
  // Beyond what could be held it was sent at most what was on its way when the money ended.
  expect(event?.amount_nano).toBeLessThan(wallet * 3n)
  await gateway.audit()
})

it('drain: an upstream that breaks after the client has left is billed for what the client was sent', async () => {
  const { promise: left, resolve: leave } = Promise.withResolvers<void>()
  const url = await upstream(async (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (let sent = 0; sent < 10; sent += 1) response.write(chunk(' word'))
    await left
    for (let sent = 0; sent < 500; sent += 1) response.write(chunk(' word'))
    await sleep(50)
    response.destroy()
  })
  const gateway = await startGateway({ upstream: url, tenant: { on_client_abort: 'drain' } })
  const controller = new AbortController()
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${gateway.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'solo', stream: true, messages: [{ role: 'user', content: 'hello' }] }),
    signal: controller.signal,
  })
  const reader = response.body?.getReader()
  let seen = ''
  while (seen.split(' word').length <= 10) seen += Buffer.from((await reader?.read())?.value ?? '').toString()
  controller.abort()
  await sleep(100)
  leave()
  await sleep(300)
  await gateway.audit()
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(event).toMatchObject({ status: 'aborted', code: 'client_closed_request' })
  expect(event?.tokens.output).toBe(10)
})

it('a definite refusal whose body never ends is known by its status, and leaves no event', async () => {
  const url = await upstream((response) => {
    response.writeHead(500, { 'content-type': 'application/json' })
    response.write('{"error":')
  })
  const gateway = await startGateway({ upstream: url })
  const response = await gateway.chat({})
  expect(response.status).toBe(502)
  expect((await gateway.audit()).events).toBe(0)
})
