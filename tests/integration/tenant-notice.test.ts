import { join } from 'node:path'
import { expect, test } from 'vitest'
import { TENANT_DEFAULTS } from '../../src/storage/records.ts'
import { runCommand } from '../support/command.ts'
import { openControl } from '../support/control.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'

const NOTICE = {
  registration_number: 'Hunan-Sibionics-20250905S0006',
  public_slug: 'acme-app',
  label: 'explicit',
  label_text: '本文由人工智能生成',
  label_place: 'end',
}

test('a tenant has its own number, a public page and a label from its creation or later on, and loses them by null', async () => {
  const { call } = await openControl(tempDir())
  expect((await call('POST', '/admin/v1/tenants', { id: 'acme', ...NOTICE })).body).toMatchObject(NOTICE)
  expect((await call('POST', '/admin/v1/tenants', { id: 'beta' })).body).toMatchObject(TENANT_DEFAULTS)
  expect((await call('PATCH', '/admin/v1/tenants/beta', { ...NOTICE, public_slug: 'beta' })).body).toMatchObject({
    ...NOTICE,
    public_slug: 'beta',
  })
  expect((await call('PATCH', '/admin/v1/tenants/acme', { name: 'Acme' })).body).toMatchObject({ ...NOTICE, name: 'Acme' })
  expect((await call('PATCH', '/admin/v1/tenants/acme', TENANT_DEFAULTS)).body).toMatchObject(TENANT_DEFAULTS)
  const { data } = (await call('GET', '/admin/v1/tenants')).body as { data: readonly object[] }
  expect(data).toMatchObject([TENANT_DEFAULTS, { ...NOTICE, public_slug: 'beta' }])
})

test('a public slug that another tenant has is a conflict, and changes nothing', async () => {
  const { call } = await openControl(tempDir())
  expect((await call('POST', '/admin/v1/tenants', { id: 'acme', public_slug: 'app' })).status).toBe(201)
  expect((await call('POST', '/admin/v1/tenants', { id: 'beta' })).status).toBe(201)
  for (const answer of [
    await call('PATCH', '/admin/v1/tenants/beta', { public_slug: 'app', name: 'B' }),
    await call('POST', '/admin/v1/tenants', { id: 'gamma', public_slug: 'app' }),
  ])
    expect([answer.status, answer.body]).toMatchObject([409, { error: { code: 'conflict', param: 'public_slug' } }])
  const { data } = (await call('GET', '/admin/v1/tenants')).body as { data: readonly object[] }
  expect(data).toMatchObject([
    { id: 'acme', public_slug: 'app' },
    { id: 'beta', name: 'beta', public_slug: null },
  ])
})

test.each([
  [{ registration_number: '湘ICP备1号' }, 'Hunan-Sibionics-20250905S0006'],
  [{ public_slug: 'a/b' }, 'lower-case'],
  [{ public_slug: 'a.json' }, 'lower-case'],
  [{ label: 'implicit' }, 'label'],
  [{ label_text: '(AI)' }, 'generated'],
  [{ label_text: '生成' }, 'artificial intelligence'],
  [{ label_text: 'AI生成\n' + 'x'.repeat(80) }, 'label_text'],
  [{ label_place: 'middle' }, 'label_place'],
])('%j is refused with what would be right', async (change, expected) => {
  const { call } = await openControl(tempDir())
  await call('POST', '/admin/v1/tenants', { id: 'acme' })
  const { status, text } = await call('PATCH', '/admin/v1/tenants/acme', change)
  expect([status, text]).toEqual([400, expect.stringContaining(expected)])
})

test('the command line sets, shows and takes away all of it', async () => {
  const env = { WEIR_DATA_DIR: tempDir(), WEIR_CONFIG_DIR: join(REPO_ROOT, 'tests', 'fixtures', 'config', 'sound'), WEIR_ADMIN_PORT: '0' }
  const weir = async (line: string): Promise<string> => {
    const { code, out, err } = await runCommand(line.split(' '), env)
    expect([code, err]).toEqual([0, ''])
    return out
  }
  await weir('tenant create acme --registration Hunan-Sibionics-20250905S0006 --public-slug acme-app --label explicit --label-place end')
  expect(await weir('tenant list')).toMatch(/Hunan-Sibionics-20250905S0006 +\/filings\/acme-app +explicit\n$/)
  expect(JSON.parse(await weir('tenant change acme --label-text 由AI生成 --json'))).toMatchObject({ ...NOTICE, label_text: '由AI生成' })
  const without = await weir(
    'tenant change acme --registration none --public-slug none --label none --label-text none --label-place start --json',
  )
  expect(JSON.parse(without)).toMatchObject(TENANT_DEFAULTS)
})
