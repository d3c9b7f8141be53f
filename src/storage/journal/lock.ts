import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

/** Another process owns the data directory. */
export class DataDirectoryInUse extends Error {
  override name = 'DataDirectoryInUse'
  readonly data_dir: string
  constructor(data_dir: string) {
    super(
      `the data directory ${data_dir} is in use by another weir process. Stop that process, send the command to the running ` +
        'server, or set WEIR_DATA_DIR to another directory.',
    )
    this.data_dir = data_dir
  }
}

/** Held until closed; the operating system frees it when the process dies, however it dies. */
export interface DirectoryLock {
  close(): void
}

/**
 * Takes exclusive ownership of a data directory: an exclusive transaction on `weir.lock`, a file of its own, so that readers
 * of the database never meet it.
 * @throws DataDirectoryInUse if someone has it
 */
export function lockDirectory(data_dir: string): DirectoryLock {
  const lock = new DatabaseSync(join(data_dir, 'weir.lock'), { timeout: 0 })
  try {
    lock.exec('PRAGMA journal_mode = DELETE')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (isBusy(error)) throw new DataDirectoryInUse(data_dir)
    throw error
  }
  return { close: () => lock.close() }
}

const SQLITE_BUSY = 5

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' && (error.errcode & 0xff) === SQLITE_BUSY
}
