import { expect, it } from 'vitest'
import type { EventQuery } from '../../src/storage/ports.ts'
import { SqlLedger } from '../../src/storage/sql/ledger.ts'

/** A ledger without events, and which of its connections are read from. */
function watched(): { readonly ledger: SqlLedger; readonly read: string[] } {
  const read: string[] = []
  const reader = (name: string) => ({
    read: () => {
      read.push(name)
      return Promise.resolve([[]])
    },
  })
  const refused = (): Promise<never> => Promise.reject(new Error('nothing is written here'))
  const executor = { ...reader('shared'), write: refused }
  return { ledger: new SqlLedger(executor, { post: refused, transact: refused }, reader('auditing'), reader('searching')), read }
}

it('a list of events that may look at a whole year is read where nobody else waits', async () => {
  const plain: readonly EventQuery[] = [{ limit: 1 }, { tenant: 'acme', from_ms: 0, to_ms: 1, limit: 1 }, { overrun: true, limit: 1 }]
  const searches: readonly Partial<EventQuery>[] = [
    { project: 'web' },
    { key: 'key-1' },
    { model: 'qwen3-max' },
    { endpoint: 'dashscope/qwen3-max' },
    { end_user: 'u' },
    { tag: { name: 'team', value: 'search' } },
  ]
  const { ledger, read } = watched()
  for (const query of plain) await ledger.events(query)
  for (const query of searches) await ledger.events({ tenant: 'acme', limit: 1, ...query })
  expect(read).toEqual([...plain.map(() => 'shared'), ...searches.map(() => 'searching')])
})
