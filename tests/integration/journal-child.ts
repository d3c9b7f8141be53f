/** A process that opens, checkpoints and closes requests until it is killed, and prints each id once its close resolved. */
import { openTest, closingEvent, openRow } from '../support/storage.ts'

const LANES = 8
const [data_dir = '', prefix = '', most = '1000000'] = process.argv.slice(2)

const storage = await openTest(data_dir)
process.stdout.write('ready\n')

async function lane(number: number): Promise<void> {
  for (let index = 0; index < Number(most); index += 1) {
    const id = `${prefix}-${number}-${index}`
    await storage.log.open(openRow(id))
    process.stdout.write(`opened ${id}\n`)
    storage.log.checkpoint([
      {
        v: 1,
        id,
        at: 1,
        endpoint: 'x',
        tokens: { input: 1, cached_input: 0, cache_write: 0, output: 1, reasoning: 0 },
        ttfe_ms: null,
        attempts: [],
      },
    ])
    await storage.log.close(closingEvent(id))
    process.stdout.write(`closed ${id}\n`)
  }
}

const results = await Promise.allSettled(Array.from({ length: LANES }, (_, number) => lane(number)))
for (const result of results) {
  if (result.status === 'rejected') process.stdout.write(`rejected ${String(result.reason)} healthy=${storage.log.health().ok}\n`)
}
const closed = await storage.close().then(
  () => 'closed cleanly',
  (error: unknown) => `closed with ${String(error)}`,
)
process.stdout.write(`end ${closed}\n`)
