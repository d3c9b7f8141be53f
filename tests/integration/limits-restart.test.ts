import { expect, it } from 'vitest'
import type { HoldReceipt } from '../../src/money/event.ts'
import { windowAround } from '../../src/money/window.ts'
import { rebuildLimits } from '../../src/storage/memory/rebuild.ts'
import type { LimitSetting } from '../../src/storage/records.ts'
import { everyRuleOf, rulesFor } from '../../src/storage/rules.ts'
import { grant, holdRequest } from '../conformance/limits-requests.ts'
import { ADMITTED_AT, testClock } from '../support/clock.ts'
import { closingEvent, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const HOUR_MS = 3_600_000
const window = (kind: LimitSetting['kind'], model: string | null, name: '5h' | 'day' | null): LimitSetting => ({
  kind,
  model,
  limit: '1000',
  window: name,
})
const LIMITS = [
  window('requests_window', null, '5h'),
  window('tokens_window', 'qwen3-max', '5h'),
  window('amount_window', null, 'day'),
  window('budget', null, null),
]
const tenant = {
  id: 'acme',
  name: 'acme',
  audience: 'internal',
  status: 'active',
  locale: 'en',
  time_zone: 'Asia/Shanghai',
  zones: [],
  on_client_abort: 'cancel',
  on_limits_away: 'closed',
  priority: 'normal',
  queue_weight: 1,
  credit_line_nano: 0n,
  limits: LIMITS,
  created_at: 1,
} as const
const project = { id: 'web', tenant: 'acme', name: 'web', limits: LIMITS, zones: null, created_at: 1 }
const key = {
  id: 'key-1',
  tenant: 'acme',
  project: 'web',
  name: 'k',
  hash: 'h',
  last4: 'abcd',
  scopes: [],
  models: null,
  zones: null,
  limits: LIMITS,
  expires_at: null,
  revoked_at: null,
  created_at: 1,
}

it('a restart finds every window where it was: five hours from their own first use, though earlier windows lie within them', async () => {
  const data_dir = tempDir()
  const clock = testClock()
  const storage = await openTest(data_dir, { clock })
  const { limits, log, records, ledger } = storage
  await records.put({ kind: 'tenant', record: tenant })
  await records.put({ kind: 'project', record: project })
  await records.put({ kind: 'key', record: key })
  await limits.credit({ grant: grant('wallet'), delta: 1_000_000n, seq: 1 })
  const limited = { tenant, project, key }
  const request = async (id: string, at_hours: number, model: string): Promise<HoldReceipt> => {
    clock.advance(ADMITTED_AT + at_hours * HOUR_MS - clock.now_ms())
    const result = await limits.hold(holdRequest(id, { model, rules: rulesFor(limited, model, clock.now_ms()) }))
    if (!result.ok) throw new Error(result.refusal.reason)
    const { receipt } = result
    const { tenant: of, project: in_project, key: by, admitted_at } = receipt
    const event = closingEvent(id, { tenant: of, project: in_project, key: by, model, admitted_at, hold: receipt, amount_nano: 100n })
    await log.close(event)
    const tokens = event.tokens.input + event.tokens.cached_input + event.tokens.cache_write + event.tokens.output
    await limits.settle({ id, tenant: 'acme', admitted_at, tokens, amount_nano: 100n, parts: event.parts })
    return receipt
  }
  await request('a', 0, 'qwen3-max')
  await request('b', 4, 'other')
  const third = await request('c', 5.25, 'qwen3-max')
  expect(third.begun).toEqual({
    'key requests_window': ADMITTED_AT + 5.25 * HOUR_MS,
    'key tokens_window qwen3-max': ADMITTED_AT + 5.25 * HOUR_MS,
    'project requests_window': ADMITTED_AT + 5.25 * HOUR_MS,
    'project tokens_window qwen3-max': ADMITTED_AT + 5.25 * HOUR_MS,
    'tenant requests_window': ADMITTED_AT + 5.25 * HOUR_MS,
    'tenant tokens_window qwen3-max': ADMITTED_AT + 5.25 * HOUR_MS,
  })
  await request('d', 6, 'other')
  const rules = everyRuleOf(limited, clock.now_ms())
  const before = await limits.states(rules)
  expect(before[0]).toMatchObject({ used: 2n, resets_at_ms: ADMITTED_AT + 10.25 * HOUR_MS })
  await ledger.post()
  await storage.close()
  const again = await openTest(data_dir, { clock })
  await rebuildLimits(again.limits, again.records, again.ledger, { clock, windowAt: windowAround })
  expect(await again.limits.states(rules)).toEqual(before)
  clock.advance(4.5 * HOUR_MS)
  const later = await again.limits.states(everyRuleOf(limited, clock.now_ms()))
  expect(later[0]).toMatchObject({ used: 0n, resets_at_ms: null })
  await again.close()
})
