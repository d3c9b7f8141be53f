import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startWeir } from '../../src/weir.ts'
import { chatModel, configurationOf } from '../support/catalogue.ts'
import { atEnd } from '../support/cleanup.ts'
import { type Outcome, runCommand } from '../support/command.ts'
import { tempDir } from '../support/temp.ts'

const FILING = { number: 'Beijing-TestChat-202404280016', evidence: 'test' }
const at = (id: string, base_url: string, more: object = {}): Record<string, unknown> => ({ id, provider: 'vllm', base_url, ...more })
const MODELS = {
  near: chatModel(
    [at('near-a', 'http://vllm.internal:8000/v1'), at('near-b', 'https://models.example.cn/v1', { zone: 'domestic', filing: FILING })],
    { aliases: ['also-near'] },
  ),
  far: chatModel([at('far-a', 'https://models.example.com/v1', { zone: 'overseas', proxy: 'http://user:hunter2@proxy.internal:3128' })]),
  own: chatModel([at('own-a', 'http://10.0.0.7:1025/v1')], { tenants: ['bank'] }),
  gone: chatModel([at('gone-a', 'http://vllm.internal:8000/v1')], { life: 'retired' }),
  keyless: chatModel([{ id: 'keyless-a', provider: 'deepseek', base_url: 'https://api.example.cn' }]),
}

interface Installation {
  readonly env: Record<string, string>
  run(command: string): Promise<Outcome>
}

async function install(): Promise<Installation> {
  const root = tempDir()
  const config_dir = join(root, 'config')
  mkdirSync(config_dir)
  configurationOf(config_dir, MODELS)
  const env = {
    NODE_ENV: 'production',
    WEIR_DATA_DIR: join(root, 'data'),
    WEIR_CONFIG_DIR: config_dir,
    WEIR_PORT: '0',
    WEIR_ADMIN_PORT: '0',
    WEIR_ADMIN_TOKEN: 'a-token-that-is-long-enough',
  }
  const run = async (command: string): Promise<Outcome> => await runCommand(command.split(' '), env)
  expect(await run('tenant create bank --audience internal --zone private,domestic,overseas')).toMatchObject({ code: 0 })
  expect(await run('tenant create shop --audience public')).toMatchObject({ code: 0 })
  expect(await run('project create lab --tenant bank --zone private')).toMatchObject({ code: 0 })
  expect(await run('key create --tenant bank --project lab --model also-near')).toMatchObject({ code: 0 })
  return { env, run }
}

it('says where the prompts of a tenant can go, and why not elsewhere, with a server and without one', async () => {
  const { env, run } = await install()
  const offline = await run('check --explain bank')
  expect([offline.code, offline.err]).toEqual([0, ''])
  expect(offline.out).toContain('in the files: no server is running')
  const server = await startWeir({
    config_dir: env['WEIR_CONFIG_DIR'] ?? '',
    env,
    clock: systemClock(),
    logger: createLogger({ level: 'error' }),
  })
  atEnd(() => server.drain())
  const { out } = await run('check --explain bank')
  expect(out).toContain('in force at the running server')
  expect(out.split('\n').slice(2)).toEqual(
    offline.out
      .split('\n')
      .slice(3)
      .filter((line) => !line.startsWith('A demo')),
  )
  const addresses = out.split('\n').filter((line) => /^ {2}https?:/.test(line))
  expect(addresses).toEqual([
    '  http://vllm.internal:8000 (private)',
    '  https://models.example.cn:443 (domestic)',
    '  https://models.example.com:443 through http://proxy.internal:3128 (overseas)',
    '  http://10.0.0.7:1025 (private)',
  ])
  expect(out).toContain('  the model is retired: gone-a (gone)')
  expect(out).toMatch(/no api_key is given for deepseek.*: keyless-a \(keyless\)/)
  expect(out).toMatch(
    /^Project bank\/lab, zones private, does not reach:\n {2}the zone domestic is not among the project's: near-b \(near\)\n {2}the zone overseas is not among the project's: far-a \(far\)$/m,
  )
  expect(out).toMatch(/^Keys key_\w+ of bank\/lab, models also-near, do not reach:\n {2}the key does not name the model: own-a \(own\)$/m)
  expect(out).not.toContain('hunter2')
})

it('tells an operator what is reserved for others, and what a tenant that serves the public may not use', async () => {
  const { run } = await install()
  const { out } = await run('check --explain shop')
  expect(out).toContain('public, zones private, domestic')
  expect(out.split('\n').filter((line) => /^ {2}https?:/.test(line))).toEqual(['  https://models.example.cn:443 (domestic)'])
  expect(out).toContain('it is reserved for other tenants: own-a (own)')
  expect(out).toContain('it has no filing, and the tenant serves the public: near-a (near)')
  expect(out).toContain("the zone overseas is not among the tenant's: far-a (far)")
  expect(out).toContain('Its projects and keys all reach the same.')
  expect(await run('tenant change shop --status suspended')).toMatchObject({ code: 0 })
  expect((await run('check --explain shop')).out).toContain('Its prompts can go nowhere.')
})

it('is JSON where that is asked for, and says so when it cannot be told', async () => {
  const { env, run } = await install()
  const answer = JSON.parse((await run('check --explain bank --json')).out) as {
    ways: { endpoint: string; open: boolean; origin: string }[]
  }
  expect(answer.ways.map(({ endpoint, open }) => [endpoint, open])).toEqual([
    ['near-a', true],
    ['near-b', true],
    ['far-a', true],
    ['own-a', true],
    ['gone-a', false],
    ['keyless-a', false],
  ])
  expect(await run('check --explain nobody')).toMatchObject({ code: 1, err: expect.stringContaining('no tenant "nobody"') as unknown })
  expect(await run('check --explain bank --config-dir .')).toMatchObject({ code: 2 })
  writeFileSync(join(env['WEIR_CONFIG_DIR'] ?? '', 'catalogue.yaml'), 'models: 3')
  expect(await run('check --explain bank')).toMatchObject({
    code: 1,
    err: expect.stringContaining('the configuration cannot be read') as unknown,
  })
})
