import { expect, it } from 'vitest'
import { cnyFromNano } from '../../src/money/amount.ts'
import { estimateChatPrompt, estimateEmbeddingsInput } from '../../src/money/estimate.ts'
import { totalTokens } from '../../src/money/usage.ts'
import { giveGrant } from '../support/grants.ts'
import { HELLO, INPUT_NANO, OUTPUT_NANO, startGateway, type GatewayOptions, type TestGateway } from '../support/gateway.ts'
import { errorOf, sseOf } from '../support/sse.ts'

const PROMPT_TOKENS = estimateChatPrompt({ messages: HELLO }, 'sandbox')
const PROMPT_HELD = Math.ceil(PROMPT_TOKENS * 1.25)
/** Tokens that a pack must have for {@link HELLO} with so much output. */
const held = (output: number): bigint => BigInt(PROMPT_HELD + output)
const used = (output: number): bigint => BigInt(PROMPT_TOKENS + output)
const price = (prompt: number, output: number): bigint => BigInt(prompt) * INPUT_NANO + BigInt(output) * OUTPUT_NANO

/** A gateway whose tenant has a pack of tokens and, unless said otherwise, nothing else. */
async function withPack(amount: bigint, changes: Parameters<typeof giveGrant>[3] = {}, options: GatewayOptions = {}): Promise<TestGateway> {
  const gateway = await startGateway({ wallet_cny: '0', ...options })
  await giveGrant(gateway, gateway.tenant, 'pack', { unit: 'tokens', amount, ...changes })
  return gateway
}

async function packOf({ storage, tenant }: TestGateway): Promise<bigint | undefined> {
  const { grants, held_nano } = await storage.limits.balance(tenant)
  const pack = grants.find(({ id }) => id === 'pack')
  expect([held_nano, pack?.held]).toEqual([0n, 0n])
  return pack?.balance
}

async function eventOf(gateway: TestGateway, response: Response) {
  const event = await gateway.event(response.headers.get('x-request-id'))
  if (event === null) throw new Error('the request has no event')
  return event
}

it.each([true, false])('a token pack alone pays for an answer, by the token (stream %s)', async (stream) => {
  const gateway = await withPack(held(40))
  const response = await gateway.chat({ stream, max_tokens: 40, sandbox: { tokens: 30 } })
  expect(response.status).toBe(200)
  expect(response.headers.has('x-weir-max-tokens')).toBe(false)
  await response.text()
  const event = await eventOf(gateway, response)
  expect(event.parts).toEqual([{ grant: 'pack', unit: 'tokens', amount: used(30) }])
  expect(event).toMatchObject({ status: 'completed', amount_nano: price(PROMPT_TOKENS, 30), overrun_nano: 0n, flags: ['sandbox'] })
  expect(await packOf(gateway)).toBe(held(40) - used(30))
  expect((await gateway.audit()).events).toBe(1)
})

it.each([true, false])('one token less than the request may need is refused, and the pack stays whole (stream %s)', async (stream) => {
  const gateway = await withPack(held(40) - 1n)
  const response = await gateway.chat({ stream, max_tokens: 40 })
  expect([response.status, (await errorOf(response)).code]).toEqual([402, 'insufficient_balance'])
  expect(await packOf(gateway)).toBe(held(40) - 1n)
  expect((await gateway.audit()).events).toBe(0)
})

it('a whole answer without max_tokens is capped to what the pack covers, per choice', async () => {
  const gateway = await withPack(held(40))
  const response = await gateway.chat({ sandbox: { tokens: 200 } })
  const body = (await response.json()) as { choices: [{ finish_reason: string }]; usage: { completion_tokens: number } }
  expect(response.headers.get('x-weir-max-tokens')).toBe('40')
  expect([body.usage.completion_tokens, body.choices[0].finish_reason]).toEqual([40, 'length'])
  expect(await eventOf(gateway, response)).toMatchObject({ flags: expect.arrayContaining(['capped']), overrun_nano: 0n })
  expect(await packOf(gateway)).toBe(held(40) - used(40))
  const two = await withPack(held(81))
  const choices = await two.chat({ n: 2, sandbox: { tokens: 200 } })
  expect(choices.headers.get('x-weir-max-tokens')).toBe('40')
  await choices.text()
  await Promise.all([gateway.audit(), two.audit()])
})

