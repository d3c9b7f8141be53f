import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { cnyFromNano } from '../../src/money/amount.ts'
import { estimateChatPrompt } from '../../src/money/estimate.ts'
import type { UsageEvent } from '../../src/money/event.ts'
import { HELLO, INPUT_NANO, OUTPUT_NANO, startGateway, type GatewayOptions, type TestGateway } from '../support/gateway.ts'
import { giveGrant } from '../support/grants.ts'
import { errorOf, readSse } from '../support/sse.ts'

const CLIENTS = 1000
const PAID = 100
const TOKENS = 40
const PROMPT_TOKENS = estimateChatPrompt({ messages: HELLO }, 'sandbox')
const PROMPT_HELD = Math.ceil(PROMPT_TOKENS * 1.25)
/** Requests go out a few at a time, so that the machine's backlog of connections is no part of the test; all run at once all the same. */
const BURST = 100
const BALANCE_EVERY_MS = 20

/** A gateway that charges for output alone, so that what is held for a request of {@link TOKENS} tokens is what it costs. */
async function outputOnly(options: GatewayOptions): Promise<TestGateway> {
  const gateway = await startGateway({
    ...options,
    settings: { limits: { max_open_requests: 2000, tenant_share_percent: 100, upstream_connections_per_origin: 2500, slice_tokens: 64 } },
  })
  gateway.reprice('output-only', '0', '8')
  gateway.reload()
  return gateway
}

/** Asks for the balance all the time, as a tenant and inside, until told to stop. */
function watch(gateway: TestGateway): { stop(): Promise<{ readonly least_nano: bigint; readonly seen: number }> } {
  const over = new AbortController()
  let seen = 0
  let least_nano = 2n ** 63n
  const look = async (): Promise<void> => {
    while (!over.signal.aborted) {
      const { available_nano, grants } = await gateway.storage.limits.balance(gateway.tenant)
      const response = await gateway.get('/v1/balance')
      const { available_cny } = (await response.json()) as { available_cny: string }
      if (available_cny.startsWith('-')) least_nano = -1n
      for (const free of [available_nano, ...grants.map(({ balance, held }) => balance - held)]) if (free < least_nano) least_nano = free
      seen += 1
      await sleep(BALANCE_EVERY_MS)
    }
  }
  const watching = look()
  return {
    stop: async () => {
      over.abort()
      await watching
      return { least_nano, seen }
    },
  }
}

/** All clients at once; resolves with their answers, read to the end. */
async function crowd(
  gateway: TestGateway,
  body: Readonly<Record<string, unknown>>,
): Promise<readonly { response: Response; text: string }[]> {
  const answers: Promise<{ response: Response; text: string }>[] = []
  while (answers.length < CLIENTS) {
    for (let n = 0; n < BURST; n += 1)
      answers.push(gateway.chat(body).then(async (response) => ({ response, text: await response.text() })))
    await sleep(5)
  }
  return Promise.all(answers)
}

/** Exactly {@link PAID} were served; every other was told that there is no money, and not to come back. */
async function expectRefusals(answers: readonly { response: Response; text: string }[]): Promise<void> {
  const served = answers.filter(({ response }) => response.status === 200)
  const refused = answers.filter(({ response }) => response.status !== 200)
  expect([served.length, refused.length]).toEqual([PAID, CLIENTS - PAID])
  const told = await Promise.all(
    refused.map(async ({ response, text }) => {
      const { code } = await errorOf(new Response(text))
      return [response.status, code, response.headers.get('x-should-retry'), response.headers.has('retry-after')].join(' ')
    }),
  )
  expect([...new Set(told)]).toEqual(['402 insufficient_balance false false'])
}

async function expectNothingHeld(gateway: TestGateway): Promise<void> {
  const { held_nano, open_holds, grants } = await gateway.storage.limits.balance(gateway.tenant)
  expect([held_nano, open_holds, grants.filter(({ held }) => held !== 0n)]).toEqual([0n, 0, []])
  expect(await (await gateway.get('/v1/balance')).json()).toMatchObject({ held_cny: '0', open_requests: 0 })
}

it.each([false, true])('of 1,000 parallel requests on a wallet for 100, exactly 100 are served (stream %s)', async (stream) => {
  const wallet_nano = BigInt(PAID * TOKENS) * OUTPUT_NANO
  const gateway = await outputOnly({ wallet_cny: cnyFromNano(wallet_nano) })
  const watching = watch(gateway)
  const answers = await crowd(gateway, { stream, max_tokens: TOKENS, sandbox: { tokens: TOKENS, first_token_delay_ms: 300 } })
  const { least_nano, seen } = await watching.stop()
  await expectRefusals(answers)
  expect(least_nano).toBe(0n)
  expect(seen).toBeGreaterThan(5)
  expect(await gateway.audit()).toEqual({ events: PAID, amount_nano: wallet_nano })
  await expectNothingHeld(gateway)
  expect((await gateway.storage.limits.balance(gateway.tenant)).available_nano).toBe(0n)
})

it('the same on a pack of requests', async () => {
  const gateway = await outputOnly({ wallet_cny: '0' })
  await giveGrant(gateway, gateway.tenant, 'calls', { unit: 'requests', amount: BigInt(PAID) })
  const watching = watch(gateway)
  const answers = await crowd(gateway, { max_tokens: TOKENS, sandbox: { tokens: TOKENS, first_token_delay_ms: 100 } })
  expect((await watching.stop()).least_nano).toBe(0n)
  await expectRefusals(answers)
  expect(await gateway.audit()).toMatchObject({ events: PAID })
  await expectNothingHeld(gateway)
  const { grants, available_nano } = await gateway.storage.limits.balance(gateway.tenant)
  expect([grants.find(({ id }) => id === 'calls')?.balance, available_nano]).toEqual([0n, 0n])
})

