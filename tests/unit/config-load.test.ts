import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { summarise } from '../../src/config/check.ts'
import { configDirectory, digestOnDisk, loadConfiguration, readEnvironment } from '../../src/config/load.ts'
import type { LoadResult } from '../../src/config/load.ts'
import type { Configuration, Endpoint } from '../../src/config/model.ts'
import { DOMAINS } from '../../src/base/domains.ts'
import { charge } from '../../src/money/price.ts'
import { NO_CALLS } from '../../src/money/usage.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { REPO_ROOT } from '../support/root.ts'
import { sharedData } from '../support/shared.ts'
import { tempDir } from '../support/temp.ts'

const SOUND = join(REPO_ROOT, 'tests', 'fixtures', 'config', 'sound')
const SHIPPED = join(REPO_ROOT, 'config')
const KEYS = { DEEPSEEK_API_KEY: 'sk-one', DASHSCOPE_API_KEY: 'sk-two' }
const NOON = Date.parse('2026-11-23T12:00:00+08:00')

type Edits = Readonly<Record<string, (text: string) => string>>

function load(config_dir: string, env: Readonly<Record<string, string | undefined>> = KEYS): LoadResult {
  return loadConfiguration({ config_dir, env, providers: [...PROVIDERS.values()] })
}

function loaded(config_dir: string, env: Readonly<Record<string, string | undefined>> = KEYS): Configuration {
  const result = load(config_dir, env)
  if (!result.ok) throw new Error(JSON.stringify(result.issues, null, 2))
  return result.configuration
}

/** The sound fixture with some of its files changed. */
function edited(edits: Edits): string {
  const dir = tempDir()
  cpSync(SOUND, dir, { recursive: true })
  for (const [name, edit] of Object.entries(edits)) writeFileSync(join(dir, name), edit(readFileSync(join(dir, name), 'utf8')))
  return dir
}

function onlyEndpoint(configuration: Configuration): Endpoint {
  const endpoint = configuration.catalogue.models.get('deepseek-flash')?.endpoints[0]
  if (endpoint === undefined) throw new Error('the fixture has no active endpoint')
  return endpoint
}

function pathsOf(result: LoadResult): readonly string[] {
  return result.ok ? [] : result.issues.map((issue) => `${issue.file} ${issue.path}`)
}

const withEndpoint = (lines: string) => (text: string) => text.replace('- provider: deepseek\n', `- ${lines}\n`)

const ROUTES = `models:
  auto:
    candidates:
      - {model: deepseek-flash}
  auto/economy:
    domain: legal
    prefer: cost
    candidates: [{model: deepseek-flash, domain: legal, weight: 0, quality: 70}]
    canary: {model: deepseek-flash, percent: 5}
    max_price: {input: '2', output: '8.5'}
`

describe('virtual models', () => {
  const withRoutes = (text: string): string => {
    const dir = edited({})
    writeFileSync(join(dir, 'routes.yaml'), text)
    return dir
  }

  it('are none without routes.yaml, or when it is empty', () => {
    expect(loaded(SOUND).routes.size).toBe(0)
    expect(loaded(withRoutes('')).routes.size).toBe(0)
  })

  it('have every default filled, and prices in pico-yuan', () => {
    expect([...loaded(withRoutes(ROUTES)).routes.values()]).toEqual([
      {
        id: 'auto',
        domain: null,
        prefer: 'balanced',
        candidates: [{ model: 'deepseek-flash', domain: null, weight: 100, quality: 50 }],
        canary: null,
        max_price_pico: { input: null, output: null },
      },
      {
        id: 'auto/economy',
        domain: 'legal',
        prefer: 'cost',
        candidates: [{ model: 'deepseek-flash', domain: 'legal', weight: 0, quality: 70 }],
        canary: { model: 'deepseek-flash', percent: 5 },
        max_price_pico: { input: 2_000_000n, output: 8_500_000n },
      },
    ])
  })

  it('change the digest, which is the same read from disk', () => {
    const dir = withRoutes(ROUTES)
    expect(loaded(dir).digest).not.toBe(loaded(SOUND).digest)
    expect(digestOnDisk(dir)).toBe(loaded(dir).digest)
    expect(digestOnDisk(SOUND)).toBe(loaded(SOUND).digest)
  })

  it('are summed up with what they can choose and what they lack', () => {
    const text = summarise(loaded(withRoutes(ROUTES)), NOON)
    expect(text).toContain(
      '2 virtual models\n  auto (by prompt, prefers balanced)\n    can choose deepseek-flash (general, weight 100, quality 50)\n',
    )
    expect(text).toContain(
      '    nothing vertical for finance, healthcare, education, government, industrial, legal, retail, customer_service\n',
    )
    expect(text).toContain('  auto/economy (legal, prefers cost, canary deepseek-flash 5 %)\n')
    const without_key = summarise(loaded(withRoutes(ROUTES), {}), NOON)
    expect(without_key).toContain(
      '    warning: nothing to choose\n    cannot choose deepseek-flash (legal, weight 0, quality 70): no key\n    nothing vertical for legal\n',
    )
  })

  it('ship as auto, one per domain, economy and best, each with something to choose once the keys are there', () => {
    const { routes, prices, catalogue } = loaded(SHIPPED)
    expect([...routes.keys()].toSorted()).toEqual(
      ['auto', 'auto/best', 'auto/economy', ...DOMAINS.map((domain) => `auto/${domain}`)].toSorted(),
    )
    for (const { candidates } of routes.values()) {
      const general = candidates.filter(({ model }) => catalogue.models.get(model)?.domain === 'general' && prices.sell.has(model))
      const can = general.flatMap(({ model }) => catalogue.models.get(model)?.capabilities ?? [])
      expect(can).toEqual(expect.arrayContaining(['tools', 'json', 'vision']))
    }
  })
})

