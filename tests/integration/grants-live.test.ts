import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { createControlApi } from '../../src/control/api.ts'
import { NO_NODES } from '../../src/storage/nodes.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startWeir } from '../../src/weir.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock } from '../support/clock.ts'
import { type Outcome, runCommand } from '../support/command.ts'
import { ADMIN_TOKEN, openControl } from '../support/control.ts'
import { startGateway as spawnedGateway, startSandboxProcess, writeConfiguration } from '../support/fleet.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

type Members = Record<string, unknown>

function envFor(data_dir: string): Record<string, string> {
  return { WEIR_DATA_DIR: data_dir, WEIR_CONFIG_DIR: join(REPO_ROOT, 'config'), WEIR_PORT: '0', WEIR_ADMIN_PORT: '0' }
}

/** Runs a command line in this process; arguments with spaces stay whole. */
async function weir(data_dir: string, ...args: readonly string[]): Promise<Outcome> {
  return await runCommand(args, envFor(data_dir))
}

/** The admin API on a test gateway's storage. */
function adminOf({ storage, plane }: TestGateway): (path: string, body: object) => Promise<Members> {
  const app = createControlApi({
    ...storage,
    nodes: NO_NODES,
    clock: plane.clock,
    random: plane.randomBytes,
    metrics: plane.metrics,
    logger: plane.logger,
    token: ADMIN_TOKEN,
    knowsModel: () => true,
    configuration: () => null,
    modelOf: (name) => name,
    kindOf: () => 'chat',
    reload: () => Promise.resolve({ ok: true, digest: '' }),
  })
  const headers = { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json' }
  return async (path, body) => {
    const response = await app.request(path, { method: 'POST', headers, body: JSON.stringify(body) })
    return (await response.json()) as Members
  }
}

test('a tenant sees who paid, what came back, and what it has left', async () => {
  const gateway = await startGateway({ wallet_cny: '1' })
  const admin = adminOf(gateway)
  const grants = `/admin/v1/tenants/${gateway.tenant}/grants`
  await admin(grants, { id: 'pack', kind: 'pack', unit: 'cny', amount: '0.00005', models: ['solo'] })
  const answer = await gateway.chat({
    model: 'solo',
    max_tokens: 50,
    messages: [{ role: 'user', content: 'hello' }],
    sandbox: { tokens: 20 },
  })
  expect(answer.status).toBe(200)
  await answer.text()
  const id = answer.headers.get('x-request-id') ?? ''
  const event = await gateway.event(id)
  expect(event?.parts.map(({ grant }) => grant)).toEqual([`${gateway.tenant}/pack`, `wallet:${gateway.tenant}`])
  const usage = async (): Promise<Members> => (await (await gateway.get(`/v1/usage/${id}`)).json()) as Members
  const before = await usage()
  expect(before).toMatchObject({ reversed_cny: '0', given_back: [] })
  const balance = async (): Promise<Members> => (await (await gateway.get('/v1/balance')).json()) as Members
  const used_up = { id: `${gateway.tenant}/pack`, kind: 'pack', unit: 'cny', amount: '0.00005', balance: '0', used: '0.00005' }
  expect((await balance())['grants']).toMatchObject([
    { ...used_up, models: ['solo'], expired: false, expires_at: null },
    { kind: 'wallet', used: null },
  ])
  expect(await admin('/admin/v1/reversals', { event: id, reason: 'complaint' })).toMatchObject({ state: 'posted' })
  const after = await usage()
  expect(after).toMatchObject({ reversed_cny: before['amount_cny'], amount_cny: before['amount_cny'] })
  expect(after['given_back']).toHaveLength(2)
  expect(JSON.stringify(after)).not.toContain('complaint')
  expect((await balance())['grants']).toMatchObject([
    { balance: '0.00005', used: '0' },
    { kind: 'wallet', balance: '1' },
  ])
  await gateway.audit()
})

test('what expired while nothing ran lapses at the next start', async () => {
  const dir = tempDir()
  const before = await openControl(dir, { clock: testClock(Date.parse('2026-01-05T00:00:00Z')) })
  await before.call('POST', '/admin/v1/tenants', { id: 'acme' })
  const pack = { id: 'p', kind: 'pack', unit: 'requests', amount: 9, expires_at: '2026-01-06' }
  expect((await before.call('POST', '/admin/v1/tenants/acme/grants', pack)).status).toBe(201)
  await before.close()
  const server = await startWeir({
    config_dir: join(REPO_ROOT, 'config'),
    env: envFor(dir),
    clock: systemClock(),
    logger: createLogger({ level: 'error' }),
  })
  atEnd(() => server.drain())
  const lapsed = async (): Promise<boolean> => (await weir(dir, 'grant', 'show', 'acme/p')).out.includes('lapsed      9 requests')
  await waitFor(lapsed, { timeout_ms: 20_000, what: 'the grant to lapse' })
  expect((await weir(dir, 'ledger', 'transactions', '--kind', 'expiry')).out).toContain('expiry:acme/p:1')
  expect(await weir(dir, 'audit')).toMatchObject({ code: 0 })
})

test('killed while grants are given: what was answered is there, all of it once it is given again, and the audit agrees', async () => {
  const folder = tempDir()
  const folders = { config_dir: join(folder, 'config'), data_dir: join(folder, 'data') }
  writeConfiguration(folders.config_dir, (await startSandboxProcess()).url)
  const posting = async (id: string, amount: number): Promise<number> => {
    const { url, token } = JSON.parse(readFileSync(join(folders.data_dir, 'admin.json'), 'utf8')) as { url: string; token: string }
    const body = JSON.stringify({ id, kind: 'pack', unit: 'tokens', amount })
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    return (await fetch(`${url}/admin/v1/tenants/demo/grants`, { method: 'POST', headers, body })).status
  }
  const ids = Array.from({ length: 60 }, (_, index) => `g${index}`)
  const answered = new Set<string>()
  const first = await spawnedGateway(folders)
  const given = ids.map(async (id, index) => {
    if ((await posting(id, index + 1)) === 201) answered.add(id)
    if (answered.size === 15) first.process.kill('SIGKILL')
  })
  const outcomes = await Promise.allSettled(given)
  await first.process.exited
  expect(outcomes.some(({ status }) => status === 'rejected')).toBe(true)
  await spawnedGateway(folders)
  const states = await Promise.all(ids.map((id, index) => posting(id, index + 1)))
  for (const [index, id] of ids.entries()) if (answered.has(id)) expect([id, states[index]]).toEqual([id, 200])
  expect(new Set(states)).toEqual(new Set([200, 201]))
  const shown = JSON.parse((await weir(folders.data_dir, 'grant', 'list', 'demo', '--json')).out) as {
    id: string
    balance: string
    amount: string
  }[]
  const tokens = shown.filter(({ id }) => id.startsWith('demo/'))
  expect(tokens).toHaveLength(60)
  for (const { balance, amount } of tokens) expect(balance).toBe(amount)
  expect(await weir(folders.data_dir, 'audit')).toMatchObject({ code: 0 })
})

describe('on the command line, without a server', () => {
  test('grants are given, listed, shown, changed, and taken back', async () => {
    const dir = tempDir()
    await weir(dir, 'tenant', 'create', 'acme')
    const add = [
      'grant',
      'add',
      'acme',
      '1000000',
      '--unit',
      'tokens',
      '--id',
      'order-7',
      '--expires',
      '2126-12-31',
      '--weight',
      'deepseek-flash=0.5',
    ]
    expect(await weir(dir, ...add)).toMatchObject({ code: 0, out: 'Gave 1,000,000 tokens to acme: grant acme/order-7.\n' })
    expect((await weir(dir, ...add)).out).toContain('Nothing changed')
    expect(await weir(dir, ...add.toSpliced(3, 1, '5'))).toMatchObject({
      code: 1,
      err: expect.stringContaining('another amount') as unknown,
    })
    expect((await weir(dir, 'grant', 'add', 'acme', '12.5', '--kind', 'promo')).out).toContain('Gave 12.5 CNY to acme')
    const list = (await weir(dir, 'grant', 'list')).out
    expect(list).toMatch(/acme\/order-7 +pack +1,000,000 +0 +1,000,000 +tokens +40 +all +2126-12-31T16:00/)
    expect(list).toContain('wallet:acme')
    expect((await weir(dir, 'grant', 'show', 'acme/order-7')).out).toMatch(/weights +deepseek-flash=0.5\n/)
    expect((await weir(dir, 'grant', 'change', 'acme/order-7', '--expires', 'never', '--priority', '5')).out).toMatch(
      /priority +5\n[^]*expires +never/,
    )
    expect((await weir(dir, 'reverse', 'transaction', 'grant:acme/order-7', '--reason', 'ordered twice')).out).toBe(
      'Reversed for acme: reversal:grant:acme/order-7.\n  -1,000,000 tokens acme/order-7\n',
    )
    expect((await weir(dir, 'grant', 'show', 'acme/order-7')).out).toContain('taken back')
    expect((await weir(dir, 'grant', 'list', 'acme')).out).not.toContain('order-7')
    expect((await weir(dir, 'ledger', 'balances', '--tenant', 'acme')).out).toMatch(/total +CNY +12.5 +12.5/)
    const transactions = (await weir(dir, 'ledger', 'transactions')).out.split('\n')
    expect(transactions[1]).toMatch(/reversal +reversal:grant:acme\/order-7 +cash_clearing +acme +tokens +1,000,000$/)
    expect(JSON.parse((await weir(dir, 'ledger', 'transactions', '--kind', 'grant', '--json')).out)).toMatchObject({
      transactions: [{}, {}],
      more: false,
    })
    expect(await weir(dir, 'audit')).toMatchObject({ code: 0 })
  })

  test('every command says what it takes, and what is wrong', async () => {
    const dir = tempDir()
    await weir(dir, 'tenant', 'create', 'acme')
    const commands = [
      'grant add',
      'grant list',
      'grant show',
      'grant change',
      'reverse event',
      'reverse transaction',
      'ledger balances',
      'ledger transactions',
    ]
    for (const command of commands)
      expect(await weir(dir, ...command.split(' '), '--help')).toMatchObject({
        code: 0,
        out: expect.stringContaining(`weir ${command}`) as unknown,
      })
    const wrong: readonly (readonly [readonly string[], number, string])[] = [
      [['grant', 'add', 'acme', '5', '--weight', 'x'], 2, 'MODEL=W'],
      [['grant', 'add', 'acme', '5', '--unit', 'apples'], 1, 'unit'],
      [['grant', 'show', 'order-7'], 2, 'acme/order-7'],
      [['grant', 'show', 'acme/order-7'], 1, 'no grant'],
      [['grant', 'change', 'acme/order-7'], 2, 'say what to change'],
      [['reverse', 'event', 'x'], 2, 'say why'],
      [['reverse', 'event', 'x', '--reason', 'y'], 1, 'no event'],
      [['ledger', 'transactions', '--kind', 'apples'], 1, 'kind'],
    ]
    for (const [args, code, words] of wrong)
      expect(await weir(dir, ...args)).toMatchObject({ code, err: expect.stringContaining(words) as unknown })
  })
})
