import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Storage } from '../../src/storage/open.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { closingEvent, openRow } from '../support/storage.ts'

/** A driver under test. `reopen` closes it cleanly and opens the same data again. */
export interface StorageSubject {
  readonly storage: Storage
  reopen(): Promise<Storage>
  end(): Promise<void>
}

/** Every driver of the usage log passes these. */
export function usageLogConformance(name: string, make: () => Promise<StorageSubject>): void {
  describe(`usage log: ${name}`, () => {
    let subject: StorageSubject
    beforeEach(async () => {
      subject = await make()
    })
    afterEach(() => subject.end())

    it('numbers events without a gap, and a second close of the same revision is the same event', async () => {
      const { log, ledger, node } = subject.storage
      await log.open(openRow('a'))
      expect(await log.close(closingEvent('a'))).toBe(1)
      expect(await log.close(closingEvent('a', { amount_nano: 7n }))).toBe(1)
      expect(await Promise.all(['b', 'c'].map((id) => log.close(closingEvent(id))))).toEqual([2, 3])
      expect(await log.close(closingEvent('a', { revision: 2 }))).toBe(4)
      expect((await ledger.post()).events).toBe(4)
      expect(await ledger.event('c')).toEqual({ ...closingEvent('c'), node, seq: 3 })
    })

    it('goes on numbering after a restart, under the same name', async () => {
      await subject.storage.log.close(closingEvent('a'))
      const { node } = subject.storage
      const again = await subject.reopen()
      expect(again.node).toBe(node)
      expect(again.node).toMatch(/^n-[0-9a-f]{8}$/)
      expect(await again.log.close(closingEvent('b'))).toBe(2)
    })

    it('gives back what an earlier owner left open, with the last checkpoint', async () => {
      const { log } = subject.storage
      for (const id of ['closed', 'released', 'open', 'silent']) await log.open(openRow(id))
      const checkpoint = (output: number) => ({
        v: 1 as const,
        id: 'open',
        at: ADMITTED_AT + output,
        endpoint: 'dashscope/qwen3-max',
        tokens: { input: 1, cached_input: 0, cache_write: 0, output, reasoning: 0 },
        ttfe_ms: 12,
        attempts: [{ endpoint: 'x', outcome: 'reset', http_status: null, duration_ms: 3, cost_nano: 9_007_199_254_740_993n }],
      })
      log.checkpoint([checkpoint(5)])
      log.checkpoint([checkpoint(9)])
      log.release('released')
      await log.close(closingEvent('closed'))
      expect(await log.unfinished()).toEqual([])
      expect(await log.unfinished(['silent', 'closed', 'released', 'open', 'unknown'])).toEqual([
        { open: openRow('open'), last: checkpoint(9) },
        { open: openRow('silent'), last: null },
      ])
      const again = await subject.reopen()
      expect(await again.log.unfinished()).toEqual([
        { open: openRow('open'), last: checkpoint(9) },
        { open: openRow('silent'), last: null },
      ])
      await again.log.open(openRow('mine'))
      await again.log.close(closingEvent('open', { status: 'swept', usage_source: 'swept' }))
      expect((await again.log.unfinished()).map(({ open }) => open.hold.id)).toEqual(['silent'])
      expect((await again.ledger.auditFacts()).open_requests).toEqual(['silent', 'mine'])
    })

    it('says how many events wait to be posted', async () => {
      const { log, ledger } = subject.storage
      await Promise.all(Array.from({ length: 20 }, (_, index) => log.close(closingEvent(`e${index}`))))
      await ledger.post()
      expect(log.health()).toEqual({ unposted: 0, ok: true })
    })
  })
}
