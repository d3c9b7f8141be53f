import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { uuidv7 } from '../../src/base/ids.ts'
import { givingEntries } from '../../src/storage/accounts.ts'
import { BUCKETS, bucketOf, LedgerUnavailable, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import type { PostgresBooks } from '../../src/storage/postgres/open.ts'
import type { LedgerTransaction } from '../../src/storage/ports.ts'
import type { GrantRecord } from '../../src/storage/records.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { termsOf } from '../../src/storage/grants.ts'
import { noPostgres, type PostgresServer, startPostgres } from '../support/postgres.ts'
import { charged, numbered, openBooks, openEpochOf, outboxOf, postEvents, wrongFactsOf } from '../support/shared-ledger.ts'

const ACME = bucketOf('acme')
const HOUR_MS = 3_600_000

function walletOf(tenant: string): GrantRecord {
  return {
    id: `wallet-${tenant}`,
    tenant,
    kind: 'wallet',
    unit: 'nano_cny',
    amount: 0n,
    priority: 100,
    models: null,
    weights: null,
    expires_at: null,
    created_at: 5,
  }
}

function topUp(id: string, amount: bigint, tenant = 'acme'): LedgerTransaction {
  return { id, at: ADMITTED_AT, kind: 'top_up', note: '', entries: givingEntries(walletOf(tenant), amount) }
}

function parts(amount: bigint) {
  return { parts: [{ grant: 'wallet-acme', unit: 'nano_cny', amount }], amount_nano: amount } as const
}

describe.skipIf(noPostgres !== null)('shared ledger: PostgreSQL', () => {
  let server: PostgresServer
  let books: PostgresBooks & { readonly schema: string }
  let ledger: SharedLedger
  beforeAll(async () => {
    server = await startPostgres()
  })
  beforeEach(async () => {
    books = await openBooks(server, { lock_timeout_ms: 1000 })
    ledger = books.ledger
  })

  describe('epochs', () => {
    it('every bucket begins closed; a new epoch is the same for all that it closes, and greater than every one before', async () => {
      expect(await ledger.epochs()).toEqual(Array.from({ length: BUCKETS }, (_, bucket) => ({ bucket, epoch: 0, state: 'closed' })))
      const [first, second] = [await ledger.beginEpoch([3, 1, 2]), await ledger.beginEpoch([2])]
      expect(second).toBeGreaterThan(first)
      expect(await ledger.beginEpoch([7], second + 40)).toBe(second + 41)
      expect(await ledger.beginEpoch([7], 3)).toBe(second + 42)
      expect((await ledger.epochs()).slice(1, 4)).toEqual([
        { bucket: 1, epoch: first, state: 'closed' },
        { bucket: 2, epoch: second, state: 'closed' },
        { bucket: 3, epoch: first, state: 'closed' },
      ])
    })

    it('opens all of the buckets that are asked for, or none', async () => {
      const epoch = await ledger.beginEpoch([1, 2])
      const later = await ledger.beginEpoch([2])
      expect(await ledger.openEpoch([1, 2], epoch)).toBe(false)
      expect((await ledger.epochs()).filter(({ state }) => state === 'open')).toEqual([])
      expect([await ledger.openEpoch([1], epoch), await ledger.openEpoch([1], epoch), await ledger.openEpoch([2], later)]).toEqual([
        true,
        true,
        true,
      ])
      expect((await ledger.epochs()).filter(({ state }) => state === 'open').map(({ bucket }) => bucket)).toEqual([1, 2])
    })

    it('epochs that begin at once are different, and none waits for the other for ever', async () => {
      const all = Array.from({ length: BUCKETS }, (_, bucket) => bucket)
      const begun = await Promise.all([all, all.toReversed(), all].map((buckets) => ledger.beginEpoch(buckets)))
      expect(new Set(begun).size).toBe(3)
      expect(new Set((await ledger.epochs()).map(({ epoch }) => epoch))).toEqual(new Set([Math.max(...begun)]))
    })

    it('a new epoch waits for postings that run', async () => {
      const epoch = await openEpochOf(ledger)
      const begun: Promise<number>[] = []
      await ledger.withBucket(ACME, async (bucket) => {
        begun.push(ledger.beginEpoch([ACME]))
        await new Promise((resolve) => setTimeout(resolve, 50))
        const { outbox_tenants } = await bucket.post({ bucket: ACME, source: 'in time', events: [charged(numbered('a', 1), epoch)] })
        expect(outbox_tenants).toEqual([])
      })
      expect((await Promise.all(begun))[0]).toBeGreaterThan(epoch)
    })
  })

  describe('outbox', () => {
    it('has what limits have not charged in the epoch in force, with the terms that the grant has now', async () => {
      await books.records.put({ kind: 'grant', record: walletOf('acme') })
      const before = await openEpochOf(ledger)
      const epoch = await openEpochOf(ledger)
      expect(await postEvents(ledger, [charged(numbered('now', 1), epoch)])).toEqual(['posted'])
      expect(await ledger.outbox(10)).toEqual([])
      await postEvents(ledger, [charged(numbered('before', 2), before), charged(numbered('never', 3), null)])
      const credit = { parts: [{ grant: 'credit', unit: 'nano_cny', amount: 7n }] } as const
      await postEvents(ledger, [charged(numbered('credit', 4, credit), null)])
      await books.records.put({ kind: 'grant', record: { ...walletOf('acme'), priority: 3 } })
      const { kind: _, amount: __, ...terms } = walletOf('acme')
      const plain = { unit: 'nano_cny', expires_at: null, created_at: 0, models: null, weights: null }
      expect(await ledger.outbox(10)).toEqual([
        { tenant: 'acme', seq: 1, delta: -2000n, grant: { ...terms, priority: 3 } },
        { tenant: 'acme', seq: 2, delta: -7n, grant: { id: 'credit', tenant: 'acme', priority: Number.MAX_SAFE_INTEGER, ...plain } },
      ])
    })

    it('a second revision that limits put in the place of the first says nothing; one that they have not heard of, the difference', async () => {
      const epoch = await openEpochOf(ledger)
      for (const id of ['heard', 'not']) await postEvents(ledger, [charged(numbered(id, id === 'heard' ? 1 : 2, parts(100n)), epoch)])
      await postEvents(ledger, [charged(numbered('heard', 3, { ...parts(30n), revision: 2, flags: ['late'] }), epoch)])
      expect(await outboxOf(ledger)).toEqual([])
      await postEvents(ledger, [charged(numbered('not', 4, { ...parts(30n), revision: 2, flags: ['late'] }), null)])
      expect(await outboxOf(ledger)).toEqual(['acme 1 wallet-acme 70'])
      expect(await wrongFactsOf(ledger)).toEqual({})
    })

    it('a first revision that comes after its second counts nowhere, and limits are told once', async () => {
      const epoch = await openEpochOf(ledger)
      expect(await postEvents(ledger, [charged(numbered('a', 2, { ...parts(30n), revision: 2 }), epoch)])).toEqual(['posted'])
      const second = { events: 1, amount_nano: 30n }
      expect(await ledger.auditFacts()).toMatchObject(second)
      expect(await postEvents(ledger, [charged(numbered('a', 1, { ...parts(100n), status: 'swept' }), epoch)])).toEqual(['posted'])
      expect(await ledger.auditFacts()).toMatchObject(second)
      expect(await ledger.event('a')).toMatchObject({ revision: 2 })
      expect(await outboxOf(ledger)).toEqual([])
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 2, unposted: 0, stopped: false })
      expect(await wrongFactsOf(ledger)).toEqual({})
    })

    it('a transaction tells limits what its entries mean, in the same commit, once', async () => {
      expect([await ledger.transact(topUp('t1', 50n)), await ledger.transact(topUp('t1', 9n))]).toEqual(['posted', 'duplicate'])
      const credit = { code: 'receivable', owner: 'acme', ref: '', unit: 'nano_cny' } as const
      const entries = [
        { account: credit, amount: -8n },
        { account: { ...credit, code: 'cash_clearing' }, amount: 8n },
      ] as const
      await ledger.transact({ ...topUp('t2', 1n), entries })
      await expect(ledger.transact(topUp('t3', 2n ** 63n - 1n))).rejects.toThrow('64 bits')
      await ledger.transact({ ...topUp('t4', 4n), kind: 'adjustment' })
      expect(await outboxOf(ledger)).toEqual(['acme 1 wallet-acme 50', 'acme 2 credit 8', 'acme 3 wallet-acme 4'])
      expect(await wrongFactsOf(ledger)).toEqual({})
    })

    it('numbers have no gap and come in the order of commits, whoever posts and transacts at once', async () => {
      const tenants = ['acme', 'zeta', 'omega']
      const work = Array.from({ length: 60 }, async (_, index) => {
        const tenant = tenants[index % 3] ?? 'acme'
        if (index % 2 === 0) return await ledger.transact(topUp(`t${index}`, 1n, tenant))
        const wallet = [{ grant: `wallet-${tenant}`, unit: 'nano_cny', amount: 1n }] as const
        return await postEvents(ledger, [charged(numbered(`e${index}`, index, { tenant, parts: wallet }), null)], tenant)
      })
      await Promise.all(work)
      for (const tenant of tenants) {
        const rows = await ledger.outbox(100, tenant)
        expect(rows.map(({ seq }) => seq)).toEqual(Array.from({ length: 20 }, (_, index) => index + 1))
      }
    })

    it('what is delivered is not given again, and is deleted after an hour', async () => {
      for (const [id, tenant] of [
        ['a', 'acme'],
        ['b', 'acme'],
        ['c', 'zeta'],
      ] as const)
        await ledger.transact(topUp(id, 1n, tenant))
      expect(await ledger.outbox(1)).toHaveLength(1)
      await ledger.delivered('acme', 1)
      expect(await outboxOf(ledger)).toEqual(['acme 2 wallet-acme 1', 'zeta 1 wallet-zeta 1'])
      await ledger.delivered('acme', 2)
      const kept = async (): Promise<unknown> =>
        (await server.sql(`SELECT COUNT(*)::int AS count FROM ${books.schema}.outbox`))[0]?.['count']
      await ledger.upkeep(Date.now())
      expect(await kept()).toBe(3)
      await ledger.upkeep(Date.now() + HOUR_MS + 60_000)
      expect(await kept()).toBe(1)
      await ledger.transact(topUp('d', 1n))
      expect(await outboxOf(ledger, 'acme')).toEqual(['acme 3 wallet-acme 1'])
    })

    it('gives the oldest rows of each of some tenants, those of named buckets left out, and says where it has come to', async () => {
      for (const tenant of ['acme', 'bolt', 'zeta', 'omega'])
        for (const n of [1, 2, 3]) await ledger.transact(topUp(`${tenant}-${n}`, 1n, tenant))
      await ledger.delivered('acme', 1)
      const slice = async (after: string, tenants: number, without: readonly number[] = []): Promise<unknown> => {
        const { rows, last } = await ledger.outboxSlice({ after, without, tenants, rows_each: 2 })
        return [rows.map(({ tenant, seq }) => `${tenant} ${seq}`), last]
      }
      expect(await slice('', 2)).toEqual([['acme 2', 'acme 3', 'bolt 1', 'bolt 2'], 'bolt'])
      expect(await slice('bolt', 3)).toEqual([['omega 1', 'omega 2', 'zeta 1', 'zeta 2'], null])
      expect(await slice('', 2, [bucketOf('acme'), bucketOf('omega')])).toEqual([['bolt 1', 'bolt 2', 'zeta 1', 'zeta 2'], 'zeta'])
      expect(await slice('zeta', 2)).toEqual([[], null])
      expect([await ledger.outboxWaiting(5), await ledger.outboxWaiting(100)]).toEqual([5, 11])
    })

    it('has the mark that was set last by those who knew the one before', async () => {
      const { server: of, mark } = await ledger.mark()
      expect([of, mark]).toEqual([expect.stringMatching(/^[0-9A-F]{8}$/), null])
      await ledger.setMark('first', null)
      for (const current of [null, 'other']) await ledger.setMark('lost', current)
      expect(await ledger.mark()).toEqual({ server: of, mark: 'first' })
      await ledger.setMark('second', 'first')
      expect(await ledger.mark()).toEqual({ server: of, mark: 'second' })
    })

    it('lets limits know of terms alone, also of a grant that is not on record', async () => {
      await ledger.tell(termsOf(walletOf('acme')), 0n)
      expect(await ledger.outbox(5)).toMatchObject([{ seq: 1, delta: 0n, grant: { id: 'wallet-acme', priority: 100, created_at: 5 } }])
      await books.records.put({ kind: 'grant', record: { ...walletOf('acme'), priority: 1 } })
      expect(await ledger.outbox(5)).toMatchObject([{ seq: 1, delta: 0n, grant: { priority: 1 } }])
    })
  })

  describe('places', () => {
    it('an event whose place another has is superseded; its number is known, and what limits charged for it is given back', async () => {
      const epoch = await openEpochOf(ledger)
      expect(await postEvents(ledger, [charged(numbered('a', 1, { node: 'n-2', ...parts(5n) }), null)])).toEqual(['posted'])
      const other = numbered('a', 1, parts(100n))
      expect(await postEvents(ledger, [charged(other, epoch), charged(numbered('b', 2), epoch)])).toEqual(['superseded', 'posted'])
      expect(await postEvents(ledger, [charged(other, epoch)])).toEqual(['superseded'])
      expect(await outboxOf(ledger)).toEqual(['acme 1 wallet-acme -5', 'acme 2 wallet-acme 100'])
      expect(await ledger.event('a')).toMatchObject({ node: 'n-2', amount_nano: 5n })
      for (const [node, last_seq] of [
        ['n-1', 2],
        ['n-2', 1],
      ] as const) {
        await ledger.beat({ node, roles: [], version: '1', last_seq, unposted: 0, stopped: false })
      }
      expect(await wrongFactsOf(ledger)).toEqual({})
    })

    it('of a void event only the number is recorded, whatever it says of a charge', async () => {
      const epoch = await openEpochOf(ledger)
      const is_void = { void: true } as const
      const events = [
        charged(numbered('a', 1), epoch, is_void),
        charged(numbered('b', 2), epoch),
        charged(numbered('b', 2), epoch, is_void),
      ]
      expect(await postEvents(ledger, events)).toEqual(['superseded', 'posted', 'known'])
      expect([await ledger.event('a'), await ledger.outbox(5)]).toEqual([null, []])
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 2, unposted: 0, stopped: false })
      expect(await wrongFactsOf(ledger)).toEqual({})
    })

    it('the same event twice in one batch, and another in its place, each have their state', async () => {
      const [one, other] = [numbered('a', 1), numbered('a', 2, { node: 'n-2' })]
      expect(await postEvents(ledger, [charged(one, null), charged(other, null), charged(one, null)])).toEqual([
        'posted',
        'superseded',
        'known',
      ])
      expect(await ledger.auditFacts()).toMatchObject({ events: 1, amount_nano: 1000n })
    })

    it('says which events it has, and who numbered them', async () => {
      await postEvents(ledger, [charged(numbered('a', 7), null)])
      const key = { day: '2026-11-23', id: 'a', revision: 1 }
      const keys = [{ ...key, id: 'b' }, key, { ...key, revision: 2 }, { ...key, day: '2026-11-24' }]
      expect(await ledger.known(keys)).toEqual([null, { node: 'n-1', seq: 7 }, null, null])
      expect(await ledger.known([])).toEqual([])
    })

    it('an event of another bucket, or of a day that is none, is refused with everything beside it', async () => {
      const events = [charged(numbered('a', 1), null), charged(numbered('b', 2, { tenant: 'zeta' }), null)]
      await expect(postEvents(ledger, events)).rejects.toThrow('another bucket')
      await expect(postEvents(ledger, [charged(numbered('a', 1, { day: "2026-11-23'" }), null)])).rejects.toThrow('no date')
      expect(await ledger.event('a')).toBeNull()
    })

    it('an id that was made on another day than its event was admitted finds it all the same', async () => {
      for (const [index, days] of [-1, 0, 1, 30].entries()) {
        const id = uuidv7(ADMITTED_AT + days * 86_400_000)
        await postEvents(ledger, [charged(numbered(id, index + 1), null)])
        expect((await ledger.event(id))?.seq).toBe(index + 1)
      }
      expect(await ledger.event(uuidv7(ADMITTED_AT))).toBeNull()
    })
  })

  describe('at once', () => {
    it('two posters that post the same batch: each event is posted by one of them, and there is one transaction', async () => {
      const other = (await openBooks(server, { schema: books.schema })).ledger
      const events = Array.from({ length: 300 }, (_, index) => charged(numbered(`e${index}`, index + 1), null))
      const batch = { bucket: ACME, source: 'same', events }
      const answers = await Promise.all([ledger, other, ledger, other].map((one) => one.postBatches([batch])))
      const posted = answers.flat().flatMap(({ states }) => states.filter((state) => state === 'posted'))
      expect(posted).toHaveLength(300)
      const { transactions } = await ledger.transactions({ kind: 'usage', limit: 10 })
      expect(transactions.map(({ id, note }) => [id, note])).toEqual([['usage-same', '300 events']])
      expect(await ledger.auditFacts()).toMatchObject({ events: 300, amount_nano: 300_000n, wrong_sums: [], wrong_rollups: [] })
    })

    it('the same events from two paths, cut into other batches: each is posted once, whatever comes first', async () => {
      const other = (await openBooks(server, { schema: books.schema })).ledger
      const events = Array.from({ length: 200 }, (_, index) => charged(numbered(`e${index}`, index + 1), null))
      const path = async (by: SharedLedger, size: number): Promise<number> => {
        let posted = 0
        for (let from = 0; from < events.length; from += size) {
          posted += (await postEvents(by, events.slice(from, from + size))).filter((state) => state === 'posted').length
        }
        return posted
      }
      const counts = await Promise.all([path(ledger, 17), path(other, 40), path(other, 200)])
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(200)
      expect((await outboxOf(ledger)).length).toBeGreaterThan(0)
      const told = (await ledger.outbox(1000)).reduce((sum, { delta }) => sum + delta, 0n)
      expect(told).toBe(-200_000n)
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 200, unposted: 0, stopped: false })
      expect(await wrongFactsOf(ledger)).toEqual({})
    })

    it('a source that is posted again with more than before has a transaction for what is new', async () => {
      const events = [charged(numbered('a', 1), null), charged(numbered('b', 2), null)]
      await ledger.postBatches([{ bucket: ACME, source: 's', events: events.slice(0, 1) }])
      expect(await ledger.postBatches([{ bucket: ACME, source: 's', events }])).toMatchObject([{ states: ['known', 'posted'] }])
      const { transactions } = await ledger.transactions({ kind: 'usage', limit: 10 })
      expect(transactions.map(({ id }) => id).toSorted()).toEqual(['usage-s', 'usage-s~2'])
    })

    it('eight posters over many buckets and the same suppliers, beside top-ups, never lock each other out', async () => {
      const ledgers = await Promise.all(
        Array.from(
          { length: 4 },
          async () => (await openBooks(server, { schema: books.schema, connections: { posting: 2, short: 2 } })).ledger,
        ),
      )
      const tenants = Array.from({ length: 24 }, (_, index) => `tenant-${index}`)
      let seq = 0
      const batchesOf = (poster: number, round: number) => {
        const own = new Map<number, { tenant: string; id: string }[]>()
        for (let count = 0; count < 60; count += 1) {
          const tenant = tenants[(poster * 7 + round * 5 + count) % tenants.length] ?? 'acme'
          const bucket = bucketOf(tenant)
          own.set(bucket, [...(own.get(bucket) ?? []), { tenant, id: `${poster}-${round}-${count}` }])
        }
        return [...own].map(([bucket, list]) => ({
          bucket,
          source: `p${poster}-${round}-${bucket}`,
          events: list.map(({ tenant, id }) =>
            charged(numbered(id, (seq += 1), { tenant, parts: [{ grant: `w-${tenant}`, unit: 'nano_cny', amount: 3n }] }), null),
          ),
        }))
      }
      const poster = async (number: number): Promise<void> => {
        for (let round = 0; round < 6; round += 1) {
          const by = ledgers[number % ledgers.length] ?? ledger
          const batches = batchesOf(number, round)
          await by.postBatches(number % 2 === 0 ? batches : batches.toReversed())
          await by.transact(topUp(`t-${number}-${round}`, 1n, tenants[number]))
        }
      }
      await Promise.all(Array.from({ length: 8 }, (_, number) => poster(number)))
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: seq, unposted: 0, stopped: false })
      expect(await ledger.auditFacts()).toMatchObject({ events: 8 * 6 * 60 })
      expect(await wrongFactsOf(ledger)).toEqual({})
      const supplier = (await ledger.balances()).filter(({ account }) => account.code === 'supplier_cost')
      // None was resolved by starting over either.
      expect(await server.sql("SELECT deadlocks::int AS count FROM pg_stat_database WHERE datname = 'weir'")).toEqual([{ count: 0 }])
      expect(supplier).toEqual([
        { account: { code: 'supplier_cost', owner: 'dashscope', ref: '', unit: 'nano_cny' }, amount: 8n * 6n * 60n * 400n },
      ])
    })
  })

  describe('locks', () => {
    it('work under a bucket’s lock is alone with it: others’ postings wait, its own do not', async () => {
      const order: string[] = []
      const posting: Promise<unknown>[] = []
      await ledger.withBucket(ACME, async (bucket) => {
        posting.push(postEvents(ledger, [charged(numbered('other', 2), null)]).then(() => order.push('other')))
        await new Promise((resolve) => setTimeout(resolve, 50))
        const batches = ['one', 'two'].map((id, index) => ({ bucket: ACME, source: id, events: [charged(numbered(id, index + 5), null)] }))
        const posted = await Promise.all(batches.map((batch) => bucket.post(batch)))
        expect(posted.map(({ states }) => states)).toEqual([['posted'], ['posted']])
        order.push('own')
      })
      await Promise.all(posting)
      expect(order).toEqual(['own', 'other'])
    })

    it('a lock that is held for too long is given up on, and given back when work fails', async () => {
      await ledger.withBucket(ACME, async () => {
        await expect(ledger.withBucket(ACME, () => Promise.resolve(1))).rejects.toBeInstanceOf(LedgerUnavailable)
        await expect(postEvents(ledger, [charged(numbered('a', 1), null)])).rejects.toBeInstanceOf(LedgerUnavailable)
      })
      await expect(ledger.withBucket(ACME, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
      expect(await ledger.withBucket(ACME, () => Promise.resolve('yes'))).toBe('yes')
    })

    it('work whose lock was lost is told so', async () => {
      const lost = ledger.withBucket(ACME, async () => {
        await server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'weir buckets'")
        await new Promise((resolve) => setTimeout(resolve, 100))
      })
      await expect(lost).rejects.toBeInstanceOf(LedgerUnavailable)
      expect(await ledger.withBucket(ACME, () => Promise.resolve('again'))).toBe('again')
    })

    it('books are what is left of each grant, what the credit line has paid and the end of the outbox, as of one moment', async () => {
      await books.records.put({ kind: 'grant', record: walletOf('acme') })
      await books.records.put({ kind: 'grant', record: { ...walletOf('acme'), id: 'spare' } })
      await ledger.transact(topUp('t', 5000n))
      const paid = [
        { grant: 'wallet-acme', unit: 'nano_cny', amount: 300n },
        { grant: 'credit', unit: 'nano_cny', amount: 20n },
        { grant: 'unrecorded', unit: 'tokens', amount: 4n },
      ] as const
      await postEvents(ledger, [charged(numbered('a', 1, { parts: paid }), null)])
      const found = await ledger.withBucket(ACME, (bucket) => bucket.books())
      expect(found).toMatchObject([{ tenant: 'acme', applied_seq: 4, credit_used_nano: 20n }])
      const left = found[0]?.grants.map(({ terms, balance }) => [terms.id, terms.priority, balance] as const)
      expect(left?.toSorted((a, b) => (a[0] < b[0] ? -1 : 1))).toEqual([
        ['spare', 100, 0n],
        ['unrecorded', Number.MAX_SAFE_INTEGER, -4n],
        ['wallet-acme', 100, 4700n],
      ])
      expect(await ledger.withBucket((ACME + 1) % BUCKETS, (bucket) => bucket.books())).toEqual([])
    })

    it('of one name one works at a time, in turn or not at all; other names do not mind', async () => {
      const other = (await openBooks(server, { schema: books.schema, lock_timeout_ms: 1000 })).ledger
      let [working, most] = [0, 0]
      const work = async (): Promise<number> => {
        working += 1
        most = Math.max(most, working)
        await new Promise((resolve) => setTimeout(resolve, 20))
        working -= 1
        return working
      }
      await Promise.all([ledger, other, ledger, other].map((one) => one.inTurn('tenant acme', work)))
      expect(most).toBe(1)
      await ledger.ifAlone('sweep', async () => {
        expect(await other.ifAlone('sweep', () => Promise.resolve('too'))).toBeNull()
        expect(await other.ifAlone('expire', () => Promise.resolve('this'))).toBe('this')
        await expect(other.inTurn('sweep', () => Promise.resolve('late'))).rejects.toBeInstanceOf(LedgerUnavailable)
      })
      expect(await other.ifAlone('sweep', () => Promise.resolve('now'))).toBe('now')
    })
  })

  describe('nodes', () => {
    it('says what each has said last, by the database’s clock; its last number never goes back', async () => {
      const beat = { node: 'n-1', roles: ['gateway', 'worker'], version: '1.2', last_seq: 9, unposted: 2, stopped: false }
      await ledger.beat(beat)
      await ledger.beat({ ...beat, last_seq: 8, stopped: true })
      const [node, ...others] = await ledger.nodes()
      expect(others).toEqual([])
      expect(node).toMatchObject({ ...beat, last_seq: 9, stopped: true })
      expect(Math.abs((node?.beat_at ?? 0) - Date.now())).toBeLessThan(3_600_000)
      expect(node?.silent_ms).toBeGreaterThanOrEqual(0)
    })

    it('audits name numbers that are nowhere, up to what a node has said, or a mark says', async () => {
      const post = async (...seqs: readonly number[]): Promise<void> => {
        await postEvents(
          ledger,
          seqs.map((seq) => charged(numbered(`e${seq}`, seq), null)),
        )
      }
      await post(2, 3, 6)
      expect((await ledger.auditFacts()).gaps).toEqual(['n-1 4–5'])
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 4, unposted: 0, stopped: false })
      expect((await ledger.auditFacts()).gaps).toEqual(['n-1 1', 'n-1 4'])
      await post(1, 4)
      expect((await ledger.auditFacts()).gaps).toEqual([])
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 7, unposted: 0, stopped: false })
      expect((await ledger.auditFacts()).gaps).toEqual(['n-1 5', 'n-1 7'])
      const mark = { node: 'n-9', event_seq: 0, row_seq: 0 }
      expect((await ledger.auditFacts({ ...mark, nodes: [{ node: 'n-1', event_seq: 4 }] })).gaps).toEqual([])
      expect((await ledger.auditFacts({ ...mark, node: 'n-1', event_seq: 5 })).gaps).toEqual(['n-1 5'])
      await server.sql(`INSERT INTO ${books.schema}.superseded_numbers VALUES ('n-1', 3, '2026-11-23', 'x', 1, true)`)
      await post(5, 7)
      expect((await ledger.auditFacts()).gaps).toEqual(['n-1 has a number twice'])
    })

    it('balances of a mark are those that it brings', async () => {
      await ledger.transact(topUp('t', 5n))
      const balances = [{ account: { code: 'promo', owner: 'x', ref: '', unit: 'tokens' }, amount: 1n }] as const
      const mark = { node: 'n-1', event_seq: 0, row_seq: 0 }
      expect((await ledger.auditFacts({ ...mark, balances })).balances).toEqual(balances)
      expect((await ledger.auditFacts(mark)).balances).toHaveLength(2)
    })
  })
})
