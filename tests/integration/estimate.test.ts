import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Clock } from '../../src/base/clock.ts'
import { linesOf } from '../../src/cli/estimate/lines.ts'
import { type Outcome, runCommand } from '../support/command.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'

const model = (fields: string): string => `
    kind: chat
    owned_by: somebody
    tokenizer: sandbox
    created: '2026-08-17'
    endpoints: [{provider: deepseek}]
    ${fields.trim().replaceAll('\n', '\n    ')}`
const CATALOGUE = `
providers:
  deepseek: {}
models:
  small:${model('context_tokens: 100\nmax_output_tokens: 50')}
  large:${model('domain: legal\ncontext_tokens: 100000\ncapabilities: [tools]\naliases: [big]')}
  thinker:${model('context_tokens: 100000\nthinking: by_default')}
  unpriced:${model('context_tokens: 100000')}
`
const version = (rules: string): string => `
    - version: '1'
      effective_from: '2026-08-17'
      source: https://example.cn/prices
      as_of: '2026-08-17'
      rules: ${rules}`
const PRICES = `
calendar:
  windows: {peak: ['09:00-12:00']}
sell:
  unpriced: unknown
  small:${version("[{name: peak, when: {window: peak}, input: '2', output: '8'}, {name: all, input: '1', output: '4'}]")}
  large:${version("[{name: all, input: '2', output: '8'}]")}
  thinker:${version("[{name: thinking, when: {thinking: true}, input: '1', output: '10'}, {name: plain, input: '1', output: '1'}]")}
`
const ROUTES = `
models:
  auto: {candidates: [{model: small}, {model: large}]}
  cheap: {candidates: [{model: small}], max_price: {output: '5'}}
  legal/all: {domain: legal, candidates: [{model: small}, {model: large}]}
`
/** A Friday, 13:00 in Shanghai. */
const NOON = Date.parse('2026-11-27T13:00:00+08:00')
const at = (now_ms: number, step_ms = 0): Clock => {
  let monotonic_ms = 0
  return { now_ms: () => now_ms, monotonic_ms: () => (monotonic_ms += step_ms) }
}

interface Setting {
  readonly dir: string
  readonly env: Record<string, string>
  estimate(lines: string | Buffer, args?: string, clock?: Clock): Promise<Outcome>
}

function setUp(): Setting {
  const dir = tempDir()
  const config = join(dir, 'config')
  mkdirSync(config)
  const files = {
    'weir.yaml': 'limits: {max_body_bytes: 4096}',
    'catalogue.yaml': CATALOGUE,
    'price-book.yaml': PRICES,
    'routes.yaml': ROUTES,
  }
  for (const [name, text] of Object.entries(files)) writeFileSync(join(config, name), text)
  const env = { WEIR_CONFIG_DIR: config, WEIR_DATA_DIR: join(dir, 'data') }
  const file = join(dir, 'prompts.jsonl')
  return {
    dir,
    env,
    estimate: async (lines, args = '', clock = at(NOON)) => {
      writeFileSync(file, lines)
      return await runCommand(['estimate', file, ...args.split(' ').filter((word) => word !== '')], env, clock)
    },
  }
}

/** 1 token for each run of up to 8 letters and each other character; 4 for a message, 3 for the answer. */
const LINES = [
  '{"text":"abcdefgh ijk"}', // 9
  '{"messages":[{"role":"user","content":"hello"}],"max_tokens":10,"n":2}', // 8
  '{"custom_id":"a","body":{"messages":[{"role":"user","content":"hello world"}],"tools":[{"type":"function"}]}}', // 20
  '"hi"', // 8
  'hi there', // 9
  '{"prompt":"hi"}', // 8
  '{broken',
  '',
  '[1]',
  '{"input":"hi"}',
  '{"messages":[]}',
  '{"text":" "}',
  '{"text":"hi","metadata":{"domain":"law"}}', // 8
  '{"body":{"input":"hi"}}',
]

async function jsonOf(outcome: Promise<Outcome>): Promise<Record<string, unknown>> {
  const { code, out, err } = await outcome
  expect([code, err]).toEqual([0, ''])
  return JSON.parse(out) as Record<string, unknown>
}

