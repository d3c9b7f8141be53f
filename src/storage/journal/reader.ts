import { Worker } from 'node:worker_threads'
import type { SqlRow, SqlStatement } from '../sql/executor.ts'
import { JournalUnavailable } from './errors.ts'
import type { FromReader, ToReader } from './protocol.ts'

/** Most reads waiting at once; more are refused. */
const MAX_WAITING = 1000
/** What waits to be read when the database is closed has this long; the rest is refused. */
const CLOSE_MS = 2000

/** Read-only access to the database, in a thread of its own. */
export interface DatabaseReader {
  /** Runs statements in one read transaction. @throws JournalUnavailable if too many wait or the thread has ended */
  read(statements: readonly SqlStatement[]): Promise<readonly (readonly SqlRow[])[]>
  close(): Promise<void>
}

interface Waiter {
  resolve(rows: readonly (readonly SqlRow[])[]): void
  reject(error: Error): void
}

/** Starts the reader's thread on a database that the writer has opened. */
export function startReader(path: string): DatabaseReader {
  const worker = new Worker(new URL('./reader-worker.ts', import.meta.url), { workerData: { path }, execArgv: [] })
  const waiting = new Map<number, Waiter>()
  let next_id = 1
  let ended: Error | null = null

  const end = (error: Error): void => {
    ended ??= error
    for (const waiter of waiting.values()) waiter.reject(ended)
    waiting.clear()
  }
  worker.on('message', (answer: FromReader) => {
    const waiter = waiting.get(answer.id)
    waiting.delete(answer.id)
    if ('rows' in answer) waiter?.resolve(answer.rows)
    else waiter?.reject(new Error(`a query failed: ${answer.message}`))
  })
  worker.on('error', (cause) => end(new JournalUnavailable('crashed', 'the reader of the database failed', cause)))
  const exited = new Promise<void>((resolve) => {
    worker.on('exit', () => {
      end(new JournalUnavailable('closed', 'the database is closed'))
      resolve()
    })
  })
  return {
    read: (statements) =>
      new Promise((resolve, reject) => {
        if (ended !== null) return reject(ended)
        if (waiting.size >= MAX_WAITING) return reject(new JournalUnavailable('overloaded', `${MAX_WAITING} queries are waiting`))
        const id = next_id
        next_id += 1
        waiting.set(id, { resolve, reject })
        worker.postMessage({ id, statements } satisfies ToReader)
      }),
    close: async () => {
      if (ended === null) worker.postMessage('close')
      const timer = setTimeout(() => void worker.terminate(), CLOSE_MS)
      await exited
      clearTimeout(timer)
    },
  }
}

/** A reader whose thread starts with its first question. */
export function lazyReader(path: string): DatabaseReader {
  let started: DatabaseReader | null = null
  let closed = false
  return {
    read: (statements) => {
      if (closed) return Promise.reject(new JournalUnavailable('closed', 'the database is closed'))
      started ??= startReader(path)
      return started.read(statements)
    },
    close: async () => {
      closed = true
      await started?.close()
    },
  }
}
