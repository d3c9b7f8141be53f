import { join } from 'node:path'
import OpenAI from 'openai'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startWeir } from '../../src/weir.ts'
import { atEnd } from '../support/cleanup.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'

const DOMAINS = ['finance', 'healthcare', 'education', 'government', 'industrial', 'retail', 'customer_service', 'legal']

it('a demo answers for every domain by a profile of its own, streamed and not, at the price of its model', async () => {
  const env = { WEIR_PORT: '0', WEIR_ADMIN_PORT: '0', WEIR_DATA_DIR: tempDir() }
  const logger = createLogger({ level: 'error' })
  const server = await startWeir({ config_dir: join(REPO_ROOT, 'config'), env, clock: systemClock(), logger })
  atEnd(() => server.drain())
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.demo_key ?? '', maxRetries: 0 })
  const listed = new Map<string, unknown>()
  for await (const model of client.models.list()) listed.set(model.id, model)
  for (const domain of DOMAINS) {
    const model = `${domain.replace('_', '-')}-assistant`
    expect(listed.get(model)).toMatchObject({ domain, life: 'ga', profile_of: 'qwen3.7-plus', owned_by: 'alibaba' })
    const ask = { model, messages: [{ role: 'user' as const, content: '你好' }] }
    const { data, response } = await client.chat.completions.create(ask).withResponse()
    expect([data.model, response.headers.get('x-weir-model'), response.headers.get('x-weir-sandbox')]).toEqual([model, model, '1'])
    expect(data.choices[0]?.message.content).toContain('你好')
    // The operator's prompt was sent and counted.
    expect(data.usage?.prompt_tokens).toBeGreaterThan(100)
    const usage = await fetch(`${server.url}/v1/usage/${response.headers.get('x-request-id')}`, {
      headers: { authorization: `Bearer ${server.demo_key}` },
    })
    expect(await usage.json()).toMatchObject({ model, domain, price_version: expect.stringContaining('sell:qwen3.7-plus@') as unknown })
    let text = ''
    for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) text += chunk.choices[0]?.delta.content ?? ''
    expect(text).toBe(data.choices[0]?.message.content)
  }
})