describe('the shipped configuration', () => {
  it('is sound with and without keys, lists a chat model first, and says why an endpoint is not active', () => {
    const models = [...loaded(SHIPPED).catalogue.models.values()]
    expect(models.slice(0, 5).map((model) => [model.id, model.kind, model.endpoints.length, model.inactive.length])).toEqual([
      ['deepseek-flash', 'chat', 1, 1],
      ['deepseek-v4-pro', 'chat', 1, 1],
      ['qwen3.8-max', 'chat', 1, 0],
      ['qwen3.7-plus', 'chat', 1, 0],
      ['text-embedding-v4', 'embeddings', 1, 0],
    ])
    const inactive = loaded(SHIPPED, {}).catalogue.models.get('qwen3.7-plus')?.inactive
    expect(inactive?.map(({ endpoint, reason }) => [endpoint, reason])).toEqual([['qwen/qwen3.7-plus', 'DASHSCOPE_API_KEY is not set']])
  })

  it('has a model of every hosted provider for sale, and models for health, schools and law', () => {
    const { catalogue, prices } = loaded(
      SHIPPED,
      Object.fromEntries([...PROVIDERS.values()].map(({ key_variable }) => [key_variable, 'sk-x'])),
    )
    const models = [...catalogue.models.values()]
    const sold = new Set(models.flatMap(({ endpoints }) => endpoints.map(({ provider }) => provider)))
    expect([...sold].toSorted()).toEqual(
      [...PROVIDERS.values()]
        // Applications are everybody's own.
        .filter(({ key_variable, speaks }) => key_variable !== null && speaks === undefined)
        .map(({ id }) => id)
        .toSorted(),
    )
    for (const domain of ['healthcare', 'education', 'legal']) expect(models.filter((model) => model.domain === domain)).not.toEqual([])
    for (const kind of ['chat', 'embeddings', 'rerank'])
      expect(models.filter((model) => model.kind === kind && model.endpoints.length > 0)).not.toEqual([])
    for (const model of models) {
      expect([model.id, model.endpoints.length > 0]).toEqual([model.id, prices.sell.has(model.id)])
      expect(model.capabilities).toContain(model.kind)
    }
  })

  it('lists a model without a price, does not serve it, and says so', () => {
    const configuration = loaded(SHIPPED, { BAICHUAN_API_KEY: 'sk-x' })
    const model = configuration.catalogue.models.get('baichuan-m3')
    expect([model?.domain, model?.endpoints.length, model?.inactive[0]?.reason]).toEqual([
      'healthcare',
      0,
      'the model has no price: write one under sell in price-book.yaml to sell it',
    ])
    expect(summarise(configuration, NOON)).toMatch(/^not sold, for want of a price under sell in price-book.yaml: .*baichuan-m3,/m)
  })

  it('writes out exactly the defaults', () => {
    const dir = tempDir()
    cpSync(SHIPPED, dir, { recursive: true })
    writeFileSync(join(dir, 'weir.yaml'), '')
    expect(loaded(dir).settings).toEqual(loaded(SHIPPED).settings)
    expect(loaded(dir).digest).not.toBe(loaded(SHIPPED).digest)
  })

  it('prices and filings agree with the data they were taken from', (context) => {
    const providers = sharedData('providers.json')
    const filings = sharedData('filings.csv')
    if (providers === null || filings === null) return context.skip('shared data is absent')
    const known = readKnownPrices(readFileSync(providers, 'utf8'))
    const registry = readFileSync(filings, 'utf8')
    const { catalogue, prices } = loaded(SHIPPED, {})
    let compared = 0
    for (const model of catalogue.models.values()) {
      for (const { target } of model.inactive) {
        expect(target.filing === null || (target.filing.row !== null && registry.includes(`,${target.filing.number},`))).toBe(true)
        const row = known.get(`${target.provider} ${target.upstream_model}`) ?? known.get(`${target.provider} ${model.id}`)
        const [version] = prices.cost.get(target.id) ?? []
        if (version === undefined || row === undefined || row.input_price_cny_per_mtok === null) continue
        compared += 1
        const [sold] = prices.sell.get(model.id) ?? []
        if (target === model.inactive[0]?.target) expect(version.rules).toEqual(sold?.rules)
        for (const [input, output, thinking] of QUESTIONS) {
          const expected = listPrice(row, input, output, thinking)
          if (expected === null) continue
          const tokens = { input, cached_input: 0, cache_write: 0, output, reasoning: 0 }
          const { amount_nano } = charge(version, tokens, NO_CALLS, { admitted_at: OFF_PEAK, thinking }, prices.calendar)
          expect([target.id, input, output, Number(amount_nano)]).toEqual([target.id, input, output, Math.round(expected * 1000)])
        }
      }
    }
    expect(compared).toBeGreaterThan(140)
  })

  it('has the windows, holidays and peak prices of 2026', () => {
    const { calendar, sell } = loaded(SHIPPED).prices
    expect(calendar.windows.get('peak')).toEqual([
      { from_minute: 540, to_minute: 720 },
      { from_minute: 840, to_minute: 1080 },
    ])
    expect([calendar.holidays.size, calendar.workdays.size]).toEqual([33, 6])
    const [version] = sell.get('deepseek-flash') ?? []
    expect(version?.id).toBe('sell:deepseek-flash@2026-08-17')
    expect(version?.effective_from).toBe(Date.parse('2026-08-17T00:00:00+08:00'))
    expect(version?.rules.map((rule) => [rule.name, rule.when, rule.tokens])).toEqual([
      ['peak', { window: 'peak' }, { input: 2_000_000n, cached_input: 40_000n, cache_write: 2_000_000n, output: 8_000_000n }],
      ['off_peak', {}, { input: 1_000_000n, cached_input: 20_000n, cache_write: 1_000_000n, output: 4_000_000n }],
    ])
  })
})

