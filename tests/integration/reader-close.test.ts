import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { JournalUnavailable } from '../../src/storage/journal/errors.ts'
import { startReader } from '../../src/storage/journal/reader.ts'
import { tempDir } from '../support/temp.ts'

const READS = 200
/** Tenths of a second each: together they take far longer than a close may wait. */
const SLOW = 'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT COUNT(*) AS n FROM n'

it('a queue of slow reads does not hold the end of the process up: what is not read in time is refused', async () => {
  const path = join(tempDir(), 'some.db')
  new DatabaseSync(path).close()
  const reader = startReader(path)
  const reads = Array.from({ length: READS }, () => reader.read([{ sql: SLOW, params: [] }]))
  const ended = Promise.allSettled(reads)
  await reader.close()
  const refused = (await ended).flatMap((read) => (read.status === 'rejected' ? [read.reason as unknown] : []))
  expect(refused.length).toBeGreaterThan(0)
  for (const error of refused) expect(error).toBeInstanceOf(JournalUnavailable)
  await expect(reader.read([{ sql: SLOW, params: [] }])).rejects.toBeInstanceOf(JournalUnavailable)
}, 60_000)
