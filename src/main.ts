import { systemClock } from './base/clock.ts'
import { formatIssues } from './config/check.ts'
import { configDirectory, readEnvironment } from './config/load.ts'
import { createLogger } from './observe/log.ts'
import { ConfigurationRefused, startWeir, type Weir } from './weir.ts'
import { banner, explainStartFailure } from './banner.ts'

/** Reads the environment, starts the gateway, says where it is, and drains on a signal; nothing else. */
async function main(): Promise<void> {
  const env = readEnvironment()
  const logger = createLogger({ level: 'info' })
  try {
    const weir = await startWeir({ config_dir: configDirectory(env), env, clock: systemClock(), logger })
    process.stdout.write(banner(weir))
    listenForSignals(weir)
  } catch (error) {
    process.stderr.write(error instanceof ConfigurationRefused ? `${formatIssues(error.issues)}\n` : `${explainStartFailure(error)}\n`)
    process.exitCode = 1
  }
}

function listenForSignals(weir: Weir): void {
  let asked = false
  const drain = (): void => {
    if (asked) process.exit(130)
    asked = true
    void weir.drain().then(() => process.exit(0))
  }
  process.on('SIGTERM', drain)
  process.on('SIGINT', drain)
  process.on('SIGHUP', () => void weir.reload())
  // Started by bin/run.mjs: when that is killed without a chance to say so, its channel closes.
  process.on('disconnect', drain)
}

await main()
