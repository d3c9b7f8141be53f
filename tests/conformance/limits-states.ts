import { describe, expect, it } from 'vitest'
import { windowAround } from '../../src/money/window.ts'
import type { LimitRule, Limits } from '../../src/storage/ports.ts'
import { ADMITTED_AT, type TestClock, testClock } from '../support/clock.ts'
import { grant, holdRequest } from './limits-requests.ts'

const HOUR_MS = 3_600_000
const DAY = windowAround('day', 'Asia/Shanghai', ADMITTED_AT)
const KINDS: readonly LimitRule[] = [
  { scope: 'key', scope_id: 'key-1', model: null, kind: 'requests_per_minute', limit: 60n, window: null },
  { scope: 'key', scope_id: 'key-1', model: 'qwen3-max', kind: 'tokens_per_minute', limit: 6000n, window: null },
  { scope: 'project', scope_id: 'web', model: null, kind: 'concurrency', limit: 2n, window: null },
  { scope: 'project', scope_id: 'web', model: null, kind: 'requests_window', limit: 10n, window: DAY },
  {
    scope: 'tenant',
    scope_id: 'acme',
    model: null,
    kind: 'tokens_window',
    limit: 500n,
    window: windowAround('5h', 'Asia/Shanghai', ADMITTED_AT),
  },
  {
    scope: 'tenant',
    scope_id: 'acme',
    model: null,
    kind: 'amount_window',
    limit: 400n,
    window: windowAround('month', 'Asia/Shanghai', ADMITTED_AT),
  },
  { scope: 'tenant', scope_id: 'acme', model: null, kind: 'budget', limit: 1000n, window: null },
]

/** Every driver of `Limits` passes these. */
export function limitStatesConformance(name: string, make: (clock: TestClock) => Limits | Promise<Limits>): void {
  describe(`limit states: ${name}`, () => {
    it('show limits that nobody has used as wholly available, and looking makes nothing of it', async () => {
      const limits = await make(testClock())
      for (let look = 0; look < 2; look += 1) {
        const states = await limits.states(KINDS)
        expect(states.map(({ rule }) => rule)).toEqual(KINDS)
        expect(states.map(({ available, held }) => [available, held])).toEqual(KINDS.map(({ limit }) => [limit, 0n]))
        expect(states.map(({ used }) => used)).toEqual([null, null, null, 0n, 0n, 0n, 0n])
      }
      const [, , , day, five_hours, , budget] = await limits.states(KINDS)
      expect([day?.resets_at_ms, five_hours?.resets_at_ms, budget?.resets_at_ms]).toEqual([DAY.end_ms, null, null])
    })

    it('follow a hold, its settle and the end of the window', async () => {
      const clock = testClock()
      const limits = await make(clock)
      await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
      await limits.hold(holdRequest('a', { rules: KINDS }))
      const during = await limits.states(KINDS)
      expect(during.map(({ available }) => available)).toEqual([59n, 5900n, 1n, 9n, 400n, 300n, 900n])
      expect(during.map(({ held }) => held)).toEqual([0n, 0n, 1n, 1n, 100n, 100n, 100n])
      expect(during[4]?.resets_at_ms).toBe(ADMITTED_AT + 5 * HOUR_MS)
      const parts = [{ grant: 'wallet', unit: 'nano_cny', amount: 30n }] as const
      await limits.settle({ id: 'a', tenant: 'acme', admitted_at: ADMITTED_AT, tokens: 50, amount_nano: 30n, parts })
      const after = await limits.states(KINDS)
      expect(after.map(({ available }) => available)).toEqual([59n, 5950n, 2n, 9n, 450n, 370n, 970n])
      expect(after.map(({ used }) => used)).toEqual([null, null, null, 1n, 50n, 30n, 30n])
      clock.advance(5 * HOUR_MS)
      const later = await limits.states(KINDS)
      expect([later[4]?.available, later[4]?.used, later[4]?.resets_at_ms]).toEqual([500n, 0n, null])
      expect([later[0]?.available, later[5]?.available, later[6]?.available]).toEqual([60n, 370n, 970n])
    })

    it('give at most nothing where more was used than the limit allows now', async () => {
      const limits = await make(testClock())
      await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
      await limits.hold(holdRequest('a', { rules: KINDS }))
      const [state] = await limits.states([{ scope: 'tenant', scope_id: 'acme', model: null, kind: 'budget', limit: 40n, window: null }])
      expect(state).toMatchObject({ available: 0n, held: 100n })
    })
  })
}
