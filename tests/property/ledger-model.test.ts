import { openTest, temporaryDirectory } from '../support/storage.ts'
import { ledgerModel, type LedgerSubject } from './ledger-model.ts'

async function open(): Promise<LedgerSubject> {
  const directory = temporaryDirectory()
  const storage = await openTest(directory.path)
  return {
    storage,
    end: async () => {
      await storage.close()
      directory.remove()
    },
  }
}

ledgerModel('SQLite', open, 60)