/** Lengths of input and output, and whether thinking was on: one on each side of every tier. */
const QUESTIONS: readonly (readonly [input: number, output: number, thinking: boolean])[] = [
  [1000, 100, false],
  [1000, 1000, false],
  [1000, 1000, true],
  [32_001, 100, false],
  [128_001, 1000, false],
  [200_001, 1000, true],
  [256_001, 1000, false],
]
const OFF_PEAK = Date.parse('2026-11-23T03:00:00+08:00')

interface Tier {
  readonly input_gt?: number
  readonly input_lte?: number | null
  readonly output_gt?: number
  readonly output_lte?: number | null
  readonly window?: string
  readonly input?: number
  readonly output?: number
  readonly output_thinking?: number
}
interface KnownPrice extends Tier {
  readonly id: string
  readonly context: number | null
  readonly input_price_cny_per_mtok: number | null
  readonly output_price: number | null
  readonly output_price_thinking?: number
  readonly tiers?: readonly Tier[]
}

/** Micro-yuan times 1000 for one answer, worked out on the recorded tiers; null beyond what was recorded. */
function listPrice(row: KnownPrice, input: number, output: number, thinking: boolean): number | null {
  const within = (value: number, above = 0, up_to: number | null = null): boolean => value > above && (up_to === null || value <= up_to)
  const tiers = (row.tiers ?? []).filter(
    (tier) => tier.window !== 'peak' && within(input, tier.input_gt, tier.input_lte) && within(output, tier.output_gt, tier.output_lte),
  )
  if (row.tiers !== undefined && tiers.length === 0) return null
  const found: Tier = Object.assign({}, ...tiers.toReversed()) as Tier
  const input_price = found.input ?? row.input_price_cny_per_mtok ?? 0
  const output_price = found.output ?? row.output_price ?? 0
  const thought_price = found.output_thinking ?? (row.tiers === undefined ? row.output_price_thinking : undefined) ?? output_price
  return Math.round((input * input_price + output * (thinking ? thought_price : output_price)) * 1e6) / 1e6
}

