import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, it } from 'vitest'
import { masterKeyFrom } from '../../src/base/envelope.ts'
import { startSandbox } from '../../src/sandbox/server.ts'
import { readMasterKeys } from '../../src/start/master-key.ts'
import { atEnd } from '../support/cleanup.ts'
import { openControl, type TestControl } from '../support/control.ts'
import { type KeyGate, startKeyGate } from '../support/key-gate.ts'
import { tempDir } from '../support/temp.ts'
import { startWhole, type WholeInProcess } from '../support/whole.ts'

const BAD = { status: 401, code: 'invalid_api_key' }
const SECRET = 'sk-upstream-aaaa-1111'
const OTHER = 'sk-upstream-bbbb-2222'

function masterFile(name = 'master.key'): string {
  const file = join(tempDir(), name)
  writeFileSync(file, randomBytes(32).toString('base64'), { mode: 0o600 })
  return file
}

/** Whether any file of a data directory holds the text. */
function holds(data_dir: string, text: string): boolean {
  const found = (file: string): boolean => {
    try {
      return readFileSync(join(data_dir, file)).includes(text)
    } catch {
      return false
    }
  }
  return ['weir.db', 'weir.db-wal'].some(found)
}

interface Keyed {
  readonly whole: WholeInProcess
  readonly gate: KeyGate
  api(method: string, path: string, body?: object): Promise<{ readonly status: number; readonly body: Record<string, unknown> }>
}

/** A whole Weir whose only provider wants a key, of which the catalogue gives none. */
async function keyed(env: Readonly<Record<string, string>>): Promise<Keyed> {
  const sandbox = await startSandbox({ port: 0 })
  atEnd(() => sandbox.close())
  const gate = await startKeyGate(sandbox.url)
  const whole = await startWhole({ upstream: gate.url, endpoints: { 'solo-a': { provider: 'deepseek' } }, env })
  const api: Keyed['api'] = async (method, path, body) => {
    const { token } = JSON.parse(readFileSync(join(whole.data_dir, 'admin.json'), 'utf8')) as { token: string }
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const init = body === undefined ? {} : { body: JSON.stringify(body) }
    const response = await fetch(`${whole.admin_url}/admin/v1${path}`, { method, headers, ...init })
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }
  return { whole, gate, api }
}

