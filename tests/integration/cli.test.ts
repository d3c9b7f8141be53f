import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { doctor, type Diagnosis } from '../../src/cli/doctor.ts'
import type { Endpoint, Model } from '../../src/config/model.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startSandbox } from '../../src/sandbox/server.ts'
import { createTransport } from '../../src/upstream/pool.ts'
import { PLAIN_RULES } from '../../src/upstream/providers/provider.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { startWeir } from '../../src/weir.ts'
import { atEnd } from '../support/cleanup.ts'
import { type Outcome, runCommand } from '../support/command.ts'
import { openControl } from '../support/control.ts'
import { freePort } from '../support/ports.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'

const CONFIG_DIR = join(REPO_ROOT, 'config')

function envFor(data_dir: string): Record<string, string> {
  return { WEIR_DATA_DIR: data_dir, WEIR_CONFIG_DIR: CONFIG_DIR, WEIR_PORT: '0', WEIR_ADMIN_PORT: '0' }
}

/** Runs a command line in this process. */
async function weir(data_dir: string, command: string, env: Record<string, string> = {}): Promise<Outcome> {
  return await runCommand(command.split(' '), { ...envFor(data_dir), ...env })
}

describe('without a server', () => {
  test('opens the data directory itself: tenant, credit, key, lists, audit', async () => {
    const dir = tempDir()
    expect(await weir(dir, 'key create')).toMatchObject({ code: 2, err: expect.stringContaining('weir tenant create') as unknown })
    expect(await weir(dir, 'tenant create acme --rpm 60')).toMatchObject({ code: 0 })
    expect(await weir(dir, 'tenant change acme')).toMatchObject({ code: 2 })
    expect(await weir(dir, 'tenant change acme --audience internal --on-client-abort drain')).toMatchObject({
      code: 0,
      out: expect.stringContaining('active, internal') as unknown,
    })
    expect(await weir(dir, 'tenant change nobody --status suspended')).toMatchObject({ code: 1 })
    expect(await weir(dir, 'limit set requests_window 200 --window 5h')).toMatchObject({ code: 0 })
    expect(await weir(dir, 'limit set requests_window 200')).toMatchObject({
      code: 1,
      err: expect.stringContaining('needs a window') as unknown,
    })
    expect(await weir(dir, 'limit remove requests_window --window 5h')).toMatchObject({
      code: 0,
      out: expect.stringContaining('requests_per_minute') as unknown,
    })
    expect((await weir(dir, 'tenant credit acme 12.5 --id t1')).out).toContain('Credited 12.5 CNY')
    expect((await weir(dir, 'tenant credit acme 12.5 --id t1')).out).toContain('Nothing changed')
    expect((await weir(dir, 'balance')).out).toContain('12.5 CNY available')
    const made = await weir(dir, 'key create --name web --expires-in-days 7')
    const [secret = ''] = /^sk-weir-\S{43}$/m.exec(made.out) ?? []
    expect(secret).not.toBe('')
    const list = await weir(dir, 'key list')
    expect(list.out).toContain(`…${secret.slice(-4)}`)
    expect(list.out).not.toContain(secret)
    const [id = ''] = /key_\w+/.exec(made.out) ?? []
    expect((await weir(dir, `key revoke ${id}`)).code).toBe(0)
    expect((await weir(dir, 'key list')).out).toContain('revoked')
    expect((await weir(dir, 'project create shop')).out).toContain('acme/shop')
    expect((await weir(dir, 'project list')).out).toContain('acme/default')
    expect(await weir(dir, 'audit')).toMatchObject({ code: 0, out: expect.stringContaining('Everything agrees') as unknown })
  })

  test('refusals exit with 1, in one line on standard error', async () => {
    const dir = tempDir()
    await weir(dir, 'tenant create acme')
    for (const command of [
      'tenant create acme',
      'tenant credit acme 1,5',
      'tenant credit nobody 1',
      'key revoke nothing',
      'key create --model gpt-9',
      'reload',
    ]) {
      const { code, out, err } = await weir(dir, command)
      expect([code, out, err.split('\n').length]).toEqual([1, '', 2])
    }
  })

  test('refusals speak of what was typed: options by their names, negative amounts as amounts', async () => {
    const dir = tempDir()
    await weir(dir, 'tenant create acme')
    const saying = async (command: string): Promise<string> => (await weir(dir, command)).err
    expect(await saying('usage --by colour')).toMatch(/^weir: --by: write up to three of model, /)
    expect(await saying('usage --by model,model')).toBe('weir: --by: names something twice\n')
    expect(await saying('usage --bucket year')).toMatch(/^weir: --bucket: write one of /)
    expect(await saying('grant add acme -5')).toBe('weir: amount: must be above zero\n')
    expect(await saying('grant add acme -5 --unit tokens')).toBe('weir: amount: must be above zero\n')
    expect(await saying('grant add acme -0.5 --unit cny')).toBe('weir: amount: must be above zero\n')
    expect(await saying('tenant credit acme -5')).toBe('weir: amount_cny: must be above zero\n')
    expect(await saying('reverse event x --reason y --amount -5')).toBe('weir: amount_cny: must be above zero\n')
    expect(await saying('usage --limit -5')).toContain('--limit must be a whole number from 0 to 1000000, not "-5"')
    expect(await saying('grant add acme 5 -5')).toContain('"-5" is one argument too many')
    expect(await saying('grant add acme 5 -x')).toContain("Unknown option '-x'")
  })

  test('an audit that cannot run exits with 2, one with a finding with 1', async () => {
    const dir = tempDir()
    expect(await weir(dir, `audit --sandbox http://127.0.0.1:${await freePort()}`)).toMatchObject({ code: 2 })
    expect(await weir(dir, 'audit --sandbox nonsense')).toMatchObject({ code: 2 })
    const sandbox = await startSandbox({ port: 0 })
    atEnd(() => sandbox.close())
    expect(await weir(dir, `audit --sandbox ${sandbox.url}`)).toMatchObject({ code: 0 })
    const body = JSON.stringify({ model: 'sandbox-chat', messages: [{ role: 'user', content: 'hi' }] })
    const headers = { 'x-request-id': 'never-metered', 'content-type': 'application/json' }
    await (await fetch(`${sandbox.url}/v1/chat/completions`, { method: 'POST', headers, body })).text()
    const { code, out } = await weir(dir, `audit --sandbox ${sandbox.url}`)
    expect([code, out]).toEqual([1, expect.stringContaining('never-metered')])
  })

  test('a data directory in use by a process that does not answer is said to be that', async () => {
    const dir = tempDir()
    await openControl(dir)
    expect(await weir(dir, 'tenant list')).toMatchObject({
      code: 1,
      err: expect.stringContaining('another Weir process has the data directory') as unknown,
    })
    expect(await weir(dir, 'audit')).toMatchObject({ code: 2 })
  })

  test('the address that a killed server left behind does not matter', async () => {
    const dir = tempDir()
    writeFileSync(join(dir, 'admin.json'), JSON.stringify({ url: `http://127.0.0.1:${await freePort()}`, token: 'x', pid: 1 }))
    expect(await weir(dir, 'tenant list')).toMatchObject({ code: 0 })
    writeFileSync(join(dir, 'admin.json'), '{')
    expect(await weir(dir, 'tenant list')).toMatchObject({ code: 1, err: expect.stringContaining('damaged') as unknown })
  })

  test('checks the configuration', async () => {
    expect(await weir(tempDir(), 'check')).toMatchObject({ code: 0, out: expect.stringContaining('deepseek') as unknown })
    const whole = await weir(tempDir(), 'check --models')
    expect(whole.out).toContain('    endpoint deepseek/deepseek-flash: not active, DEEPSEEK_API_KEY is not set')
    const short = await weir(tempDir(), 'check')
    expect(short.out).toMatch(/^finance +finance-assistant \(profile of qwen3\.7-plus\) +no +DASHSCOPE_API_KEY is not set$/m)
    // How old the shipped registry is depends on the day.
    expect(short.out.replace(/^warning: the registry .*$/m, '')).not.toMatch(/warning|nothing vertical/)
    expect(short.out.split('\n').length).toBeLessThan(80)
    const json = JSON.parse((await weir(tempDir(), 'check --json')).out) as { ok: boolean; without_vertical: string[]; findings: unknown[] }
    expect(json).toMatchObject({
      ok: true,
      without_vertical: [],
      findings: [],
      domains: { legal: [{ model: 'tongyi-farui', why: 'no price' }, {}] },
    })
    const broken = join(REPO_ROOT, 'tests/fixtures/config/duplicate_key')
    expect(await weir(tempDir(), `check --config-dir ${broken}`)).toMatchObject({
      code: 1,
      err: expect.stringContaining('1 mistake') as unknown,
    })
    expect(JSON.parse((await weir(tempDir(), `check --json --config-dir ${broken}`)).out)).toMatchObject({ ok: false, issues: [{}] })
  })
})