function readKnownPrices(text: string): ReadonlyMap<string, KnownPrice> {
  const providers = JSON.parse(text) as readonly { provider: string; models: readonly (KnownPrice & { upstream_id?: string })[] }[]
  return new Map(
    providers.flatMap(({ provider, models }) =>
      models.flatMap((model) => [model.id, model.upstream_id ?? model.id].map((id) => [`${provider} ${id}`, model] as const)),
    ),
  )
}

describe('settings', () => {
  it('come from the environment before the file', () => {
    const { settings } = loaded(SOUND, {
      WEIR_PORT: '0',
      WEIR_ADMIN_PORT: '9001',
      WEIR_DATA_DIR: '/tmp/weir',
      https_proxy: 'http://proxy.example:3128',
    })
    expect([settings.port, settings.admin_port, settings.data_dir]).toEqual([0, 9001, '/tmp/weir'])
    expect(settings.proxy).toEqual({ https: 'http://proxy.example:3128', http: null, no_proxy: null })
    expect(loaded(SOUND, {}).settings.data_dir).toBe(resolve('data'))
  })

  it('differ between demo and production where one tenant and no load balancer make the difference', () => {
    const demo = loaded(SOUND, {}).settings
    const production = loaded(SOUND, { NODE_ENV: 'production' }).settings
    expect([demo.mode, demo.limits.tenant_share_percent, demo.drain.delay_ms]).toEqual(['demo', 100, 0])
    expect([production.mode, production.limits.tenant_share_percent, production.drain.delay_ms]).toEqual(['production', 25, 5000])
  })

  it('refuse unusable values of the environment, all at once', () => {
    const env = {
      WEIR_REDIS_URL: 'http://:secret@r',
      WEIR_DATABASE_URL: 'secret',
      WEIR_PORT: '80a',
      WEIR_ADMIN_PORT: '70000',
      WEIR_ROLES: 'gateway,boss',
      WEIR_WORKERS: '0',
      HTTP_PROXY: 'socks5://s',
    }
    const result = load(SOUND, env)
    const expected = ['REDIS_URL', 'DATABASE_URL', 'PORT', 'ADMIN_PORT', 'ROLES', 'WORKERS'].map((name) => `environment WEIR_${name}`)
    expect(pathsOf(result).toSorted()).toEqual([...expected, 'environment HTTP_PROXY'].toSorted())
    expect(JSON.stringify(result)).not.toContain('secret')
  })

  it('are of cluster mode where both URLs are set; one alone is a mistake, and so are parts of a machine without them', () => {
    const urls = { WEIR_REDIS_URL: 'redis://a:6379, redis://b:6379', WEIR_DATABASE_URL: 'postgres://user:pass@p/weir' }
    const { settings } = loaded(SOUND, { ...urls, WEIR_ROLES: 'worker,gateway', WEIR_WORKERS: '3' })
    expect(settings).toMatchObject({ roles: ['gateway', 'worker'], workers: 3 })
    expect(settings.cluster).toMatchObject({ redis_url: urls.WEIR_REDIS_URL, database_url: urls.WEIR_DATABASE_URL, stream_cap: 4000 })
    expect(loaded(SOUND, {}).settings).toMatchObject({ cluster: null, workers: 1, roles: ['gateway', 'control', 'worker'] })
    for (const [name, value] of Object.entries(urls)) expect(pathsOf(load(SOUND, { [name]: value }))).toEqual([`environment ${name}`])
    expect(pathsOf(load(SOUND, { WEIR_WORKERS: '2', WEIR_ROLES: 'gateway' }))).toEqual(['weir.yaml workers', 'weir.yaml roles'])
  })

  it('are read from the environment in one place', () => {
    expect(readEnvironment()['PATH']).toBe(process.env['PATH'])
    expect(Object.isFrozen(readEnvironment())).toBe(true)
    expect(configDirectory({})).toBe('./config')
    expect(configDirectory({ WEIR_CONFIG_DIR: '/etc/weir' })).toBe('/etc/weir')
  })
})

