import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ROUTING_LIMITS } from '../../src/control/routing.ts'
import { KeyTable } from '../../src/gateway/keys.ts'
import type { KeyRecord } from '../../src/storage/records.ts'
import { type Outcome, runCommand } from '../support/command.ts'
import { openControl, type TestControl } from '../support/control.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'

const PATH = '/admin/v1/tenants/acme/routing'
const candidate = { model: 'qwen3-max' }
const WHOLE = {
  rules: [{ domain: 'medical', keywords: ['挂号', ' MRI '] }],
  samples: [{ text: '我的快递到哪了', domain: 'parcels' }],
  models: {
    'acme/fast': {
      prefer: 'cost',
      candidates: [{ model: 'qwen', domain: 'tourism', weight: 3, quality: 9 }, { model: 'sandbox-chat' }],
      canary: { model: 'qwen', percent: 2.5 },
      max_price: { input: '2.50' },
    },
  },
}

async function withTenant(): Promise<TestControl> {
  const control = await openControl(tempDir())
  for (const id of ['acme', 'other']) await control.call('POST', '/admin/v1/tenants', { id })
  return control
}

const many = <Item>(count: number, item: (at: number) => Item): Item[] => Array.from({ length: count }, (_, at) => item(at))

describe('the admin API', () => {
  test('takes a whole document and gives it back, with spellings, aliases and defaults resolved', async () => {
    const { call } = await withTenant()
    const nothing = await call('GET', PATH)
    expect(nothing.body).toEqual({
      ...{ object: 'tenant_routing', tenant: 'acme', version: 0, rules: [], samples: [], models: {}, own_domains: [], updated_at: null },
    })
    const put = await call('PUT', PATH, WHOLE)
    expect(put).toMatchObject({ status: 200, body: { version: 1, own_domains: ['parcels'] } })
    expect(put.body).toMatchObject({
      rules: [{ domain: 'healthcare', keywords: ['挂号', 'MRI'] }],
      samples: [{ text: '我的快递到哪了', domain: 'parcels' }],
      models: {
        'acme/fast': {
          domain: null,
          prefer: 'cost',
          candidates: [
            { model: 'qwen3-max', domain: 'customer_service', weight: 3, quality: 9 },
            { model: 'sandbox-chat', domain: null, weight: 100, quality: 50 },
          ],
          canary: { model: 'qwen3-max', percent: 2.5 },
          max_price: { input: '2.5', output: null },
        },
      },
    })
    expect((await call('GET', PATH)).body).toEqual(put.body)
    expect((await call('GET', '/admin/v1/tenants/other/routing')).body).toMatchObject({ version: 0, rules: [] })
  })

  test('an answer that was edited can be sent back, unless somebody else was faster', async () => {
    const { call } = await withTenant()
    const { body } = await call('PUT', PATH, WHOLE)
    const edited = { ...body, samples: [] }
    expect(await call('PUT', PATH, edited)).toMatchObject({ status: 200, body: { version: 2, samples: [] } })
    expect(await call('PUT', PATH, edited)).toMatchObject({ status: 409, body: { error: { code: 'conflict', param: 'version' } } })
    expect((await call('PUT', '/admin/v1/tenants/other/routing', { ...edited, version: 0 })).text).toContain('is of tenant')
    const both = await Promise.all([call('PUT', PATH, { version: 2 }), call('PUT', PATH, { version: 2, rules: WHOLE.rules })])
    expect(new Set(both.map(({ status }) => status))).toEqual(new Set([200, 409]))
  })

  test('what is cleared is gone, from the log of changes too', async () => {
    const { call, storage } = await withTenant()
    await call('PUT', PATH, WHOLE)
    expect(await call('DELETE', PATH)).toMatchObject({ status: 200, body: { version: 2, rules: [], samples: [], models: {} } })
    const everything = JSON.stringify(
      [await storage.records.changesAfter(0, 100), await storage.records.routing('acme')],
      (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value),
    )
    expect(everything).not.toContain('快递')
  })

  test('tenants that do not exist are not found', async () => {
    const { call } = await withTenant()
    for (const method of ['GET', 'PUT', 'DELETE']) {
      expect((await call(method, '/admin/v1/tenants/nobody/routing', method === 'PUT' ? {} : undefined)).status).toBe(404)
    }
  })

  const MISTAKES: ReadonlyArray<readonly [unknown, string]> = [
    [{ rules: [{ domain: 'no domain', keywords: ['x'] }] }, 'rules.0.domain: "no domain" is no domain: write a domain such as'],
    [{ rules: [{ domain: 'own', keywords: [] }] }, 'rules.0.keywords: at least one keyword'],
    [{ rules: [{ domain: 'own', keywords: ['a', ' '] }] }, 'rules.0.keywords.1: is empty'],
    [{ rules: [{ domain: 'own', keywords: [12306] }] }, 'rules.0.keywords.0: write text, in quotes'],
    [{ rules: [{ domain: 'own', keywords: ['a', 'b', 'Ａ'] }] }, 'rules.0.keywords.2: is the same as rules.0.keywords.0'],
    [{ samples: [{ text: '\n', domain: 'own' }] }, 'samples.0.text: is empty'],
    [
      {
        samples: [
          { text: 'a', domain: 'own' },
          { text: 'a', domain: 'legal' },
        ],
      },
      'samples.1: has the text of samples.0 and another domain',
    ],
    [{ models: { 'qwen3-max': { candidates: [candidate] } } }, 'models.qwen3-max: is the name of a model already'],
    [{ models: { auto: { candidates: [candidate] } } }, "models.auto: names that begin with auto are the operator's"],
    [{ models: { 'auto/x': { candidates: [candidate] } } }, "models.auto/x: names that begin with auto are the operator's"],
    [{ models: { '/x': { candidates: [candidate] } } }, 'models./x: is no name of a model'],
    [{ models: { 'a/x': { candidates: [] } } }, 'models.a/x.candidates: at least one candidate'],
    [{ models: { 'a/x': { candidates: [{ model: 'nobody' }] } } }, 'models.a/x.candidates.0.model: the catalogue has no "nobody"'],
    [{ models: { 'a/x': { candidates: [{ model: 'text-embedding-v4' }] } } }, '"text-embedding-v4" is no chat model'],
    [{ models: { 'a/x': { candidates: [candidate, { model: 'qwen' }] } } }, 'models.a/x.candidates.1.model: qwen3-max is given twice'],
    [
      { models: { 'a/x': { candidates: [candidate], canary: { model: 'sandbox-chat', percent: 1 } } } },
      'canary.model: "sandbox-chat" is not a candidate',
    ],
    [
      { models: { 'a/x': { candidates: [candidate], max_price: { input: 2 } } } },
      'max_price.input: write CNY per million tokens as a string',
    ],
    [{ models: { 'a/x': { candidates: [{ ...candidate, weight: 1001 }] } } }, 'models.a/x.candidates.0.weight'],
    [{ models: { 'a/x': { candidates: [candidate], prefer: 'luck' } } }, 'models.a/x.prefer'],
    [{ rulez: [] }, 'rulez'],
    [[], 'the request'],
  ]

  test('each mistake is named with its path, and then nothing changes', async () => {
    const { call } = await withTenant()
    for (const [body, words] of MISTAKES) {
      const { status, body: answer } = await call('PUT', PATH, body)
      const { error } = answer as { error: { message: string } }
      expect([status, error.message]).toEqual([400, expect.stringContaining(words)])
    }
    expect((await call('GET', PATH)).body['version']).toBe(0)
  })

  test('every mistake is named at once, the first fifty of many', async () => {
    const { call } = await withTenant()
    const two = await call('PUT', PATH, { rules: [{ domain: '', keywords: ['x'] }], samples: [{ text: '', domain: 'x1' }] })
    expect(two.text).toContain('rules.0.domain')
    expect(two.text).toContain('samples.0.text')
    const { text } = await call('PUT', PATH, { samples: many(400, () => ({ text: '', domain: 'x1' })) })
    expect(text).toContain('samples.49.text')
    expect(text).not.toContain('samples.50.text')
    expect(text).toContain('and 350 more')
  })

  const rule = (at: number): object => ({ domain: 'own', keywords: [`k${at}`] })
  const sample = (at: number): object => ({ text: `s${at}`, domain: 'own' })
  const virtual = { candidates: [candidate] }
  test.each([
    ['rules', ROUTING_LIMITS.rules, (count: number) => ({ rules: many(count, rule) })],
    ['keywords', ROUTING_LIMITS.keywords, (count: number) => ({ rules: [{ domain: 'own', keywords: many(count, (at) => `k${at}`) }] })],
    [
      'characters of a keyword',
      ROUTING_LIMITS.keyword_length,
      (count: number) => ({ rules: [{ domain: 'own', keywords: ['x'.repeat(count)] }] }),
    ],
    ['samples', ROUTING_LIMITS.samples, (count: number) => ({ samples: many(count, sample) })],
    [
      'characters of a sample',
      ROUTING_LIMITS.sample_length,
      (count: number) => ({ samples: [{ text: 'x'.repeat(count), domain: 'own' }] }),
    ],
    ['models', ROUTING_LIMITS.models, (count: number) => ({ models: Object.fromEntries(many(count, (at) => [`a/${at}`, virtual])) })],
  ])('there may be so many %s: %i, and not one more', async (_, most, document) => {
    const { call } = await withTenant()
    expect((await call('PUT', PATH, document(most + 1))).text).toContain(`at most ${most}`)
    expect((await call('PUT', PATH, document(most))).status).toBe(200)
  })

  test('the largest document there may be is taken, each of its characters escaped', async () => {
    const { deps, call } = await withTenant()
    const keywords = (at: number): string[] =>
      many(ROUTING_LIMITS.keywords, (index) => `${at}号${index}`.padEnd(ROUTING_LIMITS.keyword_length, '字'))
    const largest = {
      rules: many(ROUTING_LIMITS.rules, (at) => ({ domain: 'own', keywords: keywords(at) })),
      samples: many(ROUTING_LIMITS.samples, (at) => ({ text: `${at}`.padEnd(ROUTING_LIMITS.sample_length, '字'), domain: 'own' })),
    }
    expect(await call('PUT', PATH, largest)).toMatchObject({ status: 200 })
    const escaped = JSON.stringify(largest).replaceAll(
      /[^\x20-\x7e]/g,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
    )
    expect(escaped.length).toBeLessThan(16_777_216)
    const stored = await deps.records.routing('acme')
    expect(stored?.samples).toEqual(largest.samples)
  })
})