test('with a server: a key works as soon as its secret is printed, a revoked one no more, and usage and audit are exact', async () => {
  const dir = tempDir()
  const server = await startWeir({
    config_dir: CONFIG_DIR,
    env: envFor(dir),
    clock: systemClock(),
    logger: createLogger({ level: 'error' }),
  })
  atEnd(() => server.drain())
  const ask = async (secret: string, stream: boolean): Promise<number> => {
    const body = JSON.stringify({ model: 'deepseek-flash', stream, messages: [{ role: 'user', content: '你好' }] })
    const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' }
    const response = await fetch(`${server.url}/v1/chat/completions`, { method: 'POST', headers, body })
    await response.text()
    return response.status
  }
  for (let round = 0; round < 5; round++) {
    const [secret = '', ...rest] = /^sk-weir-\S+$/m.exec((await weir(dir, 'key create')).out) ?? []
    expect([rest, await ask(secret, round % 2 === 0)]).toEqual([[], 200])
    const [id = ''] =
      /key_\w+/.exec((await weir(dir, 'key list --json')).out.split('\n').findLast((line) => line.includes('"id"')) ?? '') ?? []
    expect((await weir(dir, `key revoke ${id}`)).code).toBe(0)
    expect(await ask(secret, false)).toBe(401)
  }
  const { totals, events, more_events } = JSON.parse((await weir(dir, 'usage --json')).out) as {
    totals: { requests: number; amount_cny: string }
    events: { amount_cny: string }[]
    more_events: boolean
  }
  expect([totals.requests, events.length, more_events]).toEqual([5, 5, false])
  expect((await weir(dir, 'usage')).out).toContain(totals.amount_cny)
  expect(await weir(dir, 'audit')).toMatchObject({ code: 0, out: expect.stringContaining('5 events') as unknown })
  expect(await weir(dir, 'reload')).toMatchObject({ code: 0, out: expect.stringContaining('in force') as unknown })
})