it('too little for even a short answer is refused', async () => {
  const gateway = await withPack(held(15))
  expect((await gateway.chat({ sandbox: { tokens: 200 } })).status).toBe(402)
})

it('where pack and wallet each cover a part, the longer answer counts, and both pay', async () => {
  const gateway = await withPack(held(60), {}, { wallet_cny: cnyFromNano(price(PROMPT_HELD, 40)) })
  const response = await gateway.chat({ sandbox: { tokens: 200 } })
  expect(response.headers.get('x-weir-max-tokens')).toBe('60')
  await response.text()
  expect(await eventOf(gateway, response)).toMatchObject({ parts: [{ grant: 'pack', amount: used(60) }], overrun_nano: 0n })
  const rest = await gateway.chat({ max_tokens: 30, sandbox: { tokens: 30 } })
  await rest.text()
  const left = held(60) - used(60)
  const due = (price(PROMPT_TOKENS, 30) * (used(30) - left) * 2n + used(30)) / (used(30) * 2n)
  expect((await eventOf(gateway, rest)).parts).toEqual([
    ...(left === 0n ? [] : [{ grant: 'pack', unit: 'tokens', amount: left }]),
    { grant: `wallet:${gateway.tenant}`, unit: 'nano_cny', amount: due },
  ])
  await gateway.audit()
})

it('the longer answer counts also where a budget has room for it', async () => {
  const limits = [{ kind: 'budget' as const, limit: '1000000000000', model: null, window: null }]
  const gateway = await withPack(held(60), {}, { limits, wallet_cny: cnyFromNano(price(PROMPT_HELD, 40)) })
  const response = await gateway.chat({ sandbox: { tokens: 200 } })
  expect(response.headers.get('x-weir-max-tokens')).toBe('60')
  await response.text()
  expect(await eventOf(gateway, response)).toMatchObject({ parts: [{ grant: 'pack', amount: used(60) }], overrun_nano: 0n })
  await gateway.audit()
})

it('a budget caps an answer that a pack could pay for', async () => {
  const limits = [{ kind: 'budget' as const, limit: String(price(PROMPT_HELD, 25)), model: null, window: null }]
  const gateway = await withPack(1_000_000n, {}, { limits })
  const response = await gateway.chat({ sandbox: { tokens: 200 } })
  expect(response.headers.get('x-weir-max-tokens')).toBe('25')
  await response.text()
  expect((await eventOf(gateway, response)).parts).toEqual([{ grant: 'pack', unit: 'tokens', amount: used(25) }])
})

it('a token of a model with a weight takes so many units', async () => {
  const gateway = await withPack(held(40) * 3n, { weights: { solo: '2.5' } })
  const response = await gateway.chat({ max_tokens: 40, sandbox: { tokens: 31 } })
  await response.text()
  const event = await eventOf(gateway, response)
  expect(event.hold.parts).toEqual([{ grant: 'pack', unit: 'tokens', amount: (held(40) * 25n + 9n) / 10n, weight_micro: 2_500_000 }])
  expect(event.parts).toEqual([{ grant: 'pack', unit: 'tokens', amount: (used(31) * 25n + 9n) / 10n }])
  await gateway.audit()
})

it('a pack for another model pays nothing', async () => {
  const gateway = await withPack(1_000_000n, { models: ['pair'] })
  expect((await gateway.chat({ max_tokens: 4 })).status).toBe(402)
  const other = await gateway.chat({ model: 'pair', max_tokens: 4 })
  expect(other.status).toBe(200)
  await other.text()
})