describe('references', () => {
  const owner = (text: string) => ({ 'catalogue.yaml': (yaml: string) => yaml.replace('owned_by: deepseek', () => `owned_by: '${text}'`) })
  const ownedBy = (text: string, env: Readonly<Record<string, string>>) =>
    loaded(edited(owner(text)), env).catalogue.models.get('deepseek-flash')?.owned_by

  it('are filled from the environment, their defaults and files', () => {
    expect(ownedBy('${WHO}', { WHO: 'us' })).toBe('us')
    expect(ownedBy('a-${WHO:-nobody}-${WHO:-}b', {})).toBe('a-nobody-b')
    expect(ownedBy('${WHO:-nobody}', { WHO: '' })).toBe('nobody')
    expect(ownedBy('$${WHO}', { WHO: 'us' })).toBe('${WHO}')
    const file = join(tempDir(), 'secret')
    writeFileSync(file, ' sk-file\n')
    const dir = edited({ 'catalogue.yaml': (text) => text.replace('${DEEPSEEK_API_KEY}', `\${file:${file}}`) })
    expect(onlyEndpoint(loaded(dir)).api_key).toBe('sk-file')
  })

  it('make an endpoint inactive when its key is not set, or has none at all', () => {
    const reasons = (dir: string) =>
      loaded(dir, {})
        .catalogue.models.get('deepseek-flash')
        ?.inactive.map((entry) => entry.reason)
    expect(reasons(SOUND)).toEqual(['DEEPSEEK_API_KEY is not set'])
    expect(reasons(edited({ 'catalogue.yaml': withEndpoint('{provider: deepseek, api_key: "${OTHER_KEY}"}') }))).toEqual([
      'OTHER_KEY is not set',
    ])
    const without = edited({ 'catalogue.yaml': (text) => text.replace(/ {4}api_key.*\n/, '') })
    expect(reasons(without)).toEqual(['no api_key is given for deepseek (usually api_key: ${DEEPSEEK_API_KEY})'])
  })

  it('never show what they were filled with', () => {
    const dir = edited({ 'catalogue.yaml': (text) => text.replace('kind: chat', 'kind: ${SECRET}') })
    const text = JSON.stringify(load(dir, { ...KEYS, SECRET: 'sk very secret', DEEPSEEK_API_KEY: 'not a key' }))
    expect(text).toContain('${SECRET}')
    expect(text).not.toContain('very secret')
    expect(text).not.toContain('not a key')
    expect(summarise(loaded(SOUND), NOON)).not.toContain('sk-one')
  })
})

describe('endpoints', () => {
  it('take what they do not say from their provider, and that from its facts', () => {
    const endpoint = onlyEndpoint(loaded(SOUND))
    const facts = PROVIDERS.get('deepseek')
    expect(endpoint).toMatchObject({
      id: 'deepseek/deepseek-flash',
      base_url: facts?.base_url,
      upstream_model: 'deepseek-flash',
      api_key: 'sk-one',
      zone: 'domestic',
      tier: 1,
      weight: 1,
      filing: null,
      sandbox: false,
      timeouts: { connect_timeout_ms: 5000, ...facts?.timeouts },
      transport: { ca_file: null, cert_file: null, key_file: null, proxy: null },
    })
  })

  it('may say it all themselves; self-hosted ones are private and need no key', () => {
    const dir = edited({
      'catalogue.yaml': withEndpoint(
        '{id: own/a, provider: vllm, base_url: "http://127.0.0.1:8000/v1//", upstream_model: Qwen/Q, tier: 2, weight: 7, ' +
          'ca_file: ca.pem, timeouts: {silence_timeout_ms: 9}}',
      ),
    })
    writeFileSync(join(dir, 'ca.pem'), 'x')
    expect(onlyEndpoint(loaded(dir))).toMatchObject({
      id: 'own/a',
      base_url: 'http://127.0.0.1:8000/v1',
      upstream_model: 'Qwen/Q',
      api_key: null,
      zone: 'private',
      tier: 2,
      weight: 7,
      timeouts: { silence_timeout_ms: 9 },
      transport: { ca_file: join(dir, 'ca.pem') },
    })
  })
})

