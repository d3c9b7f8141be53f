import OpenAI, { NotFoundError } from 'openai'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startWeir } from '../../src/weir.ts'
import { chatModel, configurationOf } from '../support/catalogue.ts'
import { atEnd } from '../support/cleanup.ts'
import { runCommand } from '../support/command.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { tempDir } from '../support/temp.ts'

const FAR = '2126-12-31'
const SUNSET = 'Mon, 30 Dec 2126 16:00:00 GMT'

async function start(): Promise<TestGateway> {
  const { sandbox } = await startGateway()
  const model = (changes: object): Record<string, unknown> => chatModel([{ base_url: `${sandbox.url}/a/v1` }], { ...changes })
  return await startGateway({
    models: {
      early: model({ life: 'preview' }),
      old: model({ life: 'deprecated', deprecated_on: '2026-06-01', retires_on: FAR, replaced_by: 'solo' }),
      older: model({ life: 'deprecated' }),
      leaving: model({ retires_on: FAR }),
      gone: model({ life: 'deprecated', retires_on: '2026-01-02', replaced_by: 'former', aliases: ['also-gone'] }),
      former: model({ life: 'retired', replaced_by: 'solo' }),
    },
  })
}

const headersOf = ({ headers }: Response): (string | null)[] =>
  ['deprecation', 'sunset', 'x-weir-replaced-by'].map((name) => headers.get(name))

it.each([false, true])(
  'answers say that their model is on its way out, until when, and what to use instead (stream %s)',
  async (stream) => {
    const gateway = await start()
    const asked_s = Math.floor(Date.now() / 1000)
    const asked = async (model: string): Promise<(string | null)[]> => {
      const response = await gateway.chat({ model, stream })
      await response.text()
      expect(response.status).toBe(200)
      return headersOf(response)
    }
    expect(await asked('old')).toEqual([`@${Date.parse('2026-06-01T00:00:00+08:00') / 1000}`, SUNSET, 'solo'])
    const [since, ...nothing] = await asked('older')
    expect(nothing).toEqual([null, null])
    expect(Number(since?.slice(1))).toBeGreaterThanOrEqual(asked_s)
    expect(await asked('leaving')).toEqual([null, SUNSET, null])
    for (const model of ['solo', 'early']) expect(await asked(model)).toEqual([null, null, null])
  },
)

it('a retired model is not found, and whoever asks for it hears what to use, in both languages and in the SDK', async () => {
  const gateway = await start()
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 0 })
  for (const model of ['gone', 'also-gone', 'former']) {
    const error: unknown = await client.chat.completions
      .create({ model, messages: [{ role: 'user', content: 'hi' }] })
      .catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(NotFoundError)
    expect((error as NotFoundError).code).toBe('model_not_found')
    expect((error as NotFoundError).message).toContain(`The model ${model} has been retired. Use solo instead.`)
    const looked: unknown = await client.models.retrieve(model).catch((reason: unknown) => reason)
    expect((looked as NotFoundError).message).toContain('Use solo instead')
  }
  const chinese = await gateway.account({ tenant: { locale: 'zh' } })
  const refused = await gateway.chat({ model: 'gone' }, { authorization: `Bearer ${chinese.secret}` })
  expect(await refused.text()).toContain('模型 gone 已下线。请改用 solo。')
  expect(gateway.sandbox.served().totals.requests).toBe(0)
})

it('models are listed with their lives, retired ones are not', async () => {
  const gateway = await start()
  const { data } = (await (await gateway.get('/v1/models')).json()) as { data: Record<string, unknown>[] }
  expect(data.map(({ id, life, deprecated_on, retires_on, replaced_by }) => [id, life, deprecated_on, retires_on, replaced_by])).toEqual([
    ['solo', 'ga', undefined, undefined, undefined],
    ['pair', 'ga', undefined, undefined, undefined],
    ['early', 'preview', undefined, undefined, undefined],
    ['old', 'deprecated', '2026-06-01', FAR, 'solo'],
    ['older', 'deprecated', undefined, undefined, undefined],
    ['leaving', 'ga', undefined, FAR, undefined],
    ['embed', 'ga', undefined, undefined, undefined],
  ])
})

it('an operator learns who still uses a model that is on its way out', async () => {
  const root = tempDir()
  const sandbox = (await startGateway()).sandbox
  const at = [{ provider: 'sandbox', base_url: `${sandbox.url}/a/v1` }]
  configurationOf(root, {
    old: chatModel(at, { life: 'deprecated', replaced_by: 'new', aliases: ['also-old'] }),
    gone: chatModel(at, { life: 'retired' }),
    new: chatModel(at),
  })
  const env = { WEIR_DATA_DIR: `${root}/data`, WEIR_CONFIG_DIR: root, WEIR_PORT: '0', WEIR_ADMIN_PORT: '0' }
  const server = await startWeir({ config_dir: root, env, clock: systemClock(), logger: createLogger({ level: 'error' }) })
  atEnd(() => server.drain())
  const weir = async (command: string): Promise<string> => {
    const { code, out, err } = await runCommand(command.split(' '), env)
    expect([code, err]).toEqual([0, ''])
    return out
  }
  await weir('tenant create acme --audience internal')
  await weir('tenant credit acme 10')
  const keys: string[] = []
  for (const name of ['app', 'batch', 'idle'])
    keys.push(/^sk-weir-\S+$/m.exec(await weir(`key create --tenant acme --name ${name}`))?.[0] ?? '')
  const ask = async (secret: string | undefined, model: string): Promise<void> => {
    const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' }
    const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'hi' }] })
    expect((await fetch(`${server.url}/v1/chat/completions`, { method: 'POST', headers, body })).status).toBe(200)
  }
  await Promise.all([ask(keys[0], 'old'), ask(keys[0], 'also-old'), ask(keys[1], 'old'), ask(keys[2], 'new')])
  const answer = JSON.parse(await weir('model usage --json')) as {
    data: { model: string; used_by: { tenant: string; requests: number; last_used_on: string }[] }[]
  }
  expect(answer.data.map(({ model, used_by }) => [model, used_by.map(({ tenant, requests }) => [tenant, requests])])).toEqual([
    [
      'old',
      [
        ['acme', 2],
        ['acme', 1],
      ],
    ],
    ['gone', []],
  ])
  const today = new Intl.DateTimeFormat('sv-SE', { timeZone: 'Asia/Shanghai' }).format(Date.now())
  expect(answer.data[0]?.used_by[0]?.last_used_on).toBe(today)
  const table = await weir('model usage --days 1')
  expect(table).toMatch(/^old +acme +acme\/default +key_\w+ +2 /m)
  expect(table).toContain('old: deprecated, use new\n')
  expect(table).toContain('gone: retired; nobody used it\n')
  expect(JSON.parse(await weir('model usage --life ga --json'))).toMatchObject({ data: [{ model: 'new', used_by: [{ requests: 1 }] }] })
  expect((await runCommand(['model', 'usage', '--life', 'young'], env)).code).toBe(1)
})
