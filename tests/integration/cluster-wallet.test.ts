import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { admin, knownTo, newFleet, newTenant, noCluster } from '../support/cluster.ts'
import { CHAT_MODEL, EMBEDDING_MODEL } from '../support/fleet.ts'
import { startPostgres } from '../support/postgres.ts'
import { startRedis } from '../support/redis.ts'
import { errorOf } from '../support/sse.ts'

const CLIENTS = 1000
const PAID = 100
const TOKENS = 40
const PROCESSES = 4
const BURST = 100

/** Output alone is charged, so that what is held for a request is what it costs: 40 tokens at 8 CNY per million. */
const PRICES = `calendar: {}
sell:
  ${CHAT_MODEL}: [{version: output-only, effective_from: '2026-01-01', source: tests, as_of: '2026-01-01', rules: [{name: all, input: '0', output: '8'}]}]
  ${EMBEDDING_MODEL}: [{version: free, effective_from: '2026-01-01', source: tests, as_of: '2026-01-01', rules: [{name: all, input: '0', output: '0'}]}]
cost: {}
`
const WALLET_CNY = '0.032'
const SETTINGS = `limits: {max_open_requests: 2000, tenant_share_percent: 100, upstream_connections_per_origin: 2500, slice_tokens: 64}
drain: {timeout_ms: 20000}
log: {level: warn}
`

interface Answer {
  readonly status: number
  readonly text: string
}

/** All at once, a few at a time, each on a connection of its own: so every process gets its share. */
async function crowd(url: string, key: string, stream: boolean): Promise<readonly Answer[]> {
  const body = JSON.stringify({
    model: CHAT_MODEL,
    stream,
    max_tokens: TOKENS,
    messages: [{ role: 'user', content: 'hello' }],
    sandbox: { tokens: TOKENS, first_token_delay_ms: 2500 },
  })
  const one = async (): Promise<Answer> => {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
    const response = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body })
    return { status: response.status, text: await response.text() }
  }
  const answers: Promise<Answer>[] = []
  while (answers.length < CLIENTS) {
    for (let n = 0; n < BURST; n += 1) answers.push(one())
    await sleep(5)
  }
  return await Promise.all(answers)
}

it.skipIf(noCluster !== null)(
  'of 1,000 parallel requests on a wallet for 100, exactly 100 are served by four gateway processes, streamed or not',
  async () => {
    const fleet = await newFleet({ redis_url: (await startRedis()).url, postgres: await startPostgres() })
    writeFileSync(join(fleet.config_dir, 'price-book.yaml'), PRICES)
    writeFileSync(join(fleet.config_dir, 'weir.yaml'), SETTINGS)
    const catalogue = join(fleet.config_dir, 'catalogue.yaml')
    writeFileSync(catalogue, readFileSync(catalogue, 'utf8').replaceAll('timeout_ms: 1000', 'timeout_ms: 30000'))
    const machine = await fleet.start('one', { workers: PROCESSES })
    for (const [tenant, stream] of [
      ['whole', false],
      ['streamed', true],
    ] as const) {
      const key = await newTenant(machine, tenant, WALLET_CNY)
      await knownTo([machine], key)
      await sleep(1000)
      const answers = await crowd(machine.url, key, stream)
      const refused = answers.filter(({ status }) => status !== 200)
      const codes = await Promise.all(refused.map(async ({ text }) => (await errorOf(new Response(text))).code))
      expect([...new Set(codes)]).toEqual(['insufficient_balance'])
      expect([answers.length - refused.length, refused.length]).toEqual([PAID, CLIENTS - PAID])
      expect(await admin(machine, `/balance/${tenant}`)).toMatchObject({ available_cny: '0', held_cny: '0', open_requests: 0 })
    }
    await fleet.rest(machine)
    const books = await fleet.books()
    expect(books.events.filter(({ amount_nano }) => amount_nano === '320000')).toHaveLength(2 * PAID)
    expect(new Set(books.events.map(({ node }) => node)).size).toBe(PROCESSES)
    await fleet.expectAudit('one')
    expect(await machine.stop()).toEqual({ code: 0, signal: null })
  },
)