describe('what the data plane has of it', () => {
  const KEY: KeyRecord = {
    ...{
      id: 'key-1',
      tenant: 'acme',
      project: 'acme/default',
      name: 'test',
      hash: 'ab',
      last4: 'wxyz',
      scopes: [],
      models: null,
      zones: null,
    },
    ...{ limits: [], expires_at: null, revoked_at: null, created_at: 1 },
  }

  test('is with the caller from the next change on, prepared once, and after a start', async () => {
    const { call, storage } = await withTenant()
    await storage.records.put({ kind: 'key', record: KEY })
    const keys = new KeyTable()
    await keys.load(storage.records)
    expect(keys.find('ab')?.routing).toBeNull()
    await call('PUT', PATH, WHOLE)
    expect(keys.find('ab')?.routing).toBeNull()
    await keys.follow(storage.records)
    const routing = keys.find('ab')?.routing
    expect([...(routing?.models.keys() ?? [])]).toEqual(['acme/fast'])
    expect(routing?.models.get('acme/fast')?.max_price_pico).toEqual({ input: 2_500_000n, output: null })
    expect(routing?.evidence?.rules?.find('我要挂号')?.domain).toBe('healthcare')
    await call('PUT', '/admin/v1/tenants/other/routing', WHOLE)
    await keys.follow(storage.records)
    expect(keys.find('ab')?.routing).toBe(routing)
    const started = new KeyTable()
    await started.load(storage.records)
    expect(started.find('ab')?.routing?.evidence?.samples).not.toBeNull()
    await call('DELETE', PATH)
    for (const table of [keys, started]) {
      await table.follow(storage.records)
      expect(table.find('ab')?.routing).toBeNull()
    }
  })
})

