import OpenAI, { APIError } from 'openai'
import { expect, it } from 'vitest'
import { cnyFromNano } from '../../src/money/amount.ts'
import { estimateChatPrompt } from '../../src/money/estimate.ts'
import type { UsageEvent } from '../../src/money/event.ts'
import type { ServedRow } from '../../src/sandbox/tally.ts'
import { HELLO, INPUT_NANO, OUTPUT_NANO, startGateway, type GatewayOptions, type TestGateway } from '../support/gateway.ts'
import { sseOf } from '../support/sse.ts'
import { waitFor } from '../support/wait.ts'

const SLICE = 64
const SOON_MS = 20_000
const PROMPT_TOKENS = estimateChatPrompt({ messages: HELLO }, 'sandbox')
const PROMPT_HELD = Math.ceil(PROMPT_TOKENS * 1.25)
/** What is held for {@link HELLO} with so much output. */
const held = (output: number): bigint => BigInt(PROMPT_HELD) * INPUT_NANO + BigInt(output) * OUTPUT_NANO
const price = (output: number): bigint => BigInt(PROMPT_TOKENS) * INPUT_NANO + BigInt(output) * OUTPUT_NANO
/** Enough for three slices, and for nothing of a fourth. */
const TINY_NANO = held(3 * SLICE)
/** Far longer than the wallet lasts, and never over by itself within a test. */
const ENDLESS = { tokens: 100_000, token_delay_ms: 1 }

function tinyWallet(options: GatewayOptions = {}): Promise<TestGateway> {
  const settings = { ...options.settings, limits: { slice_tokens: SLICE, ...(options.settings?.['limits'] as object | undefined) } }
  return startGateway({ wallet_cny: cnyFromNano(TINY_NANO), ...options, settings })
}

/** The one event and the upstream's own count, once all has ended and the books agree. */
async function ended(gateway: TestGateway): Promise<{ event: UsageEvent; served: ServedRow }> {
  await waitFor(() => gateway.sandbox.served().totals.open === 0, { timeout_ms: SOON_MS, what: 'the upstream to be done' })
  expect((await gateway.audit()).events).toBe(1)
  const [served] = gateway.sandbox.served().served
  const event = await gateway.event(served?.request_id ?? null)
  if (event === null || served === undefined) throw new Error('there is no event')
  return { event, served }
}

/** Promise 3: what was spent is what was there, but for the overrun on the event. */
async function expectNoOverdraft({ storage, tenant }: TestGateway, wallet_nano: bigint, event: UsageEvent): Promise<void> {
  const { available_nano, held_nano, open_holds } = await storage.limits.balance(tenant)
  expect([available_nano, held_nano, open_holds]).toEqual([wallet_nano - event.amount_nano, 0n, 0])
  expect(event.amount_nano).toBeLessThanOrEqual(wallet_nano + event.overrun_nano)
}

async function eventsCounted({ plane }: TestGateway): Promise<Readonly<Record<string, number>>> {
  const lines = (await plane.metrics.render()).matchAll(/^weir_events_total\{usage_source="(\w+)",status="(\w+)"\} (\d+)$/gm)
  return Object.fromEntries(
    [...lines].flatMap(([, source, status, count]) => (count === '0' ? [] : [[`${source} ${status}`, Number(count)]])),
  )
}

/** Begins a stream and leaves it after a few events. */
async function leave(gateway: TestGateway, sandbox: object): Promise<number> {
  const response = await gateway.chat({ stream: true, sandbox })
  const reader = response.body?.getReader()
  let text = ''
  while (text.split('"content"').length < 6) {
    const read = await reader?.read()
    if (read === undefined || read.done) throw new Error(`the stream ended before it began: ${text}`)
    text += Buffer.from(read.value).toString()
  }
  await reader?.cancel()
  return text.split('"content"').length
}

it('a wallet that runs out ends the stream with an error event, bills what was delivered and closes the upstream', async () => {
  const gateway = await tinyWallet()
  const response = await gateway.chat({ stream: true, sandbox: ENDLESS })
  const { done_count, error, events, text } = await sseOf(response)
  expect([response.status, done_count]).toEqual([200, 0])
  expect(error).toMatchObject({ code: 'insufficient_balance', request_id: response.headers.get('x-request-id') })
  expect(text.trimEnd().endsWith(JSON.stringify({ error }))).toBe(true)
  const { event, served } = await ended(gateway)
  const pieces = events.filter(({ choices }) => (choices?.[0]?.delta?.content ?? '') !== '').length
  expect(event).toMatchObject({ status: 'truncated', code: 'insufficient_balance', finish_reason: null, usage_source: 'estimated' })
  expect(event.tokens).toMatchObject({ input: PROMPT_TOKENS, output: pieces })
  expect(event.amount_nano).toBe(price(pieces))
  expect(pieces).toBeGreaterThanOrEqual(3 * SLICE)
  expect(served).toMatchObject({ aborted: true, finished: false })
  await expectNoOverdraft(gateway, TINY_NANO, event)
  expect(await eventsCounted(gateway)).toEqual({ 'estimated truncated': 1 })
})

