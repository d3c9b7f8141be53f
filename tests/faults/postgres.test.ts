import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { givingEntries } from '../../src/storage/accounts.ts'
import { bucketOf, type ChargedEvent, LedgerUnavailable, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { Database } from '../../src/storage/postgres/database.ts'
import { openPostgres } from '../../src/storage/postgres/open.ts'
import { ADMITTED_AT } from '../support/clock.ts'
import { startCuttingProxy } from '../support/cutting-proxy.ts'
import { noPostgres, startPostgres } from '../support/postgres.ts'
import { faultRounds, faultSeed, seededRandom } from '../support/random.ts'
import { charged, numbered, openBooks, postEvents, wrongFactsOf } from '../support/shared-ledger.ts'

const ACME = bucketOf('acme')
const TENANTS = Array.from({ length: 8 }, (_, index) => `tenant-${index}`)
const RETRY_MS = 20

function topUp(id: string) {
  const grant = { id: 'wallet-acme', tenant: 'acme', kind: 'wallet', unit: 'nano_cny' } as const
  return { id, at: 1, kind: 'top_up', note: '', entries: givingEntries(grant, 5n) } as const
}

describe.skipIf(noPostgres !== null)('PostgreSQL', () => {
  it.each(['before', 'after'] as const)(
    'a posting whose connection is cut %s the server hears of its commit is asked about, posted again, and in the ledger once',
    async (when) => {
      const server = await startPostgres()
      const proxy = await startCuttingProxy(server.port)
      const url = (await server.url()).replace(String(server.port), String(proxy.port))
      const { ledger, close } = await openPostgres({ url, clock: systemClock() })
      const events = Array.from({ length: 50 }, (_, index) => charged(numbered(`e${index}`, index + 1), null))
      const keys = events.map((_, index) => ({ day: '2026-11-23', id: `e${index}`, revision: 1 }))
      const batch = { bucket: ACME, source: 'cut', events }
      // Its day has its partition already, which is a commit too.
      await ledger.upkeep(ADMITTED_AT)
      const cut = proxy.cutAt('COMMIT\0', when)
      await expect(ledger.postBatches([batch])).rejects.toBeInstanceOf(LedgerUnavailable)
      await cut
      const there = when === 'before' ? null : { node: 'n-1', seq: 1 }
      // The server may still be at it: a commit that it heard of is seen once it has ended.
      expect((await ledger.known(keys))[0]).toEqual(there)
      const [posted] = await ledger.postBatches([batch])
      expect(new Set(posted?.states)).toEqual(new Set([when === 'before' ? 'posted' : 'known']))
      expect((await ledger.known(keys)).map((place) => place?.seq)).toEqual(events.map((_, index) => index + 1))
      expect((await ledger.outbox(10)).map(({ delta }) => delta)).toEqual([-50_000n])
      const again = proxy.cutAt('COMMIT\0', when)
      await expect(ledger.transact(topUp('t'))).rejects.toBeInstanceOf(LedgerUnavailable)
      await again
      expect(await ledger.transact(topUp('t'))).toBe(when === 'before' ? 'posted' : 'duplicate')
      await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 50, unposted: 0, stopped: false })
      expect(await wrongFactsOf(ledger)).toEqual({})
      await close()
    },
  )

  it('a read whose connection is cut is read again, and a posting before it began is posted', async () => {
    const server = await startPostgres()
    const proxy = await startCuttingProxy(server.port)
    const url = (await server.url()).replace(String(server.port), String(proxy.port))
    const { ledger, close } = await openPostgres({ url, clock: systemClock() })
    await postEvents(ledger, [charged(numbered('a', 1), null)])
    const cut_read = proxy.cutAt('ledger_balances', 'before')
    expect(await ledger.balances()).toHaveLength(4)
    await cut_read
    const cut_begin = proxy.cutAt('BEGIN ISOLATION LEVEL READ COMMITTED', 'before')
    expect(await postEvents(ledger, [charged(numbered('b', 2), null)])).toEqual(['posted'])
    await cut_begin
    await close()
  })

  it('a server that falls silent is given up on, and its connection is not used again', async () => {
    const server = await startPostgres()
    const proxy = await startCuttingProxy(server.port)
    const url = (await server.url()).replace(String(server.port), String(proxy.port))
    const rest = { schema: 'weir', name: 'silent', connections: 1, statement_timeout_ms: 100, lock_timeout_ms: 100 }
    const database = new Database({ url, ...rest })
    await database.read([{ sql: 'SELECT 1', params: [] }])
    proxy.hold()
    await expect(database.read([{ sql: 'SELECT 1', params: [] }])).rejects.toBeInstanceOf(LedgerUnavailable)
    await proxy.close()
    await database.close()
  })

  it('a database that is away says so at once, and everything goes on when it is back', async () => {
    const server = await startPostgres({ fsync: true })
    const { ledger, records } = await openBooks(server)
    await postEvents(ledger, [charged(numbered('a', 1), null)])
    await server.stop()
    const asked = [
      () => postEvents(ledger, [charged(numbered('b', 2), null)]),
      () => ledger.transact(topUp('t')),
      () => ledger.balances(),
      () => ledger.usage({ periods: [{ from_ms: 0, to_ms: 1 }], by: [], limit: 1 }),
      () => ledger.events({ project: 'x', limit: 1 }),
      () => ledger.auditFacts(),
      () => ledger.withBucket(1, () => Promise.resolve(1)),
      () => ledger.inTurn('x', () => Promise.resolve(1)),
      () => ledger.upkeep(Date.now()),
      () => ledger.beginEpoch([1]),
      () => ledger.outbox(1),
      () => ledger.known([{ day: '2026-11-23', id: 'a', revision: 1 }]),
      () => records.tenants(),
      () => records.changesAfter(0, 1),
    ] as const
    for (const ask of asked) await expect(ask()).rejects.toBeInstanceOf(LedgerUnavailable)
    await server.start()
    for (const ask of asked) await ask()
    expect(await postEvents(ledger, [charged(numbered('b', 2), null)])).toEqual(['known'])
    await ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: 2, unposted: 0, stopped: false })
    expect(await wrongFactsOf(ledger)).toEqual({})
  })

  it('killed at any moment under load, by what posts until it is told so: every event is in the ledger once, and every number adds up', async () => {
    const random = seededRandom(faultSeed())
    const server = await startPostgres({ fsync: true })
    const { ledger, schema } = await openBooks(server)
    const other = (await openBooks(server, { schema })).ledger
    let seq = 0
    let away = 0
    const stop = new AbortController()
    /** Until it is in the ledger, whatever happens. */
    const persist = async <Result>(work: () => Promise<Result>): Promise<Result> => {
      for (;;) {
        try {
          return await work()
        } catch (error) {
          if (!(error instanceof LedgerUnavailable)) throw error
          away += 1
          await sleep(RETRY_MS)
        }
      }
    }
    const poster = async (by: SharedLedger, own: readonly string[]): Promise<void> => {
      while (!stop.signal.aborted) {
        const tenant = own[random.whole(0, own.length - 1)] ?? 'acme'
        const events: ChargedEvent[] = Array.from({ length: random.whole(1, 40) }, () => {
          seq += 1
          return charged(numbered(`e${seq}`, seq, { tenant, parts: [{ grant: `w-${tenant}`, unit: 'nano_cny', amount: 2n }] }), null)
        })
        const batch = { bucket: bucketOf(tenant), source: `s${seq}`, events }
        await persist(() => by.postBatches([batch]))
      }
    }
    const keeper = async (): Promise<void> => {
      for (let number = 0; !stop.signal.aborted; number += 1) {
        await persist(() => ledger.transact(topUp(`t${number}`)))
        await persist(() => ledger.upkeep(Date.now() + 2 * 86_400_000))
      }
    }
    const work = [poster(ledger, TENANTS.slice(0, 4)), poster(other, TENANTS.slice(2)), poster(other, TENANTS), keeper()]
    for (let round = 0; round < Math.max(2, Math.ceil(faultRounds() / 3)); round += 1) {
      await sleep(random.whole(50, 800))
      await server.kill()
      await sleep(random.whole(0, 200))
      await server.start()
    }
    await sleep(300)
    stop.abort()
    await Promise.all(work)
    await persist(() => ledger.beat({ node: 'n-1', roles: [], version: '1', last_seq: seq, unposted: 0, stopped: false }))
    while (await ledger.upkeep(Date.now() + 2 * 86_400_000));
    expect(await wrongFactsOf(ledger)).toEqual({})
    expect((await ledger.auditFacts()).events).toBe(seq)
    const outbox = await ledger.outbox(100_000)
    for (const rows of Map.groupBy(outbox, ({ tenant }) => tenant).values()) {
      expect(rows.map((row) => row.seq)).toEqual(rows.map((_, index) => index + 1))
    }
    const told = outbox.filter(({ tenant }) => tenant !== 'acme').reduce((sum, { delta }) => sum + delta, 0n)
    expect(told).toBe(-2n * BigInt(seq))
    expect(away).toBeGreaterThan(0)
    console.info(`${seq} events posted; ${away} calls found the database away`)
  })
})
