/** Archives every closed day of books in PostgreSQL, at a given time, and says so. Killed by its test at any moment. */
import { runArchive } from '../../src/control/archive.ts'
import { openPostgres } from '../../src/storage/postgres/open.ts'
import { testClock } from '../support/clock.ts'

const [url = '', directory = '', now_ms = '0'] = process.argv.slice(2)
const clock = testClock(Number(now_ms))
const { ledger, archiveIn, close } = await openPostgres({ url, clock })
process.stdout.write('begun\n')
await runArchive({ dry_run: false }, { archive: archiveIn(directory, 7), ledger, clock }, () => undefined)
process.stdout.write('ended\n')
await close()