describe('keys of providers through the API', () => {
  it('serve as soon as the call has returned, and no more once they are gone', async () => {
    const { whole, gate, api } = await keyed({ WEIR_MASTER_KEY_FILE: masterFile() })
    const added = await api('POST', '/provider-keys', { provider: 'deepseek', name: 'main', secret: SECRET })
    expect(added).toMatchObject({ status: 201, body: { id: 'deepseek/main', last4: '1111', source: 'api', status: 'active' } })
    expect((await whole.chat({})).status).toBe(200)
    expect(gate.seen).toEqual([SECRET])
    await api('PATCH', '/provider-keys/deepseek/main', { secret: OTHER })
    expect((await whole.chat({})).status).toBe(200)
    expect(gate.seen).toEqual([SECRET, OTHER])
    expect(await api('DELETE', '/provider-keys/deepseek/main')).toMatchObject({ status: 200 })
    // Without a key the demo's sandbox stands in.
    expect((await whole.chat({})).status).toBe(200)
    expect(gate.seen).toEqual([SECRET, OTHER])
    expect((await api('GET', '/provider-keys')).body['data']).toEqual([])
  })

  it('are spoken of without their secrets, which nothing on disk shows either', async () => {
    const { whole, gate, api } = await keyed({ WEIR_MASTER_KEY_FILE: masterFile() })
    const said: unknown[] = []
    for (const [name, secret] of [
      ['a', SECRET],
      ['b', OTHER],
    ])
      said.push(await api('POST', '/provider-keys', { provider: 'deepseek', name, secret, weight: 1 }))
    gate.set(SECRET, BAD)
    // A conversation stays with its key.
    for (let again = 0; again < 12; again += 1) {
      const messages = [{ role: 'user', content: `Hello for the ${again}th time` }]
      expect((await whole.chat({ messages })).status).toBe(200)
    }
    said.push(await api('GET', '/provider-keys'))
    expect(said.at(-1)).toMatchObject({
      body: {
        data: [
          { id: 'deepseek/a', last4: '1111', state: 'cooling' },
          { id: 'deepseek/b', last4: '2222', state: 'ready' },
        ],
      },
    })
    said.push(await whole.metrics())
    expect(JSON.stringify(said)).not.toMatch(/sk-upstream/)
    expect(holds(whole.data_dir, 'deepseek/a')).toBe(true)
    expect(holds(whole.data_dir, 'sk-upstream')).toBe(false)
    expect(await api('DELETE', '/provider-keys/deepseek/b')).toMatchObject({ status: 200 })
    const database = new DatabaseSync(join(whole.data_dir, 'weir.db'), { readOnly: true })
    atEnd(() => database.close())
    expect(database.prepare("SELECT secret, last4, status FROM provider_keys WHERE id = 'deepseek/b'").get()).toEqual({
      secret: '',
      last4: null,
      status: 'removed',
    })
    const bodies = database.prepare("SELECT body FROM changes WHERE kind = 'provider_key'").all()
    expect(bodies.length).toBe(3)
    expect(JSON.stringify(bodies)).not.toMatch(/v1\.[0-9a-f]{16}/)
  })

  it('go on after a restart, and cannot be opened without their master key', async () => {
    const file = masterFile()
    const { whole, gate, api } = await keyed({ WEIR_MASTER_KEY_FILE: file })
    await api('POST', '/provider-keys', { provider: 'deepseek', name: 'main', secret: SECRET })
    await whole.weir.drain()
    const again = await whole.again()
    const chat = (url: string | null): Promise<Response> =>
      fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${whole.key}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'solo', messages: [{ role: 'user', content: 'hello' }] }),
      })
    expect((await chat(again.url)).status).toBe(200)
    expect(gate.seen).toEqual([SECRET])
    await again.drain()
    writeFileSync(file, randomBytes(32).toString('base64'))
    const stranger = await whole.again()
    expect((await chat(stranger.url)).headers.get('x-weir-sandbox')).not.toBeNull()
    expect(gate.seen).toEqual([SECRET])
  })
})

