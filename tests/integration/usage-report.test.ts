import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it, test } from 'vitest'
import { runCommand } from '../support/command.ts'
import { REPO_ROOT } from '../support/root.ts'
import { errorOf } from '../support/sse.ts'
import { startGateway } from '../support/gateway.ts'
import { openControl, type TestControl } from '../support/control.ts'
import { ADMITTED_AT, testClock } from '../support/clock.ts'
import { closingEvent, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const HOUR_MS = 3_600_000

async function controlWithUsage(): Promise<TestControl & { readonly data_dir: string }> {
  const data_dir = tempDir()
  const control = await openControl(data_dir, { clock: testClock(ADMITTED_AT + 2 * HOUR_MS) })
  await control.call('POST', '/admin/v1/tenants', { id: 'acme' })
  const { log } = control.storage
  await log.close(closingEvent('a', { tags: { team: 'x' }, end_user: 'u1' }))
  await log.close(closingEvent('b', { tags: { team: 'y' }, model: 'm2', overrun_nano: 250n }))
  await log.close(closingEvent('c', { tags: {}, admitted_at: ADMITTED_AT + HOUR_MS, endpoint: 'other' }))
  return { ...control, data_dir }
}

test('the admin report is split by dimensions and buckets, with totals of everything', async () => {
  const control = await controlWithUsage()
  const { body } = await control.call('GET', '/admin/v1/usage?tenant=acme&group=tag:team,model&bucket=hour')
  expect(body).toMatchObject({
    bucket: 'hour',
    totals: { requests: 3, amount_cny: '0.000003', overrun_cny: '0.00000025' },
    groups: [
      { from: '2026-11-23T02:00:00.000Z', to: '2026-11-23T03:00:00.000Z', by: { 'tag:team': 'x', model: 'qwen3-max' }, requests: 1 },
      { from: '2026-11-23T02:00:00.000Z', by: { 'tag:team': 'y', model: 'm2' }, requests: 1 },
    ],
    next_cursor: null,
  })
  const first = await control.call('GET', '/admin/v1/usage?group=endpoint&bucket=day&limit=1')
  expect(first.body).toMatchObject({ groups: [{ id: 'dashscope/qwen3-max', requests: 2 }] })
  const cursor = String(first.body['next_cursor'])
  const rest = await control.call('GET', `/admin/v1/usage?group=endpoint&bucket=day&limit=1&cursor=${cursor}`)
  expect(rest.body).toMatchObject({ groups: [{ id: 'other', requests: 1 }], next_cursor: null })
  expect(rest.body).not.toHaveProperty('totals')
  expect((await control.call('GET', '/admin/v1/usage?tag=team:x&group=')).body).toMatchObject({
    totals: { requests: 1 },
    groups: [{ id: '' }],
  })
})

test('weir usage splits by dimensions and buckets, and lists what cost more than was held', async () => {
  const control = await controlWithUsage()
  await control.close()
  const weir = async (command: string): Promise<string> => {
    const env = { WEIR_DATA_DIR: control.data_dir, WEIR_CONFIG_DIR: join(REPO_ROOT, 'config') }
    const { code, out } = await runCommand(command.split(' '), env, testClock(ADMITTED_AT + 2 * HOUR_MS))
    expect([command, code]).toEqual([command, 0])
    return out
  }
  expect((await weir('usage --by tag:team,model --bucket hour')).split('\n').slice(2, 6)).toMatchObject([
    expect.stringMatching(/^FROM +TAG:TEAM +MODEL +REQUESTS/),
    expect.stringMatching(/^2026-11-23 10:00 +x +qwen3-max +1 /),
    expect.stringMatching(/^2026-11-23 10:00 +y +m2 +1 /),
    expect.stringMatching(/^total +3 /),
  ])
  expect(await weir('usage --tag team:x --by key')).toMatch(/^key-1 +1 /m)
  expect(await weir('usage --end-user u1 --endpoint other')).toMatch(/^total +0 /m)
  expect(await weir('usage --overruns')).toMatch(/b +acme +key-1 +m2 +9,007,199\.254740993 +0\.000001 +0\.00000025$/m)
  expect(await weir('usage --overruns --tenant acme --model none')).toContain('No request')
  const json = JSON.parse(await weir('usage --json --by model')) as { groups: unknown[]; events: unknown[]; totals: unknown }
  expect([json.groups.length, json.events.length, json.totals]).toMatchObject([2, 3, { requests: 3 }])
})

test('events can be found by tag, end user, endpoint and as overruns', async () => {
  const control = await controlWithUsage()
  for (const [query, id] of [
    ['tag=team:x', 'a'],
    ['end_user=u1', 'a'],
    ['endpoint=other', 'c'],
    ['overrun=true', 'b'],
  ]) {
    expect([query, (await control.call('GET', `/admin/v1/events?${query}`)).body]).toMatchObject([query, { data: [{ id }] }])
  }
})

test.each([
  'usage?group=colour',
  'usage?group=tag:a,tag:b',
  'usage?group=tenant,project,key,model',
  'usage?bucket=year',
  'usage?bucket=hour&from=2026-01-01&to=2026-11-01',
  'usage?cursor=x',
  'usage?tag=team',
  'events?cursor=x',
  'events?overrun=maybe',
  'transactions?cursor=x',
])('a question that cannot be answered is refused with 400: %s', async (question) => {
  const control = await openControl(tempDir())
  const { status, body } = await control.call('GET', `/admin/v1/${question}`)
  expect([status, body]).toMatchObject([400, { error: { code: 'invalid_request' } }])
})

it('a tenant sees the same report of its own usage, and nothing of what it costs us', async () => {
  const gateway = await startGateway()
  const other = await gateway.account()
  await (await gateway.chat({ model: 'pair', user: 'ada' }, { 'x-weir-tags': 'team=search' })).text()
  await (await gateway.chat({ model: 'solo' }, { 'x-weir-tags': 'team=sales' })).text()
  const report = async (query: string, key?: string): Promise<{ totals: Record<string, unknown>[]; text: string }> => {
    const text = await (await gateway.get(`/v1/usage?${query}`, key)).text()
    return { text, totals: (JSON.parse(text) as { totals: Record<string, unknown>[] }).totals }
  }
  const by_team = await report('group=tag:team,model&bucket=day&tz=Asia/Kolkata')
  expect(by_team.totals.map((row) => [row['tag:team'], row['model'], row['requests']])).toEqual([
    ['sales', 'solo', 1],
    ['search', 'pair', 1],
  ])
  expect(by_team.totals[0]).toMatchObject({ tenant: gateway.tenant, from: expect.stringContaining('T') as unknown })
  expect((await report('group=end_user')).totals).toHaveLength(1)
  expect((await report('tag=team:sales')).totals).toMatchObject([{ model: 'solo', requests: 1 }])
  expect((await report('group=tag:team', other.secret)).totals).toEqual([])
  for (const query of ['', 'group=tag:team', 'group=endpoint&bucket=hour']) expect((await report(query)).text).not.toContain('cost')
})

it.each(['group=tenant', 'group=tag:a,end_user', 'tz=Mars', 'tz=%2B08:00', 'bucket=year', 'cursor=x', 'totals_cursor=x', 'tag=x'])(
  'the tenant’s report refuses %s',
  async (query) => {
    const gateway = await startGateway()
    const response = await gateway.get(`/v1/usage?${query}`)
    expect([response.status, (await errorOf(response)).code]).toEqual([400, 'invalid_request'])
  },
)

it('a database of the release before is filled with the rollups of its events', async () => {
  const dir = tempDir()
  const before = await openTest(dir)
  await before.log.close(closingEvent('a', { tags: { team: 'x' }, end_user: 'u1', overrun_nano: 5n, calls: { search: 2, image: 0 } }))
  await before.log.close(closingEvent('b', { status: 'swept' }))
  await before.log.close(closingEvent('b', { revision: 2, amount_nano: 9n, admitted_at: ADMITTED_AT }))
  await before.close()
  const tables = ['usage_minutes', 'usage_hours', 'usage_days']
  const database = new DatabaseSync(join(dir, 'weir.db'))
  const rowsOf = (): unknown => tables.map((table) => database.prepare(`SELECT * FROM ${table}`).all())
  const minutes = database.prepare('SELECT * FROM usage_minutes').all()
  for (const name of ['usage_minutes', 'usage_hours', 'usage_days', 'usage_stale']) database.exec(`DROP TABLE ${name}`)
  for (const name of ['events_overrun', 'ledger_transactions_by_time', 'ledger_transactions_by_kind', 'ledger_entries_by_owner'])
    database.exec(`DROP INDEX ${name}`)
  database.exec('ALTER TABLE events DROP COLUMN end_user; ALTER TABLE events DROP COLUMN overrun_nano')
  database.exec(readFileSync(join(REPO_ROOT, 'src/storage/sql/schema/migrations/003_rollups.sql'), 'utf8'))
  const [filled] = rowsOf() as [unknown, unknown, unknown]
  expect(filled).toEqual(minutes)
  expect((rowsOf() as unknown[][]).map((rows) => rows.length)).toEqual([minutes.length, minutes.length, minutes.length])
  database.close()
  const after = await openTest(dir)
  const period = { from_ms: 0, to_ms: ADMITTED_AT * 2 }
  expect((await after.ledger.usage({ periods: [period], by: ['tag:team'], limit: 9 })).rows).toMatchObject([
    { group: ['search'], requests: 1, amount_nano: 9n },
    { group: ['x'], requests: 1, overrun_nano: 5n, calls: { search: 2, image: 0 } },
  ])
  expect((await after.ledger.events({ overrun: true, limit: 9 })).events).toMatchObject([{ id: 'a', end_user: 'u1' }])
  await after.close()
})
