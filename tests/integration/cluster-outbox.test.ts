import { describe, expect, it } from 'vitest'
import { bucketOf } from '../../src/storage/cluster-ports.ts'
import { Outbox, OutboxCredits } from '../../src/storage/cluster/credits.ts'
import { plainTerms } from '../../src/storage/grants.ts'
import { expireGrants } from '../../src/worker/expire.ts'
import { testClock } from '../support/clock.ts'
import { noCluster } from '../support/cluster.ts'
import { giveGrant } from '../support/grants.ts'
import { startPostgres } from '../support/postgres.ts'
import { startRedis } from '../support/redis.ts'
import { limitsOn, linkTo, openBuckets } from '../support/redis-limits.ts'
import { openBooks } from '../support/shared-ledger.ts'

const LAST = 'zeta'
const STUCK = Array.from({ length: 200 }, (_, index) => `a${index}`).filter((tenant) => bucketOf(tenant) !== bucketOf(LAST))
const ROWS_OF_STUCK = 10

/** An outbox on servers of its own, in which only the bucket of {@link LAST} is open. */
async function outboxWithOneOpenBucket() {
  const [redis, postgres] = [await startRedis(), await startPostgres()]
  const limits = limitsOn(await linkTo(redis.url))
  await openBuckets(limits, [bucketOf(LAST)])
  const { ledger, records, schema } = await openBooks(postgres)
  const clock = testClock()
  const told = { limits, ledger, clock, on_trouble: (error: Error) => console.warn(error) }
  const outbox = new Outbox(told)
  /** Rounds until nothing is left that can be delivered. @returns what was told of */
  const deliverAll = async (): Promise<readonly unknown[]> => {
    const troubles: unknown[] = []
    for (let [more, rounds] = [true, 0]; more; rounds += 1) {
      expect(rounds).toBeLessThan(50)
      more = await outbox.deliver().catch((error: unknown) => {
        troubles.push(error)
        return true
      })
    }
    return troubles
  }
  const sql = (text: string) => postgres.sql(`SET search_path = ${schema}; ${text}`)
  return { limits, ledger, records, clock, told, outbox, deliverAll, sql }
}

describe.skipIf(noCluster !== null)('the outbox of a cluster', () => {
  it('tenants that cannot be told, however many rows wait for them, are not in the way of one that can', async () => {
    const { limits, ledger, clock, outbox, deliverAll, sql } = await outboxWithOneOpenBucket()
    const names = STUCK.map((tenant) => `('${tenant}')`).join(', ')
    await sql(
      "INSERT INTO outbox (tenant, seq, grant_id, unit, delta) SELECT tenant, seq, 'wallet', 'nano_cny', 1 " +
        `FROM (VALUES ${names}) AS t (tenant), generate_series(1, ${ROWS_OF_STUCK}) AS seq`,
    )
    await ledger.tell(plainTerms('wallet', LAST, 'nano_cny'), 7n)
    const troubles = await deliverAll()
    expect(troubles.length).toBeGreaterThan(0)
    expect(troubles).toEqual(troubles.map(() => expect.objectContaining({ name: 'LimitsUnavailable', kind: 'closed' })))
    expect((await limits.balance(LAST)).available_nano).toBe(7n)
    expect(await ledger.outbox(1, LAST)).toEqual([])

    // Buckets that took nothing are passed over, and asked again later.
    await ledger.tell(plainTerms('wallet', LAST, 'nano_cny'), 1n)
    expect(await deliverAll()).toEqual([])
    expect(outbox.waiting).toBe(STUCK.length * ROWS_OF_STUCK + 1)
    await openBuckets(limits, [...new Set(STUCK.map(bucketOf))])
    clock.advance(2000)
    expect(await deliverAll()).toEqual([])
    expect(await ledger.outboxWaiting(10)).toBe(0)
    expect((await limits.balance(STUCK[0] ?? '')).available_nano).toBe(BigInt(ROWS_OF_STUCK))
  })

  it('a tenant with many rows has the others go first now and then, and gets all of them', async () => {
    const { limits, ledger, outbox, deliverAll, sql } = await outboxWithOneOpenBucket()
    await openBuckets(limits, [bucketOf('acme')])
    await sql(
      "INSERT INTO outbox (tenant, seq, grant_id, unit, delta) SELECT 'acme', seq, 'wallet', 'nano_cny', 1 FROM generate_series(1, 100) AS seq",
    )
    await ledger.tell(plainTerms('wallet', LAST, 'nano_cny'), 7n)
    expect(await outbox.deliver()).toBe(true)
    expect((await limits.balance(LAST)).available_nano).toBe(7n)
    expect(await deliverAll()).toEqual([])
    expect((await limits.balance('acme')).available_nano).toBe(100n)
  })

  it('all that waits for one tenant is brought at once, up to where limits lack a number', async () => {
    const { limits, ledger, outbox, sql } = await outboxWithOneOpenBucket()
    await sql(
      `INSERT INTO outbox (tenant, seq, grant_id, unit, delta) SELECT '${LAST}', seq, 'wallet', 'nano_cny', 1 ` +
        'FROM generate_series(1, 1200) AS seq WHERE seq <> 600',
    )
    await outbox.deliverTo(LAST)
    expect((await limits.balance(LAST)).available_nano).toBe(599n)
    expect(await ledger.outboxWaiting(1000)).toBe(600)
  })

  it('the rest of a grant lapses once, also while limits have not been told of it', async () => {
    const { limits, ledger, records, clock, told, outbox } = await outboxWithOneOpenBucket()
    const credits = new OutboxCredits(told, outbox)
    const storage = { records, ledger, credits }
    await giveGrant({ storage }, LAST, 'pack', {
      amount: 10n,
      unit: 'nano_cny',
      expires_at: clock.now_ms() + 1,
      created_at: clock.now_ms(),
    })
    expect((await limits.balance(LAST)).grants).toMatchObject([{ id: 'pack', balance: 10n }])
    clock.advance(2)
    const expire = () =>
      expireGrants(0, {
        records,
        ledger,
        limits,
        owes: (tenant) => credits.owes(tenant),
        clock,
        turns: { run: (name, work) => ledger.inTurn(name, work) },
        apply: (transaction) => ledger.transact(transaction),
        on_trouble: (error) => {
          throw error
        },
      })
    expect([await expire(), await expire()]).toEqual([1, 0])
    await outbox.deliverTo(LAST)
    expect([await expire(), (await limits.balance(LAST)).grants]).toMatchObject([0, [{ id: 'pack', balance: 0n }]])
  })
})
