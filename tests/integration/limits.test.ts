import { expect, it } from 'vitest'
import { estimateChatPrompt } from '../../src/money/estimate.ts'
import { cnyFromNano } from '../../src/money/amount.ts'
import type { LimitSetting } from '../../src/storage/records.ts'
import { HELLO, INPUT_NANO, OUTPUT_NANO, startGateway, type TestGateway } from '../support/gateway.ts'
import { errorOf, sseOf } from '../support/sse.ts'
import { waitFor } from '../support/wait.ts'

const PROMPT_TOKENS = estimateChatPrompt({ messages: HELLO }, 'sandbox')
const PROMPT_HELD = Math.ceil(PROMPT_TOKENS * 1.25)
/** What is held for {@link HELLO} with so much output. */
const held = (output: number): bigint => BigInt(PROMPT_HELD) * INPUT_NANO + BigInt(output) * OUTPUT_NANO
const billed = (output: number): bigint => BigInt(PROMPT_TOKENS) * INPUT_NANO + BigInt(output) * OUTPUT_NANO
const limit = (kind: LimitSetting['kind'], amount: number | bigint, window: LimitSetting['window'] = null): LimitSetting => ({
  kind,
  limit: String(amount),
  model: null,
  window,
})
const statuses = (responses: readonly Response[]): string =>
  responses
    .map(({ status }) => String(status))
    .toSorted()
    .join(' ')

/** Looks at the balance at every turn of the loop until told to stop, and answers the least that was available. */
function watchBalance(gateway: TestGateway): { readonly least: () => bigint } {
  let least: bigint | null = null
  const look = async (): Promise<void> => {
    const { available_nano } = await gateway.storage.limits.balance(gateway.tenant)
    least = least === null || available_nano < least ? available_nano : least
    next = setImmediate(() => void look())
  }
  let next = setImmediate(() => void look())
  return {
    least: () => {
      clearImmediate(next)
      return least ?? -1n
    },
  }
}

it.each([true, false])('of parallel requests exactly as many run as the wallet can pay for (stream %s)', async (stream) => {
  const gateway = await startGateway({ wallet_cny: cnyFromNano(held(40) * 7n + held(40) - 1n) })
  const watch = watchBalance(gateway)
  const requests = Array.from({ length: 30 }, () =>
    gateway.chat({ stream, max_tokens: 40, sandbox: { tokens: 40, first_token_delay_ms: 1500 } }),
  )
  const responses = await Promise.all(requests)
  await Promise.all(responses.map((response) => response.text()))
  expect(statuses(responses)).toBe([...Array<number>(7).fill(200), ...Array<number>(23).fill(402)].join(' '))
  expect(watch.least()).toBeGreaterThanOrEqual(0n)
  expect(await gateway.audit()).toEqual({ events: 7, amount_nano: billed(40) * 7n })
  const { available_nano, held_nano } = await gateway.storage.limits.balance(gateway.tenant)
  expect([available_nano, held_nano]).toEqual([held(40) * 8n - 1n - billed(40) * 7n, 0n])
})

it('a refusal for money names what there is, what is held and what is needed', async () => {
  const gateway = await startGateway({ wallet_cny: cnyFromNano(held(40) - 1n) })
  const response = await gateway.chat({ max_tokens: 40 })
  const error = await errorOf(response)
  expect([response.status, error.code, error.type]).toEqual([402, 'insufficient_balance', 'billing_error'])
  expect(error.message).toContain(cnyFromNano(held(40) - 1n))
  expect(error.message).toContain(cnyFromNano(held(40)))
  expect(response.headers.get('x-should-retry')).toBe('false')
  expect(gateway.sandbox.served().totals.requests).toBe(0)
  expect((await gateway.audit()).events).toBe(0)
})

it('exactly the money that a request needs is enough', async () => {
  const gateway = await startGateway({ wallet_cny: cnyFromNano(held(40)) })
  expect((await gateway.chat({ max_tokens: 40 })).status).toBe(200)
})

it('a credit line pays where the wallet ends, and no further', async () => {
  const gateway = await startGateway({ wallet_cny: '0', tenant: { credit_line_nano: held(40) } })
  expect((await gateway.chat({ max_tokens: 41 })).status).toBe(402)
  expect((await gateway.chat({ max_tokens: 40, sandbox: { tokens: 40 } })).status).toBe(200)
  expect((await gateway.chat({ max_tokens: 40 })).status).toBe(402)
  expect((await gateway.audit()).amount_nano).toBe(billed(40))
})

