import { expect, it } from 'vitest'
import { walletOf } from '../../src/money/grant.ts'
import { openControl, type TestControl } from '../support/control.ts'
import { closingEvent } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const ROUNDS = 5

async function acme(): Promise<TestControl> {
  const control = await openControl(tempDir())
  expect((await control.call('POST', '/admin/v1/tenants', { id: 'acme' })).status).toBe(201)
  return control
}

async function newKey({ call }: TestControl): Promise<string> {
  const made = await call('POST', '/admin/v1/keys', { tenant: 'acme' })
  return String(made.body['id'])
}

const rpm = (limit: number) => ({ kind: 'requests_per_minute', limit })

it('a revocation outlives whatever else changes the key at the same moment, and the other change is kept', async () => {
  const control = await acme()
  for (let round = 0; round < ROUNDS; round += 1) {
    const key = await newKey(control)
    await Promise.all([
      control.call('POST', `/admin/v1/keys/${key}/revoke`),
      control.call('PUT', '/admin/v1/limits', { key, set: rpm(7) }),
      control.call('PATCH', `/admin/v1/keys/${key}`, { name: 'renamed' }),
    ])
    const record = await control.storage.records.key(key)
    expect(record).toMatchObject({ name: 'renamed', limits: [{ kind: 'requests_per_minute', limit: '7' }] })
    expect(record?.revoked_at).not.toBeNull()
  }
})

it('a suspension outlives a limit that is set at the same moment, and the limit is kept', async () => {
  const control = await acme()
  for (let round = 1; round <= ROUNDS; round += 1) {
    await control.call('PATCH', '/admin/v1/tenants/acme', { status: 'active' })
    await Promise.all([
      control.call('PATCH', '/admin/v1/tenants/acme', { status: 'suspended' }),
      control.call('PUT', '/admin/v1/limits', { tenant: 'acme', set: rpm(round) }),
      control.call('PATCH', '/admin/v1/tenants/acme', { credit_line_cny: String(round) }),
    ])
    expect(await control.storage.records.tenant('acme')).toMatchObject({
      status: 'suspended',
      credit_line_nano: BigInt(round) * 1_000_000_000n,
      limits: [{ limit: String(round) }],
    })
  }
})

it('limits set at once are all kept', async () => {
  const control = await acme()
  const kinds = ['requests_per_minute', 'tokens_per_minute', 'concurrency', 'budget']
  await Promise.all(
    kinds.map((kind) => control.call('PUT', '/admin/v1/limits', { tenant: 'acme', project: 'default', set: { kind, limit: '5' } })),
  )
  const [project] = await control.storage.records.projects('acme')
  expect(project?.limits.map(({ kind }) => kind).toSorted()).toEqual(kinds.toSorted())
})

it('of two tenants of one id that are created at once, one is made and the other refused', async () => {
  const { call, storage } = await acme()
  const answers = await Promise.all(['One', 'Two'].map((name) => call('POST', '/admin/v1/tenants', { id: 'twice', name })))
  expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, 400])
  const made = answers.find(({ status }) => status === 201)
  expect((await storage.records.tenant('twice'))?.name).toBe(made?.body['name'])
})

it('what was spent counts once in budgets that are set at once', async () => {
  const control = await acme()
  const { log, ledger } = control.storage
  const key = await newKey(control)
  const parts = [{ grant: walletOf('acme'), unit: 'nano_cny', amount: 700_000_000n }] as const
  const spent = { tenant: 'acme', project: 'acme/default', key, admitted_at: Date.now(), amount_nano: 700_000_000n, parts }
  await log.close(closingEvent('0190a000-0000-7000-8000-000000000001', spent))
  await ledger.post()
  const windows = [null, 'day', 'month']
  await Promise.all(windows.map((window) => control.call('PUT', '/admin/v1/limits', { key, set: { kind: 'budget', limit: '5', window } })))
  const { body } = await control.call('GET', `/admin/v1/limits?key=${key}`)
  expect(body['data']).toMatchObject([{ used: '0.7' }, { used: '0.7' }, { used: '0.7' }])
})

it('a tenant whose creation was cut short is completed by creating it again with the same content, and by nothing else', async () => {
  const control = await acme()
  const { records } = control.storage
  const whole = await records.tenant('acme')
  if (whole === null) throw new Error('there is no tenant')
  await records.put({ kind: 'tenant', record: { ...whole, id: 'half', name: 'Half', created_at: 7 } })
  const create = (body: object) => control.call('POST', '/admin/v1/tenants', { id: 'half', ...body })
  expect(await create({ name: 'Half', locale: 'en' })).toMatchObject({ status: 400, body: { error: { param: 'id' } } })
  expect(await create({ name: 'Half' })).toMatchObject({ status: 201, body: { id: 'half', created_at: '1970-01-01T00:00:00.007Z' } })
  expect((await records.projects('half')).map(({ id }) => id)).toEqual(['half/default'])
  expect((await records.grants('half')).map(({ id }) => id)).toEqual([walletOf('half')])
  expect((await control.call('POST', '/admin/v1/keys', { tenant: 'half' })).status).toBe(201)
  expect(await create({ name: 'Half' })).toMatchObject({ status: 400, body: { error: { message: 'tenant half exists already' } } })
})