describe('doctor', () => {
  const timeouts = { connect_timeout_ms: 2000, headers_timeout_ms: 5000, first_event_timeout_ms: 5000, silence_timeout_ms: 5000 }
  const model: Model = {
    id: 'm',
    kind: 'chat',
    domain: 'general',
    life: 'ga',
    deprecated_at: null,
    retires_at: null,
    replaced_by: null,
    tenants: null,
    owned_by: 'x',
    context_tokens: 1000,
    max_output_tokens: 100,
    thinking: null,
    tokenizer: 'general',
    attachment_tokens: { image: 0, audio: 0, video: 0, file: 0 },
    capabilities: [],
    profile: null,
    created: 0,
    endpoints: [],
    inactive: [],
  }

  async function diagnose(base_url: string, overrides: Partial<Endpoint> = {}): Promise<Diagnosis> {
    const transport = createTransport({ connections_per_origin: 2, proxy: { https: null, http: null, no_proxy: null } })
    atEnd(() => transport.close())
    const endpoint: Endpoint = {
      id: 'deepseek/m',
      provider: 'deepseek',
      plays: 'deepseek',
      dialect: 'openai',
      auth: 'bearer',
      rules: PLAIN_RULES,
      embeddings_batch: null,
      rerank_path: null,
      base_url,
      chat_path: '/chat/completions',
      embeddings_path: null,
      upstream_model: 'sandbox-chat',
      api_key: 'sk-hunter2',
      capacity: null,
      own_keys: false,
      key_pool: null,
      zone: 'domestic',
      tenants: null,
      filing: null,
      tier: 1,
      weight: 1,
      timeouts,
      transport: { ca_file: null, cert_file: null, key_file: null, proxy: null },
      sandbox: false,
      ...overrides,
    }
    const found = await doctor(endpoint, model, {
      transport,
      providers: PROVIDERS,
      proxy: { https: null, http: null, no_proxy: null },
      clock: systemClock(),
    })
    expect(JSON.stringify(found)).not.toContain('hunter2')
    return found
  }

  async function answering(status: number, body: string): Promise<string> {
    const server: Server = createServer((request, response) => {
      request.resume()
      response.writeHead(status, { 'content-type': body.startsWith('<') ? 'text/html' : 'application/json' }).end(body)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    atEnd(
      () =>
        new Promise<void>((resolve) => {
          server.closeAllConnections()
          server.close(() => resolve())
        }),
    )
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  test('an endpoint that answers is well', async () => {
    const sandbox = await startSandbox({ port: 0 })
    atEnd(() => sandbox.close())
    expect(await diagnose(`${sandbox.url}/v1`)).toMatchObject({ ok: true, verdict: 'ok' })
  })

  test.each([
    [401, '{"error":{"message":"Authentication Fails","type":"authentication_error"}}', 'auth', 'Check the value of DEEPSEEK_API_KEY'],
    [402, '{"error":{"message":"Insufficient Balance"}}', 'balance', 'no balance left'],
    [400, '{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}', 'model_missing', 'has no model "sandbox-chat"'],
    [404, '<html><h1>404 Not Found</h1></html>', 'wrong_base_url', 'Check base_url'],
    [200, '<html>Welcome to nginx</html>', 'wrong_base_url', 'Check base_url'],
    [301, '', 'wrong_base_url', 'Check base_url'],
    [429, '{"error":{"message":"slow down"}}', 'rate', 'the key works'],
    [503, '{"error":{"message":"busy"}}', 'overload', 'Nothing to change here'],
    [200, '{"error":{"message":"invalid api key","type":"authentication_error"}}', 'auth', 'does not accept the key'],
  ])('HTTP %i %s is %s', async (status, body, verdict, words) => {
    const found = await diagnose(await answering(status, body))
    expect([found.ok, found.verdict, found.advice]).toEqual([false, verdict, expect.stringContaining(words)])
  })

  test('no key set is told from a wrong key', async () => {
    const url = await answering(401, '{"error":{"message":"no key"}}')
    expect((await diagnose(url, { api_key: null })).advice).toContain('none is set. Set DEEPSEEK_API_KEY')
  })

  test('nothing listening, an unknown name, and TLS that is none are told apart', async () => {
    expect((await diagnose(`http://127.0.0.1:${await freePort()}`)).advice).toContain('nothing listens')
    expect((await diagnose('http://no-such-host.invalid')).advice).toContain('cannot be resolved')
    const plain = await answering(200, '{}')
    expect(await diagnose(plain.replace('http:', 'https:'))).toMatchObject({ verdict: 'tls_failed' })
  })
})
