/** The archiver's thread: reads a day page by page on a connection of its own, compresses, reads files back. Started by `archive.ts`. */
import { isDeepStrictEqual } from 'node:util'
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { assert } from '../../base/assert.ts'
import type { FromArchiver } from '../journal/protocol.ts'
import { type ArchiveFacts, readArchiveFile, writeArchiveFile } from '../sql/archive-file.ts'
import { numberOf, textOf } from '../sql/executor.ts'
import { Database, type DatabaseOptions } from './database.ts'

/** What the thread is started with. */
export type PostgresArchiveTask =
  | { readonly what: 'write'; readonly database: DatabaseOptions; readonly day: string; readonly directory: string; readonly file: string }
  | { readonly what: 'read'; readonly directory: string; readonly file: string }

const PAGE_EVENTS = 1000
/** Progress is told this often. */
const TELL_EVERY_LINES = 10_000

async function run(task: PostgresArchiveTask, port: MessagePort): Promise<ArchiveFacts> {
  let told = 0
  const tell = (lines: number): void => {
    if (lines - told < TELL_EVERY_LINES) return
    told = lines
    port.postMessage({ kind: 'lines', lines } satisfies FromArchiver)
  }
  const { directory, file } = task
  if (task.what === 'read') return await readArchiveFile(directory, file, tell)
  const database = new Database(task.database)
  try {
    const written = await writeArchiveFile(directory, file, pagesOf(database, task.day), tell)
    // Rows are deleted on the word of this file: what the disk gives back must be what was meant.
    const read = await readArchiveFile(directory, file, () => undefined)
    if (!isDeepStrictEqual(read, written)) throw new Error(`${file} is not what was written`)
    return written
  } finally {
    await database.close()
  }
}

const PAGE = `SELECT id, revision, body FROM events WHERE day = ? AND (id, revision) > (?, ?) ORDER BY id, revision LIMIT ${PAGE_EVENTS}`

/** A day's events in order. What comes or goes between two pages is noticed when the day is closed. */
async function* pagesOf(database: Database, day: string): AsyncGenerator<readonly string[]> {
  let after: readonly [string, number] = ['', 0]
  for (;;) {
    const [rows = []] = await database.read([{ sql: PAGE, params: [day, ...after] }])
    const last = rows.at(-1)
    if (last === undefined) return
    yield rows.map((row) => textOf(row, 'body'))
    after = [textOf(last, 'id'), numberOf(last, 'revision')]
  }
}

function main(): void {
  assert(parentPort !== null, 'the archiver is started as a thread')
  const port = parentPort
  const tell = (message: FromArchiver): void => port.postMessage(message)
  run(workerData as PostgresArchiveTask, port).then(
    (facts) => tell({ kind: 'done', facts }),
    (error: unknown) => tell({ kind: 'failed', message: error instanceof Error ? error.message : String(error) }),
  )
}

main()