describe('prices', () => {
  it('are ordered newest first and accept an instant with offset', () => {
    const older =
      "    - {version: old, effective_from: '2026-01-01T09:00+08:00', source: s, as_of: '2026-01-01'," +
      " rules: [{name: all, input: '0.000001', output: '3', search: '0.004'}]}\n"
    const { sell } = loaded(
      edited({ 'price-book.yaml': (text) => text.replace('  deepseek-flash:\n', `  deepseek-flash:\n${older}`) }),
    ).prices
    expect(sell.get('deepseek-flash')?.map((version) => version.id)).toEqual(['sell:deepseek-flash@2026-08-17', 'sell:deepseek-flash@old'])
    const old = sell.get('deepseek-flash')?.[1]
    expect(old?.effective_from).toBe(Date.parse('2026-01-01T01:00:00Z'))
    expect(old?.rules[0]).toEqual({
      name: 'all',
      when: {},
      tokens: { input: 1n, cached_input: 1n, cache_write: 1n, output: 3_000_000n },
      calls: { search: 4_000_000n, image: 0n },
    })
  })
})

describe('the result', () => {
  it('is frozen all the way down', () => {
    const configuration = loaded(SHIPPED)
    const endpoint = onlyEndpoint(configuration)
    const rule = configuration.prices.sell.get('deepseek-flash')?.[0]?.rules[0]
    for (const part of [configuration, configuration.settings.limits, endpoint, endpoint.timeouts, rule, rule?.tokens])
      expect(Object.isFrozen(part)).toBe(true)
  })

  it('survives documents that are hostile rather than mistaken', () => {
    const bomb = ['a: &a [x, x, x, x, x, x, x, x, x]']
    for (let level = 1; level < 12; level++)
      bomb.push(`k${level}: &l${level} [${Array.from({ length: 9 }, () => `*${level === 1 ? 'a' : `l${level - 1}`}`).join(', ')}]`)
    for (const text of [
      bomb.join('\n'),
      'limits: &x {again: *x}',
      '? [a]\n: b',
      '--- a\n--- b',
      '- list',
      '"text"',
      '__proto__: {polluted: 1}',
      '\u0000',
      '['.repeat(2000),
    ]) {
      const result = load(edited({ 'weir.yaml': () => text }))
      expect([text.slice(0, 20), result.ok]).toEqual([text.slice(0, 20), false])
      expect(pathsOf(result).every((path) => path.startsWith('weir.yaml'))).toBe(true)
    }
    expect(Reflect.get({}, 'polluted')).toBeUndefined()
  })

  it('is summarised with what is active, why the rest is not, and the prices in force', () => {
    const text = summarise(loaded(SHIPPED, { DEEPSEEK_API_KEY: 'sk-one' }), NOON)
    expect(text).toContain('158 models, 2 active endpoints')
    expect(text).toContain('sells by sell:deepseek-flash@2026-08-17')
    expect(text).toContain('endpoint qwen/qwen3.8-max: not active, DASHSCOPE_API_KEY is not set')
    expect(text).not.toContain('warning')
    expect(summarise(loaded(SHIPPED), Date.parse('2027-03-01'))).toContain('no holidays of 2027')
    expect(summarise(loaded(SHIPPED), Date.parse('2026-01-01'))).toContain(
      'nothing today, then sell:deepseek-flash@2026-08-17 from 2026-08-17',
    )
  })
})

it('an endpoint at a service that is hosted abroad is overseas unless it says otherwise', () => {
  const zoneOf = (lines: string): string =>
    onlyEndpoint(loaded(edited({ 'catalogue.yaml': withEndpoint(`{id: own/a, provider: dify, api_key: x, ${lines}}`) }))).zone
  expect(zoneOf('base_url: "https://dify.internal/v1"')).toBe('private')
  expect(zoneOf('base_url: "https://api.dify.ai/v1"')).toBe('overseas')
  expect(zoneOf('base_url: "https://notdify.ai/v1"')).toBe('private')
  expect(zoneOf('base_url: "https://api.dify.ai/v1", zone: private')).toBe('private')
})
