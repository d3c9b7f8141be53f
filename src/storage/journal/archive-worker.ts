/** The archiver's thread: reads a day page by page, compresses, reads files back. Neither traffic nor commits wait for it. Started by `archiver.ts`. */
import { DatabaseSync } from 'node:sqlite'
import { isDeepStrictEqual } from 'node:util'
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { assert } from '../../base/assert.ts'
import { type ArchiveFacts, readArchiveFile, writeArchiveFile } from '../sql/archive-file.ts'
import type { ArchiveTask, FromArchiver } from './protocol.ts'

const PAGE_EVENTS = 500
/** Progress is told this often. */
const TELL_EVERY_LINES = 10_000

async function run(task: ArchiveTask, port: MessagePort): Promise<ArchiveFacts> {
  let told = 0
  const tell = (lines: number): void => {
    if (lines - told < TELL_EVERY_LINES) return
    told = lines
    port.postMessage({ kind: 'lines', lines } satisfies FromArchiver)
  }
  const { directory, file } = task
  if (task.what === 'read') return await readArchiveFile(directory, file, tell)
  const database = new DatabaseSync(task.path, { readOnly: true, timeout: 5000 })
  try {
    const written = await writeArchiveFile(directory, file, pagesOf(database, task.day), tell)
    // Rows are deleted on the word of this file: what the disk gives back must be what was meant.
    const read = await readArchiveFile(directory, file, () => undefined)
    if (!isDeepStrictEqual(read, written)) throw new Error(`${file} is not what was written`)
    return written
  } finally {
    database.close()
  }
}

/** A day's events in order. Each page is a read of its own: a long one would keep the write-ahead log from being reused. */
function* pagesOf(database: DatabaseSync, day: string): Generator<readonly string[]> {
  const page = database.prepare(
    'SELECT id, revision, body FROM events WHERE day = ? AND (id, revision) > (?, ?) ORDER BY id, revision LIMIT ?',
  )
  let after: readonly [string, number] = ['', 0]
  for (;;) {
    const rows = page.all(day, ...after, PAGE_EVENTS)
    const last = rows.at(-1)
    if (last === undefined) return
    yield rows.map((row) => String(row['body']))
    after = [String(last['id']), Number(last['revision'])]
  }
}

function main(): void {
  assert(parentPort !== null, 'the archiver is started as a thread')
  const port = parentPort
  const tell = (message: FromArchiver): void => port.postMessage(message)
  run(workerData as ArchiveTask, port).then(
    (facts) => tell({ kind: 'done', facts }),
    (error: unknown) => tell({ kind: 'failed', message: error instanceof Error ? error.message : String(error) }),
  )
}

main()
