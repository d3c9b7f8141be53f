import { describe, expect, it } from 'vitest'
import { encodeEvent } from '../../src/money/event-json.ts'
import { createClusterClosing } from '../../src/storage/cluster/closing.ts'
import { Forwarder } from '../../src/storage/cluster/forward.ts'
import type { ChargeNotes } from '../../src/storage/cluster/notes.ts'
import type { SharedLedger } from '../../src/storage/cluster-ports.ts'
import type { Journal } from '../../src/storage/journal/client.ts'
import { testClock } from '../support/clock.ts'
import { closingEvent } from '../support/storage.ts'

/** Limits that say of what they were told to forget; nothing else is asked of them. */
function limitsOf(mine: readonly string[]) {
  const forgotten: string[] = []
  const limits = {
    isMine: (id: string) => mine.includes(id),
    forget: (id: string) => void forgotten.push(id),
    settleEvent: () => Promise.reject(new Error('nobody settles here')),
    release: () => Promise.resolve(),
  }
  return { forgotten, limits }
}

describe('a hold of this process is forgotten', () => {
  it('when its event could not be written, so that it is not registered anew in a later epoch', async () => {
    const { forgotten, limits } = limitsOf(['r'])
    const journal = { node: 'n', close: () => Promise.reject(new Error('the disk is full')) } as unknown as Journal
    const closing = createClusterClosing({ limits, journal, notes: { add: () => {} } as unknown as ChargeNotes, on_trouble: () => {} })
    await expect(closing.close(closingEvent('r'))).rejects.toThrow('the disk is full')
    expect(forgotten).toEqual(['r'])
  })

  it('when the ledger has its event, though the answer of its settle was lost; not while it is being settled', async () => {
    const { forgotten, limits } = limitsOf(['settling'])
    const rows = ['lost', 'settling'].map((id, index) => {
      const event = { ...closingEvent(id), node: 'n', seq: index + 1 }
      const { day, revision, seq } = event
      return { seq, event_seq: seq, id, revision, day, at: 0, body: encodeEvent(event), note: null }
    })
    const journal = {
      node: 'n',
      ask: ({ what, after }: { readonly what: string; readonly after?: number }) =>
        Promise.resolve(what === 'unposted' ? rows.filter(({ seq }) => seq > (after ?? 0)) : null),
    } as unknown as Journal
    const ledger = { known: () => Promise.resolve(rows.map(({ seq }) => ({ node: 'n', seq }))) } as unknown as SharedLedger
    const notes = { flush: () => Promise.resolve() } as unknown as ChargeNotes
    expect(await new Forwarder({ journal, notes, limits, ledger, clock: testClock() }).run(true)).toBe(0)
    expect(forgotten).toEqual(['lost'])
  })
})