it('requests per minute: as many as the limit, then 429 with a time to come back, and nothing left of the refused', async () => {
  const gateway = await startGateway({ limits: [limit('requests_per_minute', 3)] })
  const first = await gateway.chat({})
  expect(first.headers.get('x-ratelimit-limit-requests')).toBe('3')
  expect(first.headers.get('x-ratelimit-remaining-requests')).toBe('2')
  expect(first.headers.get('x-ratelimit-reset-requests')).toMatch(/^\d+ms$/)
  const responses = await Promise.all([1, 2, 3, 4].map(() => gateway.chat({})))
  expect(statuses(responses)).toBe('200 200 429 429')
  const refused = responses.find(({ status }) => status === 429)
  expect((await errorOf(refused ?? new Response('{}'))).code).toBe('rate_limit_exceeded')
  expect(Number(refused?.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(refused?.headers.has('x-should-retry')).toBe(false)
  expect((await gateway.audit()).events).toBe(3)
})

it('tokens per minute count what was used, not what was held, once a request has ended', async () => {
  const gateway = await startGateway({ limits: [limit('tokens_per_minute', PROMPT_HELD + 1000)] })
  const big = { max_tokens: 1000, sandbox: { tokens: 10 } }
  const first = await gateway.chat(big)
  expect(first.headers.get('x-ratelimit-remaining-tokens')).toBe('0')
  await first.text()
  const small = await gateway.chat({ max_tokens: 800, sandbox: { tokens: 800 } })
  expect(small.status).toBe(200)
  await small.text()
  const over = await gateway.chat({ max_tokens: 800 })
  expect([over.status, (await errorOf(over)).code]).toEqual([429, 'rate_limit_exceeded'])
  expect((await gateway.audit()).events).toBe(2)
})

it('a request larger than the whole limit of tokens per minute is told not to come back', async () => {
  const gateway = await startGateway({ limits: [limit('tokens_per_minute', 100)] })
  const response = await gateway.chat({ max_tokens: 1000 })
  expect([response.status, (await errorOf(response)).code]).toEqual([429, 'rate_limit_exceeded'])
  expect(response.headers.get('x-should-retry')).toBe('false')
})

it('concurrency: never more at once than the limit, and the next as soon as one has ended', async () => {
  const gateway = await startGateway({ limits: [limit('concurrency', 2)] })
  const slow = { max_tokens: 5, sandbox: { first_token_delay_ms: 1000 } }
  const responses = await Promise.all([1, 2, 3, 4, 5].map(() => gateway.chat(slow)))
  expect(statuses(responses)).toBe('200 200 429 429 429')
  const refused = responses.find(({ status }) => status === 429)
  expect((await errorOf(refused ?? new Response('{}'))).code).toBe('concurrency_exceeded')
  expect(Number(refused?.headers.get('retry-after'))).toBeGreaterThan(0)
  expect((await gateway.chat({})).status).toBe(200)
  expect((await gateway.audit()).events).toBe(3)
})

it('a budget that is used up is 402, another key of the tenant goes on', async () => {
  const gateway = await startGateway({ limits: [limit('budget', held(40), 'month')] })
  const request = { max_tokens: 40, sandbox: { tokens: 40 } }
  expect((await gateway.chat(request)).status).toBe(200)
  const refused = await gateway.chat(request)
  expect([refused.status, (await errorOf(refused)).code]).toEqual([402, 'budget_exceeded'])
  expect((await gateway.audit()).amount_nano).toBe(billed(40))
})

it('a window of the plan that is used up is 429 with the time it opens again, and no retry', async () => {
  const gateway = await startGateway({ limits: [limit('requests_window', 1, 'day')] })
  expect((await gateway.chat({})).status).toBe(200)
  const refused = await gateway.chat({})
  const error = await errorOf(refused)
  expect([refused.status, error.code]).toEqual([429, 'quota_exhausted'])
  expect(error.message).toMatch(/\d{4}-\d\d-\d\dT/)
  expect(refused.headers.get('x-should-retry')).toBe('false')
})

it('a whole answer without max_tokens is capped to what the wallet covers', async () => {
  const gateway = await startGateway({ wallet_cny: cnyFromNano(held(40)) })
  const response = await gateway.chat({ sandbox: { tokens: 200 } })
  const body = (await response.json()) as { choices: [{ finish_reason: string }]; usage: { completion_tokens: number } }
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(response.headers.get('x-weir-max-tokens')).toBe('40')
  expect(body.usage.completion_tokens).toBe(40)
  expect(body.choices[0].finish_reason).toBe('length')
  expect(event).toMatchObject({ status: 'completed', flags: expect.arrayContaining(['capped']), amount_nano: billed(40), overrun_nano: 0n })
  await gateway.audit()
})

it('too little for even a short answer is refused rather than capped to nothing', async () => {
  const gateway = await startGateway({ wallet_cny: cnyFromNano(held(15)) })
  expect((await gateway.chat({ sandbox: { tokens: 200 } })).status).toBe(402)
  expect((await gateway.audit()).events).toBe(0)
})

it('a stream that outgrows the wallet ends with an error event, and what was delivered is billed', async () => {
  const wallet = held(64 * 3)
  const gateway = await startGateway({ wallet_cny: cnyFromNano(wallet), settings: { limits: { slice_tokens: 64 } } })
  const response = await gateway.chat({ stream: true, sandbox: { tokens: 2000, token_delay_ms: 1 } })
  const stream = await sseOf(response)
  const event = await gateway.event(response.headers.get('x-request-id'))
  const [served] = gateway.sandbox.served().served
  expect(stream).toMatchObject({ done_count: 0, error: { code: 'insufficient_balance' } })
  expect(event).toMatchObject({ status: 'truncated', code: 'insufficient_balance', usage_source: 'estimated' })
  expect(event?.tokens.output).toBeGreaterThanOrEqual(64 * 3)
  expect(event?.tokens.output).toBeLessThanOrEqual(served?.sent_tokens ?? 0)
  expect(served?.aborted).toBe(true)
  await gateway.audit()
  const { available_nano } = await gateway.storage.limits.balance(gateway.tenant)
  expect(available_nano).toBe(wallet - (event?.amount_nano ?? 0n))
  expect(-available_nano).toBeLessThanOrEqual(event?.overrun_nano ?? 0n)
})

it('a stream longer than its first slice goes on while there is money, and is billed whole', async () => {
  const gateway = await startGateway({ settings: { limits: { slice_tokens: 64 } } })
  const response = await gateway.chat({ stream: true, sandbox: { tokens: 3000 } })
  const stream = await sseOf(response)
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(stream).toMatchObject({ done_count: 1, error: null })
  expect(event).toMatchObject({ status: 'completed', amount_nano: billed(3000), overrun_nano: 0n })
  expect(event?.hold.amount_nano).toBeGreaterThanOrEqual(billed(3000))
  await gateway.audit()
})

it('a key that was revoked while its stream runs is refused at once for everything after', async () => {
  const gateway = await startGateway()
  const open = await gateway.chat({ stream: true, sandbox: { tokens: 50, token_delay_ms: 20 } })
  await gateway.revoke(gateway.main_account.key)
  expect((await gateway.chat({})).status).toBe(401)
  expect(await sseOf(open)).toMatchObject({ done_count: 1, error: null })
  await gateway.audit()
})

it('one tenant at its share of the node leaves room for another', async () => {
  const gateway = await startGateway({
    settings: { limits: { max_open_requests: 4, tenant_share_percent: 50, upstream_connections_per_origin: 10 } },
  })
  const other = await gateway.account()
  const slow = { sandbox: { first_token_delay_ms: 1500 } }
  const mine = [1, 2, 3].map(() => gateway.chat(slow))
  await waitFor(() => gateway.plane.open.total === 2, { timeout_ms: 10_000, what: 'two requests to be open' })
  const theirs = await gateway.chat({}, { authorization: `Bearer ${other.secret}` })
  expect(theirs.status).toBe(200)
  expect(statuses(await Promise.all(mine))).toBe('200 200 429')
  await gateway.audit()
})

it('every answer of a call that came as far as admission says what is left of the rates', async () => {
  const rates = [limit('requests_per_minute', 60), limit('tokens_per_minute', 600_000)]
  const gateway = await startGateway({ limits: [...rates, limit('requests_window', 4, 'day')] })
  const told = async (response: Response): Promise<string> => {
    await response.text()
    const { headers, status } = response
    const all = ['limit', 'remaining', 'reset'].every((what) =>
      ['requests', 'tokens'].every((unit) => headers.has(`x-ratelimit-${what}-${unit}`)),
    )
    return `${status} ${all} ${headers.get('x-ratelimit-remaining-requests')}`
  }
  expect(await told(await gateway.chat({ max_tokens: 4 }))).toBe('200 true 59')
  expect(await told(await gateway.chat({ max_tokens: 4, stream: true }))).toBe('200 true 58')
  const broken = { fail: { kind: 'refuse', status: 400 } }
  expect(await told(await gateway.chat({ max_tokens: 4, sandbox: broken }))).toBe('400 true 57')
  expect(await told(await gateway.chat({ max_tokens: 4, sandbox: { fail: { kind: 'cut_before_headers' } } }))).toMatch(/^50\d true 5\d$/)
  expect(await told(await gateway.chat({ max_tokens: 1_000_000, n: 128 }))).toMatch(/^402 true \d+$/)
  const before = await gateway.chat({ max_tokens: 0 })
  expect([before.status, before.headers.has('x-ratelimit-limit-requests')]).toEqual([400, false])
  await gateway.chat({ max_tokens: 4 })
  await gateway.chat({ max_tokens: 4 })
  expect(await told(await gateway.chat({ max_tokens: 4 }))).toMatch(/^429 true \d+$/)
})

it.each([
  [limit('requests_per_minute', 1), /key requests_per_minute of 1: available 0, needed 1\. Try again in \d+ s/],
  [limit('tokens_per_minute', 60), /needs \d+, more than the rate limit key tokens_per_minute of 60 ever has \(available 60\)/],
  [limit('concurrency', 0), /key concurrency: 0 are running, the limit is 0/],
  [limit('requests_window', 1, 'day'), /key requests_window of 1 per day is used up until 20\S+Z: available 0, held 0, needed 1/],
  [
    limit('tokens_window', 60, '5h'),
    /needs \d+, more than the plan limit key tokens_window of 60 per 5h ever gives \(available 60, held 0\)/,
  ],
  [
    limit('amount_window', 1_500_000, 'week'),
    /of 0\.0015 CNY per week is used up until 20\S+Z: available 0\.\d+ CNY, held 0 CNY, needed 0\.\d+ CNY/,
  ],
  [
    limit('budget', 1_500_000, 'month'),
    /budget key budget of 0\.0015 CNY per month is used up until 20\S+Z: available 0\.\d+ CNY, held 0 CNY, needed 0/,
  ],
  [
    limit('budget', 1_500_000),
    /budget key budget of 0\.0015 CNY does not cover this request: available 0\.\d+ CNY, held 0 CNY, needed 0\.\d+ CNY/,
  ],
])('a refusal names the limit, what there is, what is held and needed, and when it frees: %o', async (setting, message) => {
  const gateway = await startGateway({ limits: [setting] })
  await (await gateway.chat({ max_tokens: 100, sandbox: { tokens: 100 } })).text()
  const refused = await gateway.chat({ max_tokens: 100 })
  expect([402, 429]).toContain(refused.status)
  expect(await errorOf(refused)).toEqual({
    message: expect.stringMatching(message),
    type: expect.any(String),
    param: null,
    code: expect.any(String),
    request_id: refused.headers.get('x-request-id'),
  })
  const waits = refused.headers.has('retry-after')
  expect(waits || refused.headers.get('x-should-retry') === 'false').toBe(true)
})

it('a stream that a budget ends says so, and not that the balance is short', async () => {
  const limits = [limit('budget', held(64 * 3))]
  const gateway = await startGateway({ limits, settings: { limits: { slice_tokens: 64 } } })
  const response = await gateway.chat({ stream: true, sandbox: { tokens: 2000, token_delay_ms: 1 } })
  expect(await sseOf(response)).toMatchObject({
    done_count: 0,
    error: { code: 'budget_exceeded', message: expect.stringContaining('key budget') },
  })
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(event).toMatchObject({ status: 'truncated', code: 'budget_exceeded' })
  await gateway.audit()
})

it.each([
  [limit('requests_per_minute', 1), /^已达到密钥的每分钟请求数（上限 1）：可用 0，需要 1。请在 \d+ 秒后重试。$/],
  [limit('concurrency', 0), /^密钥的并发数过高：当前 0 个，上限 0 个。请稍后重试。$/],
  [limit('requests_window', 1, '5h'), /^密钥的每 5 小时请求数（上限 1）已用完，将于 20\S+Z 恢复：可用 0，已冻结 0，需要 1。$/],
  [limit('budget', 400_000, 'month'), /^密钥的每月预算（上限 0.0004 CNY）已用完，将于 20\S+Z 恢复/],
])('a refusal by %o is said in Chinese throughout to a tenant that reads Chinese', async (setting, words) => {
  const gateway = await startGateway()
  const { secret } = await gateway.account({ limits: [setting], tenant: { locale: 'zh' } })
  const authorization = { authorization: `Bearer ${secret}` }
  await (await gateway.chat({ max_tokens: 40 }, authorization)).text()
  const { error } = (await (await gateway.chat({ max_tokens: 40 }, authorization)).json()) as { error: { message: string } }
  expect(error.message).toMatch(words)
})
