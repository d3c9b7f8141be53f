import { systemClock } from './base/clock.ts'
import { formatIssues } from './config/check.ts'
import { configDirectory, readEnvironment } from './config/load.ts'
import { createLogger } from './observe/log.ts'
import { ConfigurationRefused, startWeir, type Weir, type WeirOptions } from './weir.ts'
import { banner, explainStartFailure } from './banner.ts'
import { startMachine } from './machine.ts'
import { answerPrimary } from './start/primary.ts'

/** Reads the environment, starts what this process is to run, says where it is, and drains on a signal; nothing else. */
async function main(): Promise<void> {
  const env = readEnvironment()
  const logger = createLogger({ level: 'info' })
  const options = { config_dir: configDirectory(env), env, clock: systemClock(), logger }
  try {
    if (env['WEIR_SLOT'] === undefined) await runMachine(options, logger)
    else await runGateway(Number(env['WEIR_SLOT']), options, logger)
  } catch (error) {
    process.stderr.write(error instanceof ConfigurationRefused ? `${formatIssues(error.issues)}\n` : `${explainStartFailure(error)}\n`)
    process.exit(1)
  }
}

async function runMachine(options: WeirOptions, logger: ReturnType<typeof createLogger>): Promise<void> {
  const machine = await startMachine(options)
  logger.setLevel(machine.configuration.settings.log.level)
  // Before the banner: whoever reads it may send a signal at once.
  listenForSignals(machine, options)
  process.stdout.write(banner(machine))
}

/** One of several gateway processes, started by the machine's first one. */
async function runGateway(slot: number, options: WeirOptions, logger: ReturnType<typeof createLogger>): Promise<void> {
  const sandbox_url = options.env['WEIR_SANDBOX_URL']
  const weir = await startWeir({ ...options, slot, ...(sandbox_url === undefined ? {} : { sandbox_url }) })
  logger.setLevel(weir.configuration.settings.log.level)
  listenForSignals(weir, options)
  answerPrimary(weir.url ?? '', weir.metrics, (error) => logger.error({ err: error }, 'metrics could not be told'))
}

/** A terminal and a supervisor signal a whole group, and the first process tells the others once more: that is one request to end, not two. */
const SAME_SIGNAL_MS = 500

function listenForSignals(weir: Pick<Weir, 'drain' | 'reload'>, { clock, logger }: Pick<WeirOptions, 'clock' | 'logger'>): void {
  let asked_ms: number | null = null
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
    const now_ms = clock.monotonic_ms()
    if (asked_ms !== null) {
      if (now_ms - asked_ms > SAME_SIGNAL_MS) process.exit(130)
      return
    }
    asked_ms = now_ms
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
