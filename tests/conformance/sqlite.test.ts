import { openTest, temporaryDirectory } from '../support/storage.ts'
import { ledgerConformance } from './ledger.ts'
import { recordsConformance } from './records.ts'
import { type StorageSubject, usageLogConformance } from './usage-log.ts'

async function make(): Promise<StorageSubject> {
  const directory = temporaryDirectory()
  let storage = await openTest(directory.path)
  return {
    storage,
    reopen: async () => {
      await storage.close()
      storage = await openTest(directory.path)
      return storage
    },
    end: async () => {
      await storage.close()
      directory.remove()
    },
  }
}

usageLogConformance('SQLite', make)
ledgerConformance('SQLite', make)
recordsConformance('SQLite', make)
