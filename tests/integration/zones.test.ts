import { expect, it } from 'vitest'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { seededRandom } from '../support/random.ts'
import { propertySeed } from '../support/seed.ts'

const seed = propertySeed()
const ZONES = ['private', 'domestic', 'overseas'] as const
const RULES = { owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01', context_tokens: 100_000 }
const FAULTS = [null, { kind: 'refuse', status: 500 }, { kind: 'refuse', status: 429 }, { kind: 'reset' }, { kind: 'refuse', status: 401 }]

type Random = ReturnType<typeof seededRandom>

/** Endpoints whose address begins with their zone, so that the sandbox's own count says where a request went. */
function modelsAt(origin: string, random: Random): Record<string, Record<string, unknown>> {
  const models: Record<string, Record<string, unknown>> = {}
  for (let index = 0; index < 6; index++) {
    const kind = random.pick(['chat', 'chat', 'embeddings'])
    const endpoints = Array.from({ length: random.whole(1, 4) }, (_, position) => {
      const zone = random.pick(ZONES)
      return {
        provider: 'sandbox',
        id: `m${index}-${position}`,
        base_url: `${origin}/${zone}/v1`,
        zone,
        tier: random.whole(1, 3),
        embeddings_batch: 2,
      }
    })
    models[`m${index}`] = {
      ...RULES,
      kind,
      aliases: [`also-${index}`],
      ...(kind === 'embeddings' ? { max_output_tokens: 0 } : {}),
      endpoints,
    }
  }
  return models
}

async function ask(gateway: TestGateway, secret: string, model: string, random: Random): Promise<void> {
  const sandbox = { fail: random.pick(FAULTS), ...(random.whole(0, 3) === 0 ? { first_token_delay_ms: 1200 } : {}) }
  const headers = { authorization: `Bearer ${secret}`, 'x-sandbox': JSON.stringify(sandbox) }
  const stream = random.next() < 0.5
  const chat = { model, messages: [{ role: 'user', content: 'hello' }], stream }
  await (await gateway.post('/v1/chat/completions', chat, headers)).text()
  await (await gateway.post('/v1/embeddings', { model, input: ['a', 'b', 'c', 'd', 'e'] }, headers)).text()
}

it('a prompt never leaves the zones of its tenant, project and key, whatever fails on its way', { timeout: 180_000 }, async () => {
  const random = seededRandom(seed)
  const upstream = await startGateway()
  const origin = upstream.sandbox.url
  const gateway = await startGateway({
    models: modelsAt(origin, random),
    settings: { limits: { keepalive_after_ms: 500 } },
  })
  const subset = (): string[] => ZONES.filter(() => random.next() < 0.6)
  let answered = 0
  for (let round = 0; round < 12; round++) {
    const zones = { tenant: subset(), project: random.next() < 0.5 ? null : subset(), key: random.next() < 0.5 ? null : subset() }
    const { secret } = await gateway.account({
      tenant: { zones: zones.tenant },
      project: { zones: zones.project },
      key: { zones: zones.key },
      wallet_cny: '100000',
    })
    upstream.sandbox.reset()
    const asked = Array.from({ length: 6 }, () => ask(gateway, secret, random.pick(['m', 'also-']) + random.whole(0, 5), random))
    await Promise.all(asked)
    const allowed = ZONES.filter((zone) => [zones.tenant, zones.project, zones.key].every((list) => list === null || list.includes(zone)))
    const { served } = upstream.sandbox.served({ limit: 10_000 })
    answered += served.length
    expect([
      zones,
      [...new Set(served.map(({ path }) => path.split('/')[1]))].filter((zone) => !allowed.some((one) => one === zone)),
    ]).toEqual([zones, []])
  }
  expect(answered).toBeGreaterThan(0)
  await gateway.audit()
})
