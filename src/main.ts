import { systemClock } from './base/clock.ts'
import { formatIssues } from './config/check.ts'
import { configDirectory, readEnvironment } from './config/load.ts'
import { createLogger, type Logger } from './observe/log.ts'
import { ConfigurationRefused, startWeir, type Weir } from './weir.ts'
import { banner, explainStartFailure } from './banner.ts'

/** Reads the environment, starts the gateway, says where it is, and drains on a signal; nothing else. */
async function main(): Promise<void> {
  const env = readEnvironment()
  const logger = createLogger({ level: 'info' })
  try {
    const weir = await startWeir({ config_dir: configDirectory(env), env, clock: systemClock(), logger })
    logger.setLevel(weir.configuration.settings.log.level)
    // Before the banner: whoever reads it may send a signal at once.
    listenForSignals(weir, logger)
    process.stdout.write(banner(weir))
  } catch (error) {
    process.stderr.write(error instanceof ConfigurationRefused ? `${formatIssues(error.issues)}\n` : `${explainStartFailure(error)}\n`)
    process.exit(1)
  }
}

function listenForSignals(weir: Weir, logger: Logger): void {
  let asked = false
  const drain = (): void => {
    weir.drain().then(
      () => process.exit(0),
      (error: unknown) => {
        logger.error({ err: error }, 'draining failed')
        process.exit(1)
      },
    )
  }
  const onSignal = (): void => {
    // Whoever asks twice does not want to wait.
    if (asked) process.exit(130)
    asked = true
    drain()
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  process.on('SIGHUP', () => void weir.reload())
  // Started by bin/run.mjs: when that is killed without a chance to say so, its channel closes.
  process.on('disconnect', drain)
  // A listener keeps the channel, and with it the process, alive.
  process.channel?.unref()
}

await main()
