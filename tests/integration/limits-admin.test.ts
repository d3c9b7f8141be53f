import { describe, expect, test } from 'vitest'
import { openControl, type TestControl } from '../support/control.ts'
import { closingEvent } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

async function withKey(): Promise<{ control: TestControl; key: string }> {
  const control = await openControl(tempDir())
  await control.call('POST', '/admin/v1/tenants', { id: 'acme', time_zone: 'Asia/Shanghai' })
  const { body } = await control.call('POST', '/admin/v1/keys', { tenant: 'acme' })
  return { control, key: String(body['id']) }
}

const rows = (body: Record<string, unknown>): Record<string, unknown>[] => body['data'] as Record<string, unknown>[]

describe('limits', () => {
  test('are set, changed, listed and removed one by one, for tenant, project and key', async () => {
    const { control, key } = await withKey()
    const set = { kind: 'requests_window', limit: 200, window: '5h' }
    for (const whose of [{ tenant: 'acme' }, { tenant: 'acme', project: 'default' }, { key }]) {
      const query = new URLSearchParams(whose).toString()
      expect((await control.call('PUT', '/admin/v1/limits', { ...whose, set })).status).toBe(200)
      await control.call('PUT', '/admin/v1/limits', { ...whose, set: { kind: 'budget', limit: '12.5', window: 'month' } })
      const changed = await control.call('PUT', '/admin/v1/limits', { ...whose, set: { ...set, limit: 300 } })
      expect(rows(changed.body)).toHaveLength(2)
      const listed = await control.call('GET', `/admin/v1/limits?${query}`)
      expect(listed.body).toEqual(changed.body)
      expect(rows(listed.body)).toMatchObject([
        { kind: 'budget', window: 'month', limit: '12.5', used: '0', held: '0', available: '12.5' },
        { kind: 'requests_window', window: '5h', limit: '300', used: '0', available: '300', resets_at: null },
      ])
      const removed = await control.call('DELETE', `/admin/v1/limits?${query}&kind=budget&window=month`)
      expect(rows(removed.body)).toHaveLength(1)
      expect((await control.call('DELETE', `/admin/v1/limits?${query}&kind=budget&window=month`)).status).toBe(404)
    }
  })

  test.each([
    [{ set: { kind: 'concurrency', limit: 1 } }, 'say whose limits'],
    [{ tenant: 'acme', set: { kind: 'requests_window', limit: 1 } }, 'needs a window'],
    [{ tenant: 'acme', set: { kind: 'budget', limit: '1.0000000001' } }, 'amount in CNY'],
    [{ tenant: 'acme', set: { kind: 'concurrency', limit: 1, model: 'nobody' } }, 'the catalogue has no'],
    [{ tenant: 'acme', set: { kind: 'speed', limit: 1 } }, 'kind'],
  ])('a mistake is said: %o', async (body, words) => {
    const { control } = await withKey()
    const answer = await control.call('PUT', '/admin/v1/limits', body)
    expect(answer.status).toBe(400)
    expect(answer.text).toContain(words)
  })

  test('limits of another tenant, project or key that does not exist are not found', async () => {
    const { control, key } = await withKey()
    await control.call('POST', '/admin/v1/tenants', { id: 'other' })
    for (const query of ['tenant=nobody', 'tenant=acme&project=nothing', 'key=key_x', `tenant=other&key=${key}`]) {
      expect((await control.call('GET', `/admin/v1/limits?${query}`)).status).toBe(404)
    }
  })

  test('two limits of one kind, model and window are refused wherever limits are given as a list', async () => {
    const { control } = await withKey()
    const limits = [3, 5].map((limit) => ({ kind: 'requests_window', limit, window: 'day' }))
    const answers = [
      await control.call('POST', '/admin/v1/tenants', { id: 'other', limits }),
      await control.call('PATCH', '/admin/v1/tenants/acme', { limits }),
      await control.call('POST', '/admin/v1/projects', { tenant: 'acme', id: 'web', limits }),
      await control.call('POST', '/admin/v1/keys', { tenant: 'acme', limits }),
    ]
    for (const { status, text } of answers)
      expect([status, text]).toEqual([400, expect.stringContaining('the same kind, model and window')])
  })

  test('a budget that is added in the middle of a month begins with what was spent in it', async () => {
    const { control, key } = await withKey()
    const { log, ledger } = control.storage
    const now_ms = control.deps.clock.now_ms()
    const parts = [{ grant: 'wallet:acme', unit: 'nano_cny', amount: 700_000_000n }] as const
    const spent = { tenant: 'acme', project: 'acme/default', key, admitted_at: now_ms, amount_nano: 700_000_000n, parts }
    await log.close(closingEvent('0190a000-0000-7000-8000-000000000001', spent))
    await ledger.post()
    const { body } = await control.call('PUT', '/admin/v1/limits', { tenant: 'acme', set: { kind: 'budget', limit: '1', window: 'month' } })
    expect(rows(body)).toMatchObject([{ used: '0.7', available: '0.3' }])
    const raised = await control.call('PUT', '/admin/v1/limits', { tenant: 'acme', set: { kind: 'budget', limit: '2', window: 'month' } })
    expect(rows(raised.body)).toMatchObject([{ used: '0.7', available: '1.3' }])
  })
})

describe('changes', () => {
  test("of a key's models, zones, name and expiry, and of a project's name", async () => {
    const { control, key } = await withKey()
    const changed = await control.call('PATCH', `/admin/v1/keys/${key}`, { models: ['qwen3-max'], expires_at: '2030-01-01T00:00:00Z' })
    expect(changed.body).toMatchObject({ id: key, name: 'key', models: ['qwen3-max'], expires_at: '2030-01-01T00:00:00.000Z' })
    expect((await control.call('PATCH', `/admin/v1/keys/${key}`, { expires_at: null, models: null })).body).toMatchObject({
      models: null,
      expires_at: null,
    })
    expect((await control.call('PATCH', `/admin/v1/keys/${key}`, { models: ['nobody'] })).status).toBe(400)
    expect((await control.call('PATCH', `/admin/v1/keys/${key}`, { secret: 'x' })).status).toBe(400)
    const project = await control.call('PATCH', `/admin/v1/projects/${encodeURIComponent('acme/default')}`, { name: 'Web' })
    expect(project.body).toMatchObject({ id: 'acme/default', name: 'Web' })
  })
})
