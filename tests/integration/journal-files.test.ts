import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { DataDirectoryInUse } from '../../src/storage/journal/lock.ts'
import { migrate, SchemaError } from '../../src/storage/sql/migrate.ts'
import { rebuildLimits } from '../../src/storage/memory/rebuild.ts'
import { spawnNode } from '../support/processes.ts'
import { ADMITTED_AT, testClock } from '../support/clock.ts'
import { closingEvent, openRow, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

describe('the data directory', () => {
  it('has one owner: a second is refused in words that help, also within one process', async () => {
    const data_dir = tempDir()
    const storage = await openTest(data_dir)
    const second = openTest(data_dir)
    await expect(second).rejects.toBeInstanceOf(DataDirectoryInUse)
    await expect(second).rejects.toThrow(/Stop that process.*WEIR_DATA_DIR/)
    await storage.log.close(closingEvent('a'))
    await storage.close()
    await (await openTest(data_dir)).close()
  })

  it('is free again after kill -9 of its owner', async () => {
    const data_dir = tempDir()
    const child = spawnNode('tests/integration/journal-child.ts', [data_dir, 'k'])
    await child.waitForOutput(/closed /, 30_000)
    await expect(openTest(data_dir)).rejects.toBeInstanceOf(DataDirectoryInUse)
    await child.stop('SIGKILL')
    await (await openTest(data_dir)).close()
  })

  it('refuses a database of a newer release and says so', async () => {
    const data_dir = tempDir()
    await (await openTest(data_dir)).close()
    edit(data_dir, "INSERT INTO migrations (number, checksum, at) VALUES (900, 'x', 0)")
    await expect(openTest(data_dir)).rejects.toThrow(/schema 900, which is newer/)
    await expect(openTest(data_dir)).rejects.toBeInstanceOf(SchemaError)
  })

  it('copies an older database before migrating it, and refuses an edited migration', () => {
    const directory = tempDir()
    const migrations = join(directory, 'migrations')
    mkdirSync(migrations)
    writeFileSync(join(migrations, '001_first.sql'), 'CREATE TABLE a (b)')
    const path = join(directory, 'weir.db')
    const database = new DatabaseSync(path)
    const url = pathToFileURL(`${migrations}/`)
    migrate(database, path, 1, url)
    expect(existsSync(`${path}.before-001`)).toBe(false)
    writeFileSync(join(migrations, '002_second.sql'), 'CREATE TABLE c (d)')
    migrate(database, path, 2, url)
    migrate(database, path, 3, url)
    const copy = new DatabaseSync(`${path}.before-002`)
    expect(copy.prepare("SELECT name FROM sqlite_master WHERE name IN ('a', 'c')").all()).toMatchObject([{ name: 'a' }])
    copy.close()
    writeFileSync(join(migrations, '001_first.sql'), 'CREATE TABLE a (b, x)')
    expect(() => migrate(database, path, 4, url)).toThrow(SchemaError)
    database.close()
  })

  it('deletes journal rows after their time, never open ones, and keeps numbering', async () => {
    const data_dir = tempDir()
    const clock = testClock()
    let storage = await openTest(data_dir, { clock, keep_days: 7 })
    await storage.log.close(closingEvent('old'))
    await storage.log.open(openRow('still-open'))
    await storage.log.open(openRow('later'))
    await storage.log.close(closingEvent('later'))
    await storage.close()
    clock.advance(8 * 86_400_000)
    storage = await openTest(data_dir, { clock, keep_days: 7 })
    expect(await storage.log.close(closingEvent('new'))).toBe(3)
    await waitForIds(data_dir, ['still-open', 'later', 'later', 'new'])
    expect((await storage.ledger.auditFacts()).unexplained_events).toEqual([])
    await storage.close()
    storage = await openTest(data_dir, { clock, keep_days: 7 })
    expect((await storage.log.unfinished()).map(({ open }) => open.hold.id)).toEqual(['still-open'])
    await storage.close()
  })
})

describe('the audit', () => {
  it.each([
    ['missing_events', "DELETE FROM events WHERE id = 'b'"],
    ['unexplained_events', "DELETE FROM journal WHERE id = 'b'"],
    ['differing_events', "UPDATE events SET body = replace(body, '\"stream\":true', '\"stream\":false') WHERE id = 'b'"],
    ['differing_events', "UPDATE events SET amount_nano = amount_nano + 1 WHERE id = 'b'"],
    ['unbalanced', "UPDATE ledger_entries SET amount = amount + 1 WHERE code = 'usage_revenue'"],
    ['wrong_sums', 'UPDATE ledger_entries SET amount = amount * 2'],
    ['wrong_sums', "UPDATE ledger_balances SET amount = amount + 1 WHERE code = 'wallet_liability'"],
  ] as const)('sees %s after: %s', async (fact, sql) => {
    const data_dir = tempDir()
    const storage = await openTest(data_dir)
    for (const id of ['a', 'b', 'c']) await storage.log.close(closingEvent(id))
    await storage.close()
    edit(data_dir, sql)
    const again = await openTest(data_dir)
    const facts = await again.ledger.auditFacts()
    await again.close()
    expect(facts[fact].length).toBeGreaterThan(0)
  })
})

describe('limits after a restart', () => {
  it('have the balances, budgets and blocks that records and ledger say', async () => {
    const clock = testClock(ADMITTED_AT + 1000)
    const storage = await openTest(tempDir(), { clock })
    const { records, ledger, limits, log } = storage
    await records.put({ kind: 'tenant', record: tenant('acme') })
    await records.put({ kind: 'grant', record: wallet() })
    const wallet_account = { code: 'wallet_liability', owner: 'acme', ref: 'wallet-acme', unit: 'nano_cny' } as const
    const cash = { code: 'cash_clearing', owner: 'acme', ref: '', unit: 'nano_cny' } as const
    const entries = [
      { account: cash, amount: 5000n },
      { account: wallet_account, amount: -5000n },
    ]
    await ledger.transact({ id: 't1', at: 1, kind: 'top_up', note: '', entries })
    const credit = { grant: 'credit', unit: 'nano_cny', amount: 70n } as const
    await log.close(closingEvent('a'))
    await log.close(closingEvent('b', { amount_nano: 70n, parts: [credit] }))
    await ledger.post()
    const seqs = await rebuildLimits(limits, records, ledger, { clock })
    const balance = await limits.balance('acme')
    expect(balance.available_nano).toBe(5000n - 1000n - 70n)
    expect(balance.grants).toMatchObject([{ id: 'wallet-acme', balance: 4000n }])
    expect(seqs.get('acme')).toBe(limits.appliedSeq('acme'))
    const rule = { scope: 'tenant', scope_id: 'acme', model: null, kind: 'budget', limit: 2000n, window: null } as const
    const request = { v: 1, id: 'h', tenant: 'acme', project: 'web', key: 'key-1', model: 'm', lease_ms: 1, tokens: 1 } as const
    const refused = await limits.hold({
      ...request,
      amount_nano: 931n,
      minimum_nano: 931n,
      grant_tokens: 1,
      minimum_tokens: 1,
      rules: [rule],
      credit_line_nano: 0n,
    })
    expect(refused).toMatchObject({ ok: false, refusal: { reason: 'budget', available: 930n } })
    await storage.close()
  })
})

function tenant(id: string) {
  return {
    id,
    name: id,
    audience: 'internal',
    status: 'active',
    locale: 'en',
    time_zone: 'Asia/Shanghai',
    zones: [],
    on_client_abort: 'cancel',
    on_limits_away: 'closed',
    priority: 'normal',
    queue_weight: 1,
    credit_line_nano: 0n,
    limits: [{ kind: 'budget', model: null, limit: '2000', window: null }],
    created_at: 1,
  } as const
}

function wallet() {
  return {
    id: 'wallet-acme',
    tenant: 'acme',
    kind: 'wallet',
    unit: 'nano_cny',
    amount: 0n,
    priority: 1,
    models: null,
    weights: null,
    expires_at: null,
    created_at: 1,
  } as const
}

function edit(data_dir: string, sql: string): void {
  const database = new DatabaseSync(join(data_dir, 'weir.db'))
  database.exec(sql)
  database.close()
}

/** Waits until the journal holds just these rows; deletion happens in a quiet moment. */
async function waitForIds(data_dir: string, ids: readonly string[]): Promise<void> {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
  const read = () =>
    database
      .prepare('SELECT id FROM journal ORDER BY seq')
      .all()
      .map((row) => String(row['id']))
  while (read().join() !== ids.join()) await new Promise((resolve) => setTimeout(resolve, 20))
  database.close()
}
