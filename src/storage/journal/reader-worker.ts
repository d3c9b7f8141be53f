/** The reader's thread: long reports run here and never delay the journal. Started by `reader.ts`. */
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../../base/assert.ts'
import type { SqlRow, SqlStatement } from '../sql/executor.ts'
import type { FromReader, ToReader } from './protocol.ts'

const MAX_PREPARED = 200

class Reader {
  readonly #database: DatabaseSync
  readonly #prepared = new Map<string, StatementSync>()

  constructor(path: string) {
    this.#database = new DatabaseSync(path, { readOnly: true, timeout: 5000 })
  }

  /** One read transaction: every statement sees the same state. */
  read(statements: readonly SqlStatement[]): readonly (readonly SqlRow[])[] {
    if (statements.length > 1) this.#database.exec('BEGIN')
    try {
      return statements.map(({ sql, params }) =>
        this.#prepare(sql)
          .all(...params)
          .map((row) => ({ ...row }) as SqlRow),
      )
    } finally {
      if (this.#database.isTransaction) this.#database.exec('COMMIT')
    }
  }

  close(): void {
    this.#database.close()
  }

  #prepare(sql: string): StatementSync {
    const known = this.#prepared.get(sql)
    if (known !== undefined) return known
    const statement = this.#database.prepare(sql)
    statement.setReadBigInts(true)
    if (this.#prepared.size >= MAX_PREPARED) this.#prepared.clear()
    this.#prepared.set(sql, statement)
    return statement
  }
}

function main(): void {
  assert(parentPort !== null, 'the reader is started as a thread')
  const port = parentPort
  const reader = new Reader((workerData as { path: string }).path)
  port.on('message', (message: ToReader | 'close') => {
    if (message === 'close') {
      reader.close()
      port.close()
      return
    }
    let answer: FromReader
    try {
      answer = { id: message.id, rows: reader.read(message.statements) }
    } catch (error) {
      answer = { id: message.id, message: error instanceof Error ? error.message : String(error) }
    }
    port.postMessage(answer)
  })
}

main()