describe('sums that were computed by hand', () => {
  test('of each model, of the domains, and of what auto chooses', async () => {
    const { estimate } = setUp()
    const json = await jsonOf(estimate(LINES.join('\r\n'), '--json'))
    expect(json).toMatchObject({
      requests: 7,
      tenant: null,
      priced_at: '2026-11-27T05:00:00.000Z',
      prompt_tokens: { low: 70, high: 70 },
      // 6 × 400 and 2 × 10.
      output_tokens: { assumed: 2420, by_max_tokens: 1, each_otherwise: 400, said: false },
      unread: {
        lines: 6,
        first: [
          { line: 7, why: 'is not JSON' },
          { line: 9, why: 'is a list, where an object or a text was expected' },
          { line: 10, why: 'has no messages, text or prompt' },
          { line: 11, why: 'has no messages' },
          { line: 12, why: 'has an empty text' },
        ],
      },
      // small: (9+8+8+9+8+8) × 1 000 + (50+20+50+50+50+50) × 4 000 nano; large: 70 × 2 000 + 2 420 × 8 000; thinker: 50 × 1 000 + 2 020 × 10 000.
      models: [
        { model: 'large', amount_cny: '0.0195', requests: 7, unable: {}, served_by: 'sandbox' },
        { model: 'small', amount_cny: '0.00113', requests: 6, unable: { tools: 1 } },
        { model: 'thinker', amount_cny: '0.02025', requests: 6, unable: { tools: 1 } },
      ],
      domains: [
        { domain: 'general', requests: 6, share: 6 / 7, chosen: [{ model: 'small', requests: 5, amount_cny: '0.000922' }], unserved: 1 },
        {
          domain: 'legal',
          requests: 1,
          mean_confidence: 1,
          chosen: [{ model: 'large', requests: 1, amount_cny: '0.003216' }],
          unserved: 0,
        },
      ],
      route: { name: 'auto', requests: 6, unserved: 1, amount_cny: '0.004138' },
    })
    const { out } = await estimate(LINES.join('\n'))
    for (const words of [
      '7 requests, 6 lines could not be read\n  line 7 is not JSON\n',
      '  and 1 more\n',
      'Prompt tokens, by estimate: 70.\n',
      'Output tokens, assumed: 2,420 (max_tokens of 1 requests, 400 for each of 6 without it; --output-tokens says otherwise).\n',
      '"auto" would cost 0.004138 CNY in all. None of its models can answer 1 of them.\n',
      'Prices in force on 2026-11-27',
    ])
      expect(out).toContain(words)
    expect(out).toMatch(/^large +0\.0195 +all +sandbox until its key is set$/m)
    expect(out).toMatch(/^small +0\.00113 +6 +sandbox until its key is set +1 for tools$/m)
  })

  test('with another length of answers, other models, another virtual model, and at another time of day', async () => {
    const { estimate } = setUp()
    const of = async (args: string, clock?: Clock): Promise<Record<string, unknown>> =>
      jsonOf(estimate('hi\n"hi"\n', `--json ${args}`, clock))
    expect(await of('--models big --output-tokens 7')).toMatchObject({
      output_tokens: { assumed: 14, said: true },
      models: [{ model: 'large', amount_cny: '0.000144' }],
    })
    expect(((await of('--models big,large')) as { models: object[] }).models).toHaveLength(1)
    const peak = await of('--models small --route cheap', at(Date.parse('2026-11-27T09:00:00+08:00')))
    expect(peak).toMatchObject({ models: [{ amount_cny: '0.000832' }], route: { unserved: 2 } })
    expect(await of('--models small')).toMatchObject({ models: [{ amount_cny: '0.000416' }] })
    expect(await of('--route legal/all')).toMatchObject({ route: { name: 'legal/all', requests: 2, amount_cny: '0.006432' } })
    expect(await of('--route nothing')).toMatchObject({ route: null })
    expect((await estimate('hi', '--route nothing')).out).toContain('There is no virtual model "nothing"')
  })

  test('what a request says of thinking decides among the rules of a price', async () => {
    const { estimate } = setUp()
    const amounts = async (body: object): Promise<unknown> => {
      const line = JSON.stringify({ text: 'hi', max_tokens: 1, ...body })
      const { models } = (await jsonOf(estimate(line, '--json --models thinker'))) as { models: Array<{ amount_cny: string }> }
      return models[0]?.amount_cny
    }
    expect(await amounts({})).toBe('0.000018')
    expect(await amounts({ enable_thinking: false })).toBe('0.000009')
    expect(await amounts({ reasoning_effort: 'none' })).toBe('0.000009')
  })
})

