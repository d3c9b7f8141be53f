import { beforeAll, describe } from 'vitest'
import { noPostgres, type PostgresServer, startPostgres } from '../support/postgres.ts'
import { openPostgresStorage } from '../support/postgres-storage.ts'
import { temporaryDirectory } from '../support/storage.ts'
import { ledgerConformance } from './ledger.ts'
import { recordsConformance } from './records.ts'
import type { StorageSubject } from './usage-log.ts'

describe.skipIf(noPostgres !== null)('PostgreSQL', () => {
  let server: PostgresServer
  let schemas = 0
  beforeAll(async () => {
    server = await startPostgres()
  })

  async function make(): Promise<StorageSubject> {
    const directory = temporaryDirectory()
    schemas += 1
    const options = { data_dir: directory.path, schema: `test_${schemas}` }
    let storage = await openPostgresStorage(server, options)
    return {
      storage,
      reopen: async () => {
        await storage.close()
        storage = await openPostgresStorage(server, options)
        return storage
      },
      end: async () => {
        await storage.close()
        directory.remove()
      },
    }
  }

  ledgerConformance('PostgreSQL', make)
  recordsConformance('PostgreSQL', make)
})
