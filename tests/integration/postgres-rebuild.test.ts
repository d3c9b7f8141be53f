import { beforeAll, describe, expect, it } from 'vitest'
import type { RebuildChange } from '../../src/storage/books.ts'
import { bucketOf } from '../../src/storage/cluster-ports.ts'
import type { LimitRule } from '../../src/storage/ports.ts'
import { wrongFacts } from '../support/archive.ts'
import { atEnd } from '../support/cleanup.ts'
import { ADMITTED_AT, testClock } from '../support/clock.ts'
import { PLANTED, serveAgreeing } from '../support/planted.ts'
import { noPostgres, type PostgresServer, startPostgres } from '../support/postgres.ts'
import { openPostgresStorage, type PostgresStorage } from '../support/postgres-storage.ts'
import { closingEvent } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const DAY_MS = 86_400_000
const ignore = (): void => undefined

interface Subject {
  readonly storage: PostgresStorage
  sql(text: string): Promise<readonly Record<string, unknown>[]>
}

describe.skipIf(noPostgres !== null)('PostgreSQL', () => {
  let server: PostgresServer
  let schemas = 0
  beforeAll(async () => {
    server = await startPostgres()
  })

  /** Events, top-ups and a grant of a day that is long over, whose books agree. */
  async function agreeing(): Promise<Subject> {
    schemas += 1
    const [schema, clock] = [`rebuild_${schemas}`, testClock(ADMITTED_AT + 3 * DAY_MS)]
    const storage = await openPostgresStorage(server, { data_dir: tempDir(), schema, clock })
    atEnd(() => storage.close())
    await serveAgreeing(storage)
    while (await storage.ledger.upkeep(clock.now_ms()));
    expect(await wrongFacts(storage)).toEqual({})
    return { storage, sql: (text) => server.sql(`SET search_path = ${schema}; ${text}`) }
  }

  async function run({ storage: { rebuilder } }: Subject, check: boolean): Promise<readonly RebuildChange[]> {
    const sound = (): Promise<boolean> => Promise.resolve(true)
    return [
      ...(await rebuilder.events(check)),
      ...(await rebuilder.entries(check, sound)),
      ...(await rebuilder.balances(check)),
      ...(await rebuilder.rollups(check, ignore)),
    ]
  }

  it.each(PLANTED)('the audit sees %s: %s', async (fact, text) => {
    const { storage, sql } = await agreeing()
    await sql(text)
    expect(Object.keys(await wrongFacts(storage))).toContain(fact)
  })

  it.each([
    ['an event with another amount', "UPDATE events SET amount_nano = amount_nano + 1 WHERE id = 'b'", 'row of an event'],
    ...['tenant', 'project', 'key', 'model', 'endpoint', 'provider', 'status', 'usage_source', 'end_user', 'node'].map(
      (column) => [`an event with another ${column}`, `UPDATE events SET ${column} = 'zz' WHERE id = 'b'`, 'row of an event'] as const,
    ),
    ...['admitted_at', 'input', 'cached_input', 'cache_write', 'output', 'reasoning', 'cost_nano', 'overrun_nano', 'seq'].map(
      (column) =>
        [`an event with more ${column}`, `UPDATE events SET ${column} = ${column} + 7 WHERE id = 'b'`, 'row of an event'] as const,
    ),
    [
      'an event on another day',
      "CREATE TABLE events_2020_01_01 PARTITION OF events FOR VALUES IN ('2020-01-01'); UPDATE events SET day = '2020-01-01' WHERE id = 'b'",
      'row of an event',
    ],
    ['an event in the place of another', "UPDATE events SET id = 'c', revision = 2 WHERE id = 'b'", 'row of an event'],
    ['an event that nothing superseded', "UPDATE events SET superseded = 1 WHERE id = 'b'", 'row of an event'],
    [
      'usage that was taken out of the ledger with its balances',
      'UPDATE ledger_balances AS b SET amount = amount - COALESCE((SELECT SUM(amount) FROM ledger_entries AS l WHERE l.code = b.code AND ' +
        "l.owner = b.owner AND l.ref = b.ref AND l.unit = b.unit AND l.transaction_id LIKE 'usage-%'), 0); " +
        "DELETE FROM ledger_entries WHERE transaction_id LIKE 'usage-%'; DELETE FROM ledger_transactions WHERE kind = 'usage'",
      'entries of usage',
    ],
    ['usage without its transaction', "DELETE FROM ledger_transactions WHERE kind = 'usage'", 'usage transaction'],
    ['usage out of balance', "UPDATE ledger_entries SET amount = amount + 1 WHERE code = 'usage_revenue'", 'usage transaction'],
    ['revenue of another tenant', "UPDATE ledger_entries SET owner = 'zz' WHERE code = 'usage_revenue'", 'entries of usage'],
    ['a running balance', "UPDATE ledger_balances SET amount = amount + 5 WHERE code = 'usage_revenue'", 'running balance'],
    ['a lost running balance of a supplier', "DELETE FROM ledger_balances WHERE code = 'supplier_cost'", 'running balance'],
    ['a minute', "UPDATE usage_minutes SET input = input + 1 WHERE dimension = ''", 'usage by minute'],
    ['a minute of an end user', "DELETE FROM usage_minutes WHERE dimension = 'end_user'", 'usage by minute'],
    ['a minute nobody used', 'UPDATE usage_minutes SET at = at - 60000', 'usage by minute'],
    ['an hour', "UPDATE usage_hours SET images = images + 1 WHERE dimension = 'tag:team'", 'usage by hour'],
    ['a day', "DELETE FROM usage_days WHERE dimension = 'end_user'", 'usage by day'],
  ] as readonly (readonly [string, string, string])[])(
    '%s is told by the check, which changes nothing, put right by the rebuild, and then there is nothing more to do',
    async (...[, sabotage, what]) => {
      const subject = await agreeing()
      await subject.sql(sabotage)
      const seen = await run(subject, true)
      expect(seen.map((change) => change.what)).toContain(what)
      expect(await run(subject, true)).toEqual(seen)
      expect((await run(subject, false)).map((change) => change.what)).toContain(what)
      expect(await run(subject, true)).toEqual([])
      expect(await wrongFacts(subject.storage)).toEqual({})
      expect(await subject.storage.rebuilder.lost()).toEqual([])
    },
  )

  it('where an event is lost, what was posted of it stays, and the loss is named', async () => {
    const { storage, sql } = await agreeing()
    const before = await storage.ledger.balances()
    await sql("DELETE FROM events WHERE id = 'b'")
    expect(await run({ storage, sql }, false)).toEqual([])
    expect(await storage.ledger.balances()).toEqual(before)
    expect((await storage.rebuilder.lost()).map(({ what }) => what)).toEqual(['event number', 'entries of usage that differ from events'])
    // Whoever has it posts it again, as new; what was there of it already is found.
    const [row] = (await storage.journal.ask<'events_after'>({ what: 'events_after', row: 1, limit: 1 })).map(({ body }) => ({
      body,
      charged: null,
    }))
    if (row === undefined) throw new Error('the journal has no second event')
    expect(await storage.ledger.postBatches([{ bucket: bucketOf('acme'), source: 'again', events: [row] }])).toMatchObject([
      { states: ['posted'] },
    ])
    expect((await run({ storage, sql }, false)).length).toBeGreaterThan(0)
    expect(await storage.ledger.balances()).toEqual(before)
    expect(await wrongFacts(storage)).toEqual({})
  })

  it('where a top-up has lost its entries, the balances that it left stay, and it is named', async () => {
    const { storage, sql } = await agreeing()
    const before = await storage.ledger.balances()
    await sql("DELETE FROM ledger_entries WHERE transaction_id = 'credit-b'")
    expect(await run({ storage, sql }, false)).toEqual([])
    expect(await storage.ledger.balances()).toEqual(before)
    expect((await storage.rebuilder.lost()).map(({ what }) => what)).toEqual(['transaction', 'running balances that differ from entries'])
  })

  it('what was used of limits is what events up to a mark say, those of archived days by their sums', async () => {
    const { storage, sql } = await agreeing()
    await storage.log.close(
      closingEvent('d', { key: 'key-2', model: 'm2', tokens: { input: 5, cached_input: 0, cache_write: 0, output: 1, reasoning: 0 } }),
    )
    await storage.ledger.post()
    const rule = (of: Partial<LimitRule>): LimitRule => ({
      scope: 'tenant',
      scope_id: 'acme',
      model: null,
      kind: 'budget',
      limit: 1n,
      window: null,
      ...of,
    })
    const use = (of: Partial<LimitRule>) => ({ tenant: 'acme', rule: rule(of), from_ms: 0, to_ms: Infinity })
    const uses = [use({}), use({ kind: 'requests_window', scope: 'key', scope_id: 'key-2' }), use({ kind: 'tokens_window', model: 'm2' })]
    const mark = { node: storage.node, event_seq: 4, row_seq: 99 }
    expect(await storage.rebuilder.usedAt(mark, uses)).toEqual([4000n, 1n, 6n])
    expect(await storage.rebuilder.usedAt({ ...mark, event_seq: 3 }, uses)).toEqual([3000n, 0n, 0n])
    await sql("INSERT INTO archives VALUES (1, '2026-11-23', 'closed', 'f', 0, 0, 0, 0, 'd', '', 'c', 0, NULL)")
    expect(await storage.rebuilder.usedAt({ ...mark, event_seq: 3 }, uses)).toEqual([4000n, 1n, 6n])
  })

  it('minutes may be corrected while they are posted to: nothing is counted twice', async () => {
    const { storage, sql } = await agreeing()
    await sql("UPDATE usage_minutes SET input = input + 1, output = output - 1 WHERE dimension = ''")
    const post = async (): Promise<void> => {
      for (let number = 0; number < 40; number += 1) {
        await storage.log.close(closingEvent(`more-${number}`, { end_user: 'u', tags: { team: 'x' } }))
        await storage.ledger.post()
      }
    }
    const rebuild = async (): Promise<void> => {
      for (let time = 0; time < 8; time += 1) await run({ storage, sql }, false)
    }
    await Promise.all([post(), rebuild()])
    await run({ storage, sql }, false)
    expect(await run({ storage, sql }, true)).toEqual([])
    expect(await wrongFacts(storage)).toEqual({})
  })
})
