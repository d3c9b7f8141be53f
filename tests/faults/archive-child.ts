/** Archives every closed day of a data directory, at a given time, and says so. Killed by its test at any moment. */
import { runArchive } from '../../src/control/archive.ts'
import { testClock } from '../support/clock.ts'
import { openTest } from '../support/storage.ts'

const [data_dir = '', now_ms = '0'] = process.argv.slice(2)
const clock = testClock(Number(now_ms))
const storage = await openTest(data_dir, { clock })
process.stdout.write('begun\n')
await runArchive({ dry_run: false }, { archive: storage.archive, ledger: storage.ledger, clock }, () => undefined)
process.stdout.write('ended\n')
await storage.close()