it('the official SDK raises the error after everything that was delivered', async () => {
  const gateway = await tinyWallet()
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 3 })
  const body = { model: 'solo', messages: [{ role: 'user', content: 'hello' }], stream: true, sandbox: ENDLESS } as const
  const seen: string[] = []
  const read = async (): Promise<void> => {
    for await (const chunk of await client.chat.completions.create({ ...body, messages: [...body.messages] })) {
      seen.push(chunk.choices[0]?.delta.content ?? '')
    }
  }
  const error: unknown = await read().then(
    () => null,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(APIError)
  expect(error).toMatchObject({ code: 'insufficient_balance' })
  const { event } = await ended(gateway)
  expect(event.tokens.output).toBe(seen.filter((text) => text !== '').length)
  await expectNoOverdraft(gateway, TINY_NANO, event)
})

it('a caller whose wallet is empty is refused before anything is sent', async () => {
  const gateway = await tinyWallet({ wallet_cny: cnyFromNano(held(SLICE) - 1n) })
  const response = await gateway.chat({ stream: true, sandbox: ENDLESS })
  expect([response.status, response.headers.get('x-should-retry')]).toEqual([402, 'false'])
  expect(gateway.sandbox.served().totals.requests).toBe(0)
  expect((await gateway.audit()).events).toBe(0)
})

it.each(['cancel', 'drain'] as const)('%s: what a client that leaves owes is labelled by where the figure comes from', async (policy) => {
  const gateway = await tinyWallet({ wallet_cny: '1', tenant: { on_client_abort: policy } })
  const seen = await leave(gateway, { tokens: 300, token_delay_ms: 2 })
  const { event, served } = await ended(gateway)
  const drained = policy === 'drain'
  expect(event).toMatchObject({ status: 'aborted', code: 'client_closed_request', usage_source: drained ? 'drained' : 'estimated' })
  expect(served).toMatchObject({ aborted: !drained, finished: drained })
  if (drained) expect(event.tokens.output).toBe(300)
  else expect(event.tokens.output).toBeGreaterThanOrEqual(seen - 2)
  expect(event.tokens.output).toBeLessThanOrEqual(served.sent_tokens)
  expect(event.amount_nano).toBe(price(event.tokens.output))
  await expectNoOverdraft(gateway, 1_000_000_000n, event)
  expect(await eventsCounted(gateway)).toEqual({ [`${drained ? 'drained' : 'estimated'} aborted`]: 1 })
})

it('drain ends at its time limit, and then only what was delivered is owed', async () => {
  const gateway = await tinyWallet({
    wallet_cny: '1',
    tenant: { on_client_abort: 'drain' },
    settings: { limits: { drain_abort_timeout_ms: 500 } },
  })
  await leave(gateway, { ...ENDLESS, token_delay_ms: 5 })
  const { event, served } = await ended(gateway)
  expect(served.aborted).toBe(true)
  expect(event).toMatchObject({ status: 'aborted', usage_source: 'estimated' })
  expect(event.tokens.output).toBeLessThan(served.sent_tokens)
  expect(await eventsCounted(gateway)).toEqual({ 'estimated aborted': 1 })
})

it('drain on a tiny wallet stops where the money does, and only what was delivered is owed', async () => {
  const gateway = await tinyWallet({ tenant: { on_client_abort: 'drain' } })
  await leave(gateway, { ...ENDLESS, token_delay_ms: 8 })
  const { event, served } = await ended(gateway)
  expect(served).toMatchObject({ aborted: true, finished: false })
  expect(served.sent_tokens).toBeGreaterThanOrEqual(3 * SLICE)
  expect(event).toMatchObject({ status: 'aborted', code: 'client_closed_request', usage_source: 'estimated', overrun_nano: 0n })
  expect(event.tokens.output).toBeLessThan(3 * SLICE)
  await expectNoOverdraft(gateway, TINY_NANO, event)
})

it('a stream keeps the terms of its admission: a revoked key, a suspended tenant and a smaller budget hold for what comes after it', async () => {
  const budget = { kind: 'budget', model: null, limit: '1000000000', window: null } as const
  const gateway = await startGateway({ settings: { limits: { slice_tokens: SLICE } }, tenant: { limits: [budget] } })
  const { main_account: account, storage } = gateway
  const response = await gateway.chat({ stream: true, sandbox: { tokens: 4 * SLICE, token_delay_ms: 2 } })
  const text = response.text()
  const before = (await storage.records.tenants()).find(({ id }) => id === gateway.tenant)
  if (before === undefined) throw new Error('there is no tenant')
  await storage.records.put({ kind: 'tenant', record: { ...before, status: 'suspended', limits: [{ ...budget, limit: '1' }] } })
  await storage.limits.block('tenant', gateway.tenant, true)
  await gateway.revoke(account.key)
  expect((await gateway.chat({})).status).toBe(401)
  expect(await text).toContain('[DONE]')
  expect(await gateway.event(response.headers.get('x-request-id'))).toMatchObject({ status: 'completed', tokens: { output: 4 * SLICE } })
  await gateway.audit()
})