describe('what cannot be read', () => {
  test('prompts that no model has room for, bytes that are no text, and lines beyond the limit are told apart', async () => {
    const { estimate } = setUp()
    const long = JSON.stringify({ text: 'word '.repeat(200) })
    const lines = Buffer.concat([
      ...[
        Buffer.from('\ufeff"hi"\n'),
        Buffer.from([0x22, 0xff, 0x22, 0x0a]),
        Buffer.from(`${long}\n`),
        Buffer.from(`"${'x'.repeat(5000)}"`),
      ],
    ])
    expect(await jsonOf(estimate(lines, '--json --models small'))).toMatchObject({
      requests: 2,
      models: [{ requests: 1, unable: { context_length: 1 } }],
      unread: {
        lines: 2,
        first: [
          { line: 2, why: 'is not UTF-8' },
          { line: 4, why: 'is longer than the 4,096 bytes that a request may have' },
        ],
      },
    })
  })

  test('a file without a request, one that is not there, and names of nothing exit with what is wrong', async () => {
    const { estimate, env, dir } = setUp()
    expect(await estimate('{\n')).toMatchObject({
      code: 1,
      err: expect.stringContaining('no request that could be read (1 lines could not: line 1') as unknown,
    })
    expect(await estimate('')).toMatchObject({ code: 1 })
    expect(await runCommand(['estimate', join(dir, 'none')], env)).toMatchObject({
      code: 1,
      err: expect.stringContaining('ENOENT') as unknown,
    })
    expect(await runCommand(['estimate', dir], env)).toMatchObject({ code: 1, err: expect.stringContaining('EISDIR') as unknown })
    expect(await estimate('hi', '--models smal')).toMatchObject({
      code: 2,
      err: expect.stringContaining('did you mean "small"?') as unknown,
    })
    expect(await estimate('hi', '--models unpriced')).toMatchObject({ code: 2 })
    expect(await estimate('hi', '--output-tokens 0')).toMatchObject({ code: 2 })
    expect(await estimate('hi', '--tenant nobody')).toMatchObject({
      code: 1,
      err: expect.stringContaining('no tenant "nobody"') as unknown,
    })
    writeFileSync(join(dir, 'config', 'routes.yaml'), 'models: 1')
    expect(await estimate('hi')).toMatchObject({ code: 1, err: expect.stringContaining('routes.yaml') as unknown })
  })

  test('lines of any length come whole, whatever chunks they are read in', async () => {
    const file = join(tempDir(), 'lines')
    const lines = [0, 1, 262_143, 0, 262_144, 600_000, 5].map((length, index) => String(index).repeat(length))
    writeFileSync(file, lines.join('\n'))
    let read = 0
    const found: Array<string | null> = []
    for await (const { number, bytes } of linesOf(file, 599_999, (count) => (read += count))) {
      expect(number).toBe(found.length + 1)
      found.push(bytes?.toString() ?? null)
    }
    expect(found).toEqual(lines.map((line) => (line.length > 599_999 ? null : line)))
    expect(read).toBe(lines.join('\n').length)
  })
})

describe('without a gateway', () => {
  test('nothing is opened but the configuration and the file, and long work is told of', async () => {
    const { estimate, env } = setUp()
    const { code, err } = await estimate('hi\n'.repeat(10), '', at(NOON, 3000))
    expect([code, err]).toEqual([0, '10 requests read, 100%\n'])
    expect(existsSync(env['WEIR_DATA_DIR'] ?? '')).toBe(false)
  })

  test("a tenant's keywords, zones and audience count", async () => {
    const { estimate, env, dir } = setUp()
    const weir = (...args: string[]): Promise<Outcome> => runCommand(args, env)
    await weir('tenant', 'create', 'acme', '--audience', 'internal')
    await weir('tenant', 'create', 'open')
    const file = join(dir, 'acme.json')
    const models = {
      'acme/desk': { candidates: [{ model: 'small' }, { model: 'big', domain: 'parcels' }], max_price: { output: '8' } },
      'acme/cheap': { candidates: [{ model: 'big' }], max_price: { output: '7.9' } },
    }
    const rules = [{ domain: 'law', keywords: ['hi'] }]
    writeFileSync(file, JSON.stringify({ rules, samples: [{ text: 'where is my parcel', domain: 'parcels' }], models }))
    expect((await weir('tenant', 'routing', 'set', 'acme', file)).code).toBe(0)
    const lines = 'hi\nwhere is my parcel\n'
    expect(await jsonOf(estimate(lines, '--json --tenant acme'))).toMatchObject({
      tenant: 'acme',
      domains: [
        { domain: 'legal', chosen: [{ model: 'large' }] },
        { domain: 'parcels', chosen: [{ model: 'small' }] },
      ],
    })
    // Two prompts of 8 and 11 tokens: the first at a general model, the second at that for parcels.
    expect(await jsonOf(estimate(lines, '--json --tenant acme --route acme/desk'))).toMatchObject({
      domains: [
        { domain: 'legal', chosen: [{ model: 'small', amount_cny: '0.000208' }] },
        { domain: 'parcels', chosen: [{ model: 'large', amount_cny: '0.003222' }] },
      ],
    })
    expect(await jsonOf(estimate(lines, '--json --tenant acme --route acme/cheap'))).toMatchObject({ route: { unserved: 2 } })
    // Neither model has a filing.
    expect(await jsonOf(estimate(lines, '--json --tenant open'))).toMatchObject({ route: { requests: 0, unserved: 2 } })
  })

  test('works with the configuration that is shipped', async () => {
    const { dir } = setUp()
    const file = join(dir, 'prompts.jsonl')
    writeFileSync(file, '起诉离婚需要准备哪些材料，法院如何判决子女抚养权？\n{"text":"我想退货"}\n')
    const env = { WEIR_CONFIG_DIR: join(REPO_ROOT, 'config'), WEIR_DATA_DIR: join(dir, 'none') }
    const json = await jsonOf(runCommand(['estimate', file, '--json'], env, at(NOON)))
    expect(json).toMatchObject({ requests: 2, route: { name: 'auto', requests: 2, unserved: 0 } })
    const { models } = json as { models: Array<{ requests: number }> }
    expect(models.length).toBeGreaterThan(50)
    expect(models[0]?.requests).toBe(2)
  })
})
