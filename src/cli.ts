import { systemClock } from './base/clock.ts'
import { run } from './cli/run.ts'
import { readEnvironment } from './config/load.ts'
import { createLogger } from './observe/log.ts'
import { readVersion } from './version.ts'

/** The `weir` command: reads the command line and answers with an exit code; nothing else. */
async function main(): Promise<void> {
  // Whoever reads the output may have seen enough of it: `weir check | head`.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(0)
  })
  const context = {
    env: readEnvironment(),
    clock: systemClock(),
    out: (text: string): void => void process.stdout.write(text),
    err: (text: string): void => void process.stderr.write(text),
  }
  const code = await run(process.argv.slice(2), context, {
    version: readVersion(),
    serve: async () => void (await import('./main.ts')),
    moveBooks: async (options) => {
      const { moveToCluster } = await import('./start/move.ts')
      return await moveToCluster({
        ...options,
        clock: context.clock,
        logger: createLogger({ level: 'warn', destination: { write: context.err } }),
      })
    },
  })
  // A gateway that failed to start has said so already.
  if (code !== 0) process.exitCode = code
}

await main()
