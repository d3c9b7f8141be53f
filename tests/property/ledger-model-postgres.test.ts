import { describe } from 'vitest'
import { noPostgres, startPostgres } from '../support/postgres.ts'
import { openPostgresStorage } from '../support/postgres-storage.ts'
import { temporaryDirectory } from '../support/storage.ts'
import { ledgerModel, type LedgerSubject } from './ledger-model.ts'

async function open(): Promise<LedgerSubject> {
  const directory = temporaryDirectory()
  const storage = await openPostgresStorage(await startPostgres(), { data_dir: directory.path, schema: 'model' })
  return {
    storage,
    end: async () => {
      await storage.close()
      directory.remove()
    },
  }
}

describe.skipIf(noPostgres !== null)('with a server', () => {
  ledgerModel('PostgreSQL', open, 40)
})
