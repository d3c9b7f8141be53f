import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { wrongFacts } from '../support/archive.ts'
import { ADMITTED_AT, testClock } from '../support/clock.ts'
import { openControl } from '../support/control.ts'
import { PLANTED, serveAgreeing } from '../support/planted.ts'
import { openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'

const DAY_MS = 86_400_000
function edit(data_dir: string, sql: string): void {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000, enableForeignKeyConstraints: false })
  database.exec(sql)
  database.close()
}

/** Events, top-ups and a grant of a day that is long over, whose books agree. */
async function agreeing(): Promise<string> {
  const [data_dir, clock] = [tempDir(), testClock(ADMITTED_AT + 3 * DAY_MS)]
  const storage = await openTest(data_dir, { clock })
  await serveAgreeing(storage)
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
  while (database.prepare('SELECT 1 FROM usage_stale').get() !== undefined) await new Promise((resolve) => setTimeout(resolve, 20))
  database.close()
  expect(await wrongFacts(storage)).toEqual({})
  await storage.close()
  return data_dir
}

it.each(PLANTED)('the audit sees, after a restart too, %s: %s', async (fact, sql) => {
  const data_dir = await agreeing()
  edit(data_dir, sql)
  const storage = await openTest(data_dir, { clock: testClock(ADMITTED_AT + 3 * DAY_MS) })
  const wrong = await wrongFacts(storage)
  await storage.close()
  expect(Object.keys(wrong)).toContain(fact)
})

it('transactions of a release that did not number them are numbered and sealed at the first start', async () => {
  const data_dir = await agreeing()
  const read = (): unknown => {
    const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true })
    const rows = database.prepare('SELECT * FROM ledger_transactions ORDER BY rowid').all()
    database.close()
    return rows
  }
  const before = read()
  edit(data_dir, "UPDATE ledger_transactions SET number = NULL, digest = NULL; DELETE FROM meta WHERE name = 'ledger_number'")
  await (await openTest(data_dir)).close()
  expect(read()).toEqual(before)
})

it('an audit is a job, beside a rebuild too, and says which archived days it looked at', async () => {
  const control = await openControl(tempDir())
  const started = await Promise.all(['rebuild', 'audits', 'audits'].map((path) => control.call('POST', `/admin/v1/${path}`, {})))
  expect(started.map(({ status }) => status)).toEqual([202, 202, 409])
  const id = Number(started[1]?.body['id'])
  const look = async (): Promise<Record<string, unknown>> => (await control.call('GET', `/admin/v1/jobs/${id}`)).body
  while ((await look())['state'] === 'running') await new Promise((resolve) => setTimeout(resolve, 20))
  expect(await look()).toMatchObject({
    kind: 'audit',
    state: 'done',
    progress: { of: 4 },
    result: { object: 'audit', ok: true, checked: { archives: 0 }, findings: [] },
  })
})
