import { describe, expect, it } from 'vitest'
import { RecordsFollower } from '../../src/gateway/follower.ts'
import { KeyTable } from '../../src/gateway/keys.ts'
import type { KeyRecord, NumberedChange, Records, TenantRecord } from '../../src/storage/records.ts'
import { changeOf } from '../../src/storage/sql/tables.ts'
import { atEnd } from '../support/cleanup.ts'
import { testClock } from '../support/clock.ts'
import { waitFor } from '../support/wait.ts'

/** Records that have these changes, or that never answer. */
function recordsWith(changes: readonly NumberedChange[], hangs: () => boolean = () => false): Pick<Records, 'load' | 'changesAfter'> {
  return {
    load: () => Promise.resolve({ seq: 0, tenants: [], projects: [], grants: [] }),
    changesAfter: (seq) => (hangs() ? new Promise(() => {}) : Promise.resolve(changes.filter((change) => change.seq > seq))),
  }
}

const KEY = { id: 'key', tenant: 'acme', project: 'acme/default', hash: 'hash' } as unknown as KeyRecord
const TENANT = { id: 'acme' } as unknown as TenantRecord

describe('a data plane that follows changes', () => {
  it('passes over a kind of record that only a later release knows, and goes on', async () => {
    const keys = new KeyTable()
    const later = changeOf('routing_of_a_later_release', '{"id":"x"}')
    expect(later).toBeNull()
    const changes: NumberedChange[] = [
      { seq: 1, change: later },
      { seq: 2, change: { kind: 'tenant', record: TENANT } },
      { seq: 3, change: { kind: 'key', record: KEY } },
    ]
    await keys.follow(recordsWith(changes) as Records)
    expect(keys.seq).toBe(3)
    expect(keys.tenant('acme')).toEqual(TENANT)
  })

  it('trusts what Redis confirms while the database does not answer', async () => {
    const clock = testClock()
    let confirmed = 0
    const follower = new RecordsFollower({
      keys: new KeyTable(),
      records: recordsWith([], () => true) as Records,
      changes: {
        publish: () => Promise.resolve(),
        subscribe: () => () => {},
        version: () => {
          confirmed += 1
          clock.advance(5000)
          return Promise.resolve(0)
        },
      },
      clock,
      on_trouble: (error) => expect.unreachable(String(error)),
    })
    follower.start()
    // It cannot be waited for: the database never answers.
    atEnd(() => void follower.stop())
    await waitFor(() => confirmed >= 3, { timeout_ms: 20_000, what: 'three looks' })
    expect(follower.fresh).toBe(true)
  })
})
