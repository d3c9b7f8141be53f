import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { startGateway } from '../support/gateway.ts'
import { sseOf } from '../support/sse.ts'
import { startWhole } from '../support/whole.ts'

it('a new price is for requests after it; a stream that began before keeps the old one', async () => {
  const gateway = await startGateway()
  const open = await gateway.chat({ stream: true, sandbox: { tokens: 30, token_delay_ms: 20 } })
  gateway.reprice('v2', '20', '80')
  gateway.reload()
  const later = await gateway.chat({ sandbox: { tokens: 30 } })
  expect(await sseOf(open)).toMatchObject({ done_count: 1 })
  const [before, after] = [await gateway.event(open.headers.get('x-request-id')), await gateway.event(later.headers.get('x-request-id'))]
  expect([before?.price_version, after?.price_version]).toEqual([expect.stringContaining('solo@v1'), expect.stringContaining('solo@v2')])
  expect(after?.tokens).toEqual(before?.tokens)
  expect(after?.amount_nano).toBe((before?.amount_nano ?? 0n) * 10n)
  await gateway.audit()
})

it('a model that is taken away is not found any more, while its open stream ends well', async () => {
  const gateway = await startGateway()
  const open = await gateway.chat({ model: 'pair', stream: true, sandbox: { tokens: 30, token_delay_ms: 20 } })
  const { catalogue } = gateway.plane.snapshot().configuration
  const [endpoint] = catalogue.models.get('solo')?.endpoints ?? []
  const solo = { kind: 'chat', owned_by: 'test', context_tokens: 1000, max_output_tokens: 100, tokenizer: 'sandbox', created: '2026-01-01' }
  const models = { solo: { ...solo, endpoints: [{ provider: 'sandbox', base_url: endpoint?.base_url }] } }
  writeFileSync(join(gateway.config_dir, 'catalogue.yaml'), JSON.stringify({ models }))
  writeFileSync(
    join(gateway.config_dir, 'price-book.yaml'),
    JSON.stringify({
      calendar: {},
      sell: {
        solo: [
          {
            version: 'v1',
            effective_from: '2026-01-01',
            source: 'test',
            as_of: '2026-01-01',
            rules: [{ name: 'all', input: '2', output: '8' }],
          },
        ],
      },
    }),
  )
  gateway.reload()
  expect((await gateway.chat({ model: 'pair' })).status).toBe(404)
  expect((await gateway.chat({ model: 'solo', max_tokens: 5 })).status).toBe(200)
  expect(await sseOf(open)).toMatchObject({ done_count: 1, error: null })
  await gateway.audit()
})

it('a configuration with mistakes is refused whole; the one in force goes on', async () => {
  const whole = await startWhole()
  const digest = async (): Promise<unknown> => ((await (await fetch(`${whole.url}/readyz`)).json()) as { config: unknown }).config
  const before = await digest()
  writeFileSync(join(whole.config_dir, 'catalogue.yaml'), 'models: {solo: {kind: cat}}')
  await whole.weir.reload()
  expect(await digest()).toBe(before)
  expect((await whole.chat({})).status).toBe(200)
  expect(await whole.metrics()).toMatch(/weir_config_loads_total\{result="failed"\} [1-9]/)
})