it('embeddings are paid by a pack, whole or not at all', async () => {
  const input = 'some text to embed'
  const bound = BigInt(Math.ceil(estimateEmbeddingsInput(input, 'sandbox') * 1.25))
  const gateway = await withPack(bound)
  const response = await gateway.post('/v1/embeddings', { model: 'embed', input })
  expect(response.status).toBe(200)
  expect(response.headers.has('x-weir-max-tokens')).toBe(false)
  await response.text()
  const event = await eventOf(gateway, response)
  expect(event.parts).toEqual([{ grant: 'pack', unit: 'tokens', amount: BigInt(totalTokens(event.tokens)) }])
  const short = await withPack(bound - 1n)
  expect((await short.post('/v1/embeddings', { model: 'embed', input })).status).toBe(402)
})

it('a long stream takes one slice of the pack after the other, and gives back what it did not use', async () => {
  const gateway = await withPack(10_000n, {}, { settings: { limits: { slice_tokens: 64 } } })
  const response = await gateway.chat({ stream: true, sandbox: { tokens: 3000 } })
  expect(await sseOf(response)).toMatchObject({ done_count: 1, error: null })
  const event = await eventOf(gateway, response)
  expect(event).toMatchObject({ status: 'completed', overrun_nano: 0n, parts: [{ grant: 'pack', amount: used(3000) }] })
  expect(event.hold.parts).toHaveLength(1)
  expect(await packOf(gateway)).toBe(10_000n - used(3000))
  await gateway.audit()
})

it('a stream that uses up the pack ends with an error event, and what was delivered is billed', async () => {
  const pack = held(64 * 3)
  const gateway = await withPack(pack, {}, { settings: { limits: { slice_tokens: 64 } } })
  const response = await gateway.chat({ stream: true, sandbox: { tokens: 2000, token_delay_ms: 1 } })
  const stream = await sseOf(response)
  const event = await eventOf(gateway, response)
  const [served] = gateway.sandbox.served().served
  expect(stream).toMatchObject({ done_count: 0, error: { code: 'insufficient_balance' } })
  expect(event).toMatchObject({ status: 'truncated', code: 'insufficient_balance', usage_source: 'estimated' })
  expect(event.tokens.output).toBeGreaterThanOrEqual(64 * 3)
  expect(event.tokens.output).toBeLessThanOrEqual(served?.sent_tokens ?? 0)
  expect(served?.aborted).toBe(true)
  const total = BigInt(totalTokens(event.tokens))
  const by_pack = total < pack ? total : pack
  expect(event.parts.find(({ unit }) => unit === 'tokens')?.amount).toBe(by_pack)
  expect(await packOf(gateway)).toBe(pack - by_pack)
  // Nothing but the overrun is owed.
  expect((await gateway.storage.limits.balance(gateway.tenant)).available_nano).toBe(-event.overrun_nano)
  expect(event.overrun_nano > 0n).toBe(total > pack)
  await gateway.audit()
})

it('a pack of requests pays for a stream of any length, one request each', async () => {
  const gateway = await withPack(2n, { unit: 'requests' }, { settings: { limits: { slice_tokens: 64 } } })
  for (const tokens of [1000, 10]) {
    const response = await gateway.chat({ stream: true, sandbox: { tokens } })
    expect(await sseOf(response)).toMatchObject({ done_count: 1, error: null })
    const event = await eventOf(gateway, response)
    expect(event.parts).toEqual([{ grant: 'pack', unit: 'requests', amount: 1n }])
    expect(event).toMatchObject({ amount_nano: price(PROMPT_TOKENS, tokens), overrun_nano: 0n })
  }
  expect((await gateway.chat({ stream: true })).status).toBe(402)
  const whole = await withPack(1n, { unit: 'requests' })
  const response = await whole.chat({ sandbox: { tokens: 50 } })
  expect([response.status, response.headers.get('x-weir-max-tokens')]).toEqual([200, null])
  await response.text()
  await Promise.all([gateway.audit(), whole.audit()])
})