it('the same on a pack of tokens: what the margin of the prompt gives back is too little for one more', async () => {
  // Every request gives back less than 1/100 of what one takes.
  const tokens = (PROMPT_HELD - PROMPT_TOKENS) * PAID + 1
  const gateway = await outputOnly({ wallet_cny: '0' })
  await giveGrant(gateway, gateway.tenant, 'pack', { unit: 'tokens', amount: BigInt(PAID * (PROMPT_HELD + tokens)) })
  const watching = watch(gateway)
  const answers = await crowd(gateway, { max_tokens: tokens, sandbox: { tokens } })
  expect((await watching.stop()).least_nano).toBe(0n)
  await expectRefusals(answers)
  expect(await gateway.audit()).toMatchObject({ events: PAID })
  await expectNothingHeld(gateway)
  const { grants } = await gateway.storage.limits.balance(gateway.tenant)
  expect(grants.find(({ id }) => id === 'pack')?.balance).toBe(BigInt(PAID * (PROMPT_HELD - PROMPT_TOKENS)))
})

/** One stream; with `leave`, cut by its client after some of it. */
async function oneStream(gateway: TestGateway, tokens: number, leave: boolean): Promise<'whole' | 'refused' | 'cut' | 'left'> {
  const response = await gateway.chat({ stream: true, sandbox: { tokens, token_delay_ms: 1 } })
  if (response.status !== 200) return 'refused'
  if (leave) {
    const reader = response.body?.getReader()
    for (let reads = 0; reads < 20; reads += 1) await reader?.read()
    await reader?.cancel()
    return 'left'
  }
  const { done_count, error } = readSse(await response.text())
  if (done_count === 1) return 'whole'
  expect(error?.code).toBe('insufficient_balance')
  return 'cut'
}

async function overrunsOf({ storage, tenant }: TestGateway): Promise<readonly UsageEvent[]> {
  const { events } = await storage.ledger.events({ tenant, overrun: true, limit: 1000 })
  const all = await storage.ledger.events({ tenant, limit: 1000 })
  expect(new Set(events.map(({ id }) => id))).toEqual(
    new Set(all.events.filter(({ overrun_nano }) => overrun_nano > 0n).map(({ id }) => id)),
  )
  return events
}

it.each(['money', 'tokens'] as const)(
  'streams of many slices spend no more than there is, but for the overruns on their events (%s)',
  async (unit) => {
    // Every stream may begin; few can go on to their end.
    const amount = 150n * 64n
    const gateway = await outputOnly({ wallet_cny: unit === 'money' ? cnyFromNano(amount * OUTPUT_NANO) : '0' })
    if (unit === 'tokens') await giveGrant(gateway, gateway.tenant, 'pack', { unit: 'tokens', amount })
    const endings = await Promise.all(Array.from({ length: 120 }, (_, n) => oneStream(gateway, n % 3 === 0 ? 60 : 400, n % 10 === 9)))
    await gateway.audit()
    await expectNothingHeld(gateway)
    const overruns = await overrunsOf(gateway)
    const { events } = await gateway.storage.ledger.events({ tenant: gateway.tenant, limit: 1000 })
    const paid = events
      .flatMap(({ parts }) => parts)
      .reduce((sum, part) => sum + (part.unit === 'tokens' ? part.amount * OUTPUT_NANO : part.amount), 0n)
    const overrun_nano = overruns.reduce((sum, event) => sum + event.overrun_nano, 0n)
    expect(paid).toBeLessThanOrEqual(amount * OUTPUT_NANO + overrun_nano)
    const { available_nano } = await gateway.storage.limits.balance(gateway.tenant)
    expect(available_nano).toBeGreaterThanOrEqual(-overrun_nano)
    expect(new Set(endings)).toEqual(new Set(['whole', 'cut', 'left', ...(endings.includes('refused') ? ['refused'] : [])]))
  },
)

it('what an answer costs beyond its hold is charged, listed as an overrun, and paid before anything else', async () => {
  const gateway = await outputOnly({ wallet_cny: cnyFromNano(BigInt(TOKENS) * OUTPUT_NANO) })
  const response = await gateway.chat({ max_tokens: TOKENS, sandbox: { tokens: TOKENS, report: { completion_tokens: TOKENS + 60 } } })
  expect(response.status).toBe(200)
  await response.text()
  await gateway.audit()
  const overrun_nano = 60n * OUTPUT_NANO
  expect(await overrunsOf(gateway)).toMatchObject([{ id: response.headers.get('x-request-id'), overrun_nano }])
  expect((await gateway.storage.limits.balance(gateway.tenant)).available_nano).toBe(-overrun_nano)
  expect((await gateway.chat({ max_tokens: 1 })).status).toBe(402)
})

it.each([
  ['by default', {}, 2 * 4096 + 16_384],
  ['as the catalogue says', { attachment_tokens: { image: 16_384, video: 100 } }, 2 * 16_384 + 100],
  ['never more than the model reads', { context_tokens: 5000, max_output_tokens: 1000 }, 5000],
])('attachments are held for by their kind: %s', async (_, solo, bound) => {
  const gateway = await startGateway({ models: { solo } })
  const url = { url: 'data:,' }
  const parts = [
    { type: 'text', text: 'hello' },
    { type: 'image_url', image_url: url },
    { type: 'image_url', image_url: url },
    { type: 'video_url', video_url: url },
  ]
  const response = await gateway.chat({ messages: [{ role: 'user', content: parts }], max_tokens: 10 })
  expect(response.status).toBe(200)
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(event?.hold.amount_nano).toBe(BigInt(PROMPT_HELD + bound) * INPUT_NANO + 10n * OUTPUT_NANO)
  await gateway.audit()
})