describe('the command line', () => {
  const weir = (dir: string, ...args: string[]): Promise<Outcome> =>
    runCommand(args, { WEIR_DATA_DIR: dir, WEIR_CONFIG_DIR: join(REPO_ROOT, 'config') })
  const YAML = `
rules:
  - domain: medical
    keywords: [挂号, "12306"]
samples:
  - {text: 我的快递到哪了, domain: helthcare}
models:
  acme/fast:
    prefer: cost
    candidates:
      - model: deepseek-flash
      - model: qwen-plus
`

  test('sets, shows, tests and clears; what is shown can be set again', async () => {
    const dir = tempDir()
    await weir(dir, 'tenant', 'create', 'acme')
    expect((await weir(dir, 'tenant', 'routing', 'show', 'acme')).out).toContain('nothing was said yet')
    const file = join(dir, 'acme.yaml')
    writeFileSync(file, YAML)
    const set = await weir(dir, 'tenant', 'routing', 'set', 'acme', file)
    expect(set).toMatchObject({ code: 0, err: '' })
    expect(set.out).toContain('1 rules with 2 keywords, 1 samples, 1 virtual models')
    expect(set.out).toContain('helthcare (or did you mean healthcare?)')
    const shown = await weir(dir, 'tenant', 'routing', 'show', 'acme')
    writeFileSync(file, shown.out)
    expect((await weir(dir, 'tenant', 'routing', 'set', 'acme', file)).out).toContain('version 2')
    expect(await weir(dir, 'tenant', 'routing', 'set', 'acme', file)).toMatchObject({
      code: 1,
      err: expect.stringContaining('it is 2 now, not 1') as unknown,
    })
    const json = join(dir, 'acme.json')
    writeFileSync(json, (await weir(dir, 'tenant', 'routing', 'show', 'acme', '--json')).out)
    expect((await weir(dir, 'tenant', 'routing', 'set', 'acme', json)).out).toContain('version 3')
    expect((await weir(dir, 'tenant', 'routing', 'clear', 'acme')).out).toContain('says nothing of routing any more')
    expect((await weir(dir, 'tenant', 'routing', 'show', 'acme')).out).toContain('rules: []')
  })

  test('says what decides a prompt: a keyword, a sample, or the classifier', async () => {
    const dir = tempDir()
    await weir(dir, 'tenant', 'create', 'acme')
    const file = join(dir, 'acme.yaml')
    writeFileSync(file, YAML)
    await weir(dir, 'tenant', 'routing', 'set', 'acme', file)
    const tested = (...args: string[]): Promise<Outcome> => weir(dir, 'tenant', 'routing', 'test', 'acme', ...args)
    expect((await tested('我要挂号')).out).toMatch(/^healthcare \(1\.00\), decided by the keyword "挂号" of a rule\n/)
    expect((await tested('我的快递到哪里了')).out).toMatch(/^helthcare \(0\.\d\d\), decided by samples\.0, which it is much like\n/)
    const classified = await tested('起诉离婚需要准备哪些材料，法院如何判决子女抚养权？')
    expect(classified.out).toMatch(/^legal \(\d\.\d\d\), decided by the classifier\n/)
    expect(classified.out).toContain('no rule has one that is in it')
    const { out } = await tested('hello', '--system', '你负责挂号', '--json')
    expect(JSON.parse(out)).toMatchObject({
      domain: 'healthcare',
      by: 'rule',
      keyword: '挂号',
      sample: null,
      classifier: { sure_from: 0.73 },
    })
  })

  test('files that cannot be used are named, with what is wrong', async () => {
    const dir = tempDir()
    await weir(dir, 'tenant', 'create', 'acme')
    const setting = async (name: string, text: string | null): Promise<Outcome> => {
      const file = join(dir, name)
      if (text !== null) writeFileSync(file, text)
      return await weir(dir, 'tenant', 'routing', 'set', 'acme', file)
    }
    expect(await setting('none.yaml', null)).toMatchObject({ code: 1, err: expect.stringContaining('ENOENT') as unknown })
    expect(await setting('none.json', null)).toMatchObject({ code: 1, err: expect.stringContaining('ENOENT') as unknown })
    expect(await setting('broken.json', '{')).toMatchObject({ code: 1, err: expect.stringContaining('is not JSON') as unknown })
    expect(await setting('broken.yaml', 'rules: [')).toMatchObject({ code: 1, err: expect.stringContaining('broken.yaml:1') as unknown })
    expect(await setting('list.yaml', '- a')).toMatchObject({ code: 2, err: expect.stringContaining('no mapping') as unknown })
    expect(await setting('text.json', '"a"')).toMatchObject({ code: 2 })
    expect(await setting('taken.yaml', 'models: {deepseek-flash: {candidates: [{model: qwen-plus}]}}')).toMatchObject({
      code: 1,
      err: expect.stringContaining('models.deepseek-flash: is the name of a model already') as unknown,
    })
    expect(await weir(dir, 'tenant', 'routing')).toMatchObject({
      code: 2,
      err: expect.stringContaining('weir tenant routing show') as unknown,
    })
  })
})
