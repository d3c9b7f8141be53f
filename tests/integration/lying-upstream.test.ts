import { expect, it } from 'vitest'
import { cnyFromNano } from '../../src/money/amount.ts'
import { INPUT_NANO, OUTPUT_NANO, startGateway } from '../support/gateway.ts'

const base64 = (text: string): string => Buffer.from(text).toString('base64')

it.each([true, false])('usage far above the hold is charged, and the part above it is shown as overrun (stream %s)', async (stream) => {
  const gateway = await startGateway()
  const directives = { tokens: 10, report: { completion_tokens: 50_000 } }
  const response = await gateway.chat({ stream, max_tokens: 10, sandbox: directives })
  await response.text()
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(event).toMatchObject({ status: 'completed', usage_source: 'reported', tokens: { output: 50_000 } })
  expect(event?.overrun_nano).toBe((event?.amount_nano ?? 0n) - (event?.hold.amount_nano ?? 0n))
  await gateway.audit()
})

it('an overrun beyond the wallet is owed, not lost: the ledger still balances', async () => {
  const gateway = await startGateway({ wallet_cny: '0.001' })
  const response = await gateway.chat({ max_tokens: 10, sandbox: { report: { completion_tokens: 50_000 } } })
  await response.text()
  const event = await gateway.event(response.headers.get('x-request-id'))
  await gateway.audit()
  const paid = event?.parts.reduce((sum, { amount }) => sum + amount, 0n)
  expect(paid).toBe(event?.amount_nano)
  const balance = (await (await gateway.get('/v1/balance')).json()) as { available_cny: string }
  expect(balance.available_cny).toBe(cnyFromNano(1_000_000n - (event?.amount_nano ?? 0n)))
  expect((await gateway.chat({ max_tokens: 10 })).status).toBe(402)
})

const whole = (usage: string): string =>
  `{"id":"x","object":"chat.completion","created":1,"model":"up-solo","choices":[{"index":0,"message":{"role":"assistant","content":"one two three"},"finish_reason":"stop"}]${usage}}`

it.each([
  ['nothing', ''],
  ['null', ',"usage":null'],
  ['a string', ',"usage":"many"'],
  ['a list', ',"usage":[1,2]'],
  ['an empty object', ',"usage":{}'],
  ['negative numbers', ',"usage":{"prompt_tokens":-5,"completion_tokens":-7,"total_tokens":-12}'],
  ['numbers as strings', ',"usage":{"prompt_tokens":"5","completion_tokens":"7","total_tokens":"12"}'],
  ['fractions', ',"usage":{"prompt_tokens":5.5,"completion_tokens":7.5,"total_tokens":13}'],
  ['1e300', ',"usage":{"prompt_tokens":1e300,"completion_tokens":1e300,"total_tokens":1e300}'],
  ['1e999', ',"usage":{"prompt_tokens":1e999,"completion_tokens":1e999,"total_tokens":1e999}'],
  ['beyond 2^53', ',"usage":{"prompt_tokens":9007199254740993,"completion_tokens":9007199254740993,"total_tokens":1}'],
  ['more cached than there are', ',"usage":{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":900}}'],
  ['half of it', ',"usage":{"completion_tokens":7}'],
])('a report of %s never fails the answer and never makes a price that is none', async (_, usage) => {
  const gateway = await startGateway()
  const response = await gateway.chat({ sandbox: { raw: base64(whole(usage)), raw_type: 'application/json' } })
  const text = await response.text()
  expect([response.status, text.includes('one two three')]).toEqual([200, true])
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(event?.status).toBe('completed')
  const { input = -1, cached_input = -1, output = -1 } = event?.tokens ?? {}
  for (const count of [input, cached_input, output]) expect(count >= 0 && Number.isSafeInteger(count)).toBe(true)
  expect(event?.amount_nano).toBe(BigInt(input + cached_input) * INPUT_NANO + BigInt(output) * OUTPUT_NANO)
  expect(event?.amount_nano).toBeGreaterThan(0n)
  expect(event?.amount_nano).toBeLessThan(1_000_000_000n)
  await gateway.audit()
})

it.each([
  ['an empty body', ''],
  ['null', 'null'],
  ['a list', '[]'],
  ['an object of no kind', '{}'],
  ['not JSON', 'hello'],
  ['cut JSON', whole('').slice(0, 60)],
  ['JSON 10,000 deep', `{"choices":${'['.repeat(10_000)}${']'.repeat(10_000)}}`],
])('a whole answer that is %s is an upstream’s error, and free', async (_, raw) => {
  const gateway = await startGateway()
  const response = await gateway.chat({ sandbox: { raw: base64(raw), raw_type: 'application/json' } })
  expect(response.status).toBe(502)
  expect((await gateway.audit()).amount_nano).toBe(0n)
})

it.each([
  ['text/html', '<html><body>Bad Gateway</body></html>'],
  ['text/event-stream', 'hello'],
  ['text/event-stream', 'data: \n\ndata: 1\n\n'],
  ['text/event-stream', 'data: []\n\n'],
  ['text/event-stream', 'data: [DONE]\n\n'],
  ['text/event-stream', ''],
  ['text/event-stream', 'event: ping\n\n: comment\n\n'],
])('a stream of %s that says %j is an upstream’s error, and free', async (raw_type, raw) => {
  const gateway = await startGateway()
  const response = await gateway.chat({ stream: true, sandbox: { raw: base64(raw), raw_type } })
  const text = await response.text()
  expect(text).toContain('"code":"upstream_error"')
  expect(text).not.toContain('[DONE]')
  expect((await gateway.audit()).amount_nano).toBe(0n)
})

it('tags that are none are refused before anything is held', async () => {
  const gateway = await startGateway()
  for (const tags of ['team', 'a=b=c', '=x', `a=${'x'.repeat(100)}`, Array.from({ length: 9 }, (_, index) => `t${index}=1`).join(',')]) {
    expect((await gateway.chat({}, { 'x-weir-tags': tags })).status).toBe(400)
  }
  expect((await gateway.audit()).events).toBe(0)
})
