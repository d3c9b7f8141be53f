import { describe, expect, it } from 'vitest'
import type { Limits } from '../../src/storage/ports.ts'
import { ADMITTED_AT, type TestClock, testClock } from '../support/clock.ts'
import { grant, holdRequest, rule, settleRequest } from './limits-requests.ts'

/** Every driver of `Limits` passes these: requests that are closed for a process that has died. */
export function limitsOrphanConformance(name: string, make: (clock: TestClock) => Limits | Promise<Limits>): void {
  describe(`limits: ${name}: orphans`, () => {
    const orphan = (id: string, amount_nano: bigint) => ({ ...settleRequest(id, amount_nano), orphan: true as const })

    it('a hold that is open is charged, marked or not, once', async () => {
      const clock = testClock()
      const limits = await make(clock)
      await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
      for (const id of ['open', 'marked']) {
        await limits.hold(holdRequest(id))
        if (id === 'marked') clock.advance(31_000)
      }
      await limits.hold(holdRequest('running'))
      expect((await limits.sweep(clock.now_ms())).map(({ id }) => id).toSorted()).toEqual(['marked', 'open'])
      for (const id of ['open', 'marked', 'running']) {
        expect(await limits.settle(orphan(id, 20n))).toBe('settled')
        expect([await limits.settle(orphan(id, 20n)), await limits.settle(orphan(id, 30n))]).toEqual(['duplicate', 'duplicate'])
      }
      expect(await limits.balance('acme')).toMatchObject({ available_nano: 940n, held_nano: 0n, open_holds: 0 })
    })

    it('a late settle takes its place, as that of a sweep, and no orphan takes the place of another charge', async () => {
      const limits = await make(testClock())
      await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
      const rules = [rule('budget', 500n)]
      await limits.hold(holdRequest('a', { rules }))
      await limits.settle(orphan('a', 20n))
      expect(await limits.settle(settleRequest('a', 20n))).toBe('duplicate')
      expect(await limits.settle(settleRequest('a', 70n))).toBe('late')
      expect([await limits.settle(settleRequest('a', 80n)), await limits.settle(orphan('a', 20n))]).toEqual(['duplicate', 'duplicate'])
      expect((await limits.states(rules))[0]).toMatchObject({ used: 70n, held: 0n })
      await limits.hold(holdRequest('b'))
      await limits.release('b', 'acme')
      expect(await limits.settle(orphan('b', 20n))).toBe('duplicate')
      expect((await limits.balance('acme')).available_nano).toBe(930n)
    })

    it('of a hold that is not known it counts as any other charge', async () => {
      const clock = testClock()
      const limits = await make(clock)
      await limits.credit({ grant: grant('wallet'), delta: 1000n, seq: 1 })
      expect(await limits.settle(orphan('never', 20n))).toBe('duplicate')
      const earlier = { ...orphan('earlier', 20n), admitted_at: ADMITTED_AT - 600_000 }
      expect([await limits.settle(earlier), await limits.settle(earlier)]).toEqual(['settled', 'duplicate'])
      expect(await limits.settle({ ...orphan('older', 20n), admitted_at: ADMITTED_AT - 600_001 })).toBe('duplicate')
      expect((await limits.balance('acme')).available_nano).toBe(980n)
    })
  })
}