describe('the provider keys of the admin API', () => {
  const masters = (file: string, old?: string) =>
    readMasterKeys({ WEIR_MASTER_KEY_FILE: file, ...(old === undefined ? {} : { WEIR_OLD_MASTER_KEY_FILE: old }) })
  const control = async (file: string | null, data_dir = tempDir(), old?: string): Promise<TestControl> =>
    openControl(data_dir, { master_keys: file === null ? null : masters(file, old) })

  it('takes references alone without a master key, and says so', async () => {
    const { call } = await control(null)
    const refused = await call('POST', '/admin/v1/provider-keys', { provider: 'deepseek', name: 'a', secret: SECRET })
    expect(refused.status).toBe(400)
    expect(refused.text).toContain('WEIR_MASTER_KEY_FILE')
    expect(refused.text).not.toContain(SECRET)
    const taken = await call('POST', '/admin/v1/provider-keys', { provider: 'deepseek', name: 'a', secret: '${DEEPSEEK_KEY_2}' })
    expect(taken).toMatchObject({ status: 201, body: { reference: '${DEEPSEEK_KEY_2}', last4: null } })
    expect((await call('POST', '/admin/v1/provider-keys', { provider: 'deepseek', name: 'b', secret: '${X:-default}' })).status).toBe(400)
    expect((await call('POST', '/admin/v1/provider-keys/rewrap')).status).toBe(400)
  })

  it('names mistakes without repeating the secret, and takes a name once until it is removed', async () => {
    const { call } = await control(masterFile())
    const wrong = { provider: 'deepsek', name: 'a b', secret: 'with space', weight: 0, concurrency: 0, colour: 'red' }
    const refused = await call('POST', '/admin/v1/provider-keys', wrong)
    for (const word of ['name:', 'secret:', 'weight:', 'concurrency:', 'colour']) expect(refused.text).toContain(word)
    expect(refused.text).not.toContain('with space')
    const given = { provider: 'deepseek', name: 'a', secret: SECRET }
    expect((await call('POST', '/admin/v1/provider-keys', { ...given, provider: 'deepsek' })).status).toBe(400)
    expect((await call('POST', '/admin/v1/provider-keys', given)).status).toBe(201)
    expect((await call('POST', '/admin/v1/provider-keys', given)).status).toBe(400)
    expect((await call('DELETE', '/admin/v1/provider-keys/deepseek/a')).status).toBe(200)
    expect((await call('DELETE', '/admin/v1/provider-keys/deepseek/a')).status).toBe(404)
    expect((await call('PATCH', '/admin/v1/provider-keys/deepseek/a', { weight: 2 })).status).toBe(404)
    expect((await call('POST', '/admin/v1/provider-keys', given)).status).toBe(201)
    const limits = { weight: 3, tokens_per_minute: 10, status: 'disabled' }
    expect(await call('PATCH', '/admin/v1/provider-keys/deepseek/a', limits)).toMatchObject({
      status: 200,
      body: { ...limits, last4: '1111' },
    })
  })

  it('goes on where a rewrap was cut short, and needs the old master key no more after it', async () => {
    const data_dir = tempDir()
    const [old, fresh] = [masterFile(), masterFile()]
    const before = await control(old, data_dir)
    for (const name of ['a', 'b', 'c'])
      await before.call('POST', '/admin/v1/provider-keys', { provider: 'deepseek', name, secret: `${SECRET}-${name}` })
    await before.call('POST', '/admin/v1/provider-keys', { provider: 'deepseek', name: 'd', secret: '${REFERENCE}' })
    await before.close()
    const without = await control(fresh, data_dir)
    const refused = await without.call('POST', '/admin/v1/provider-keys/rewrap')
    expect(refused.status).toBe(400)
    expect(refused.text).toContain(masterKeyFrom(readFileSync(old, 'utf8')).id)
    await without.close()
    const both = await control(fresh, data_dir, old)
    // One of three is under the new key already, as after a rewrap that was killed.
    await both.call('PATCH', '/admin/v1/provider-keys/deepseek/b', { secret: OTHER })
    expect((await both.call('POST', '/admin/v1/provider-keys/rewrap')).body).toMatchObject({ keys: 3, rewrapped: 2 })
    expect((await both.call('POST', '/admin/v1/provider-keys/rewrap')).body).toMatchObject({ keys: 3, rewrapped: 0 })
    await both.close()
    const after = await control(fresh, data_dir)
    expect((await after.call('POST', '/admin/v1/provider-keys/rewrap')).body).toMatchObject({ keys: 3, rewrapped: 0 })
  })
})

describe('a master key file', () => {
  it('is refused when others may read it, when it is no key, and when it is not there', () => {
    const file = masterFile()
    expect(readMasterKeys({})).toBeNull()
    expect(readMasterKeys({ WEIR_MASTER_KEY_FILE: file })?.all).toHaveLength(1)
    chmodSync(file, 0o644)
    expect(() => readMasterKeys({ WEIR_MASTER_KEY_FILE: file })).toThrow(/may be read by others/)
    const wrong = join(tempDir(), 'wrong.key')
    writeFileSync(wrong, 'secret words', { mode: 0o600 })
    expect(() => readMasterKeys({ WEIR_MASTER_KEY_FILE: wrong })).toThrow(/is not a master key/)
    expect(() => readMasterKeys({ WEIR_MASTER_KEY_FILE: wrong })).not.toThrow(/secret words/)
    expect(() => readMasterKeys({ WEIR_MASTER_KEY_FILE: `${file}.gone` })).toThrow(/cannot be read \(ENOENT\)/)
    expect(() => readMasterKeys({ WEIR_OLD_MASTER_KEY_FILE: file })).toThrow(/WEIR_MASTER_KEY_FILE is not/)
  })
})
