import cluster, { type Worker } from 'node:cluster'
import type { Clock } from '../base/clock.ts'
import { renderTogether, type MetricsSnapshot } from '../observe/aggregate.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'

const START_TIMEOUT_MS = 60_000
const METRICS_TIMEOUT_MS = 3000
/** Pause before a process that died is started again; doubled while it dies at once, up to the second figure. */
const RESTART_MS = 200
const RESTART_MOST_MS = 30_000
/** A process that lived for so long has not died at once. */
const LIVED_MS = 60_000

type ToPrimary =
  | { readonly weir: 'ready'; readonly url: string }
  | { readonly weir: 'metrics'; readonly id: number; readonly snapshot: MetricsSnapshot }
type ToWorker = { readonly weir: 'metrics'; readonly id: number }

export interface GatewaysOptions {
  readonly count: number
  /** Environment of gateway `slot`, beside this process's own. */
  readonly envOf: (slot: number) => Readonly<Record<string, string>>
  readonly clock: Clock
  readonly logger: Logger
}

/** The gateway processes of one machine: started again when they die, ended together. */
export interface Gateways {
  /** Where they all listen. */
  readonly url: string
  /** What they have measured; one that does not answer is left out. */
  metrics(): Promise<readonly MetricsSnapshot[]>
  /** Has each read its configuration again. */
  reload(): void
  /** Each drains; resolves when the last one has ended. */
  drain(): Promise<void>
}

/** Starts the gateways and waits until every one listens. @throws Error if one ends before that, or takes longer than 60 s */
export async function startGateways(options: GatewaysOptions): Promise<Gateways> {
  const group = new Group(options)
  const starts = Array.from({ length: options.count }, (_, index) => group.start(index + 1))
  const urls = await Promise.all(starts).catch(async (error: unknown) => {
    await Promise.allSettled([...starts, group.drain()])
    throw error
  })
  return {
    url: urls[0] ?? '',
    metrics: () => group.metrics(),
    reload: () => group.signal('SIGHUP'),
    drain: () => group.drain(),
  }
}

class Group {
  readonly #options: GatewaysOptions
  readonly #workers = new Map<number, Worker>()
  readonly #asked = new Map<number, (snapshot: MetricsSnapshot) => void>()
  #next_ask = 1
  #draining = false

  constructor(options: GatewaysOptions) {
    this.#options = options
  }

  /** @returns where it listens */
  start(slot: number, restart_ms = RESTART_MS): Promise<string> {
    const { envOf, clock } = this.#options
    const worker = cluster.fork({ ...envOf(slot), WEIR_SLOT: String(slot), WEIR_PARENT_IPC: '1' })
    const started_ms = clock.monotonic_ms()
    this.#workers.set(slot, worker)
    const ready = Promise.withResolvers<string>()
    const timer = setTimeout(
      () => ready.reject(new Error(`gateway ${slot} did not listen within ${START_TIMEOUT_MS} ms`)),
      START_TIMEOUT_MS,
    )
    worker.on('message', (message: ToPrimary) => {
      if (message.weir === 'ready') ready.resolve(message.url)
      else this.#asked.get(message.id)?.(message.snapshot)
    })
    worker.once('exit', (code, signal) => {
      this.#workers.delete(slot)
      ready.reject(new Error(`gateway ${slot} ended before it listened (${signal ?? `code ${code}`})`))
      if (this.#draining) return
      const lived = clock.monotonic_ms() - started_ms >= LIVED_MS
      this.#restartLater(slot, lived ? RESTART_MS : Math.min(RESTART_MOST_MS, 2 * restart_ms), { code, signal })
    })
    return ready.promise.finally(() => clearTimeout(timer))
  }

  async metrics(): Promise<readonly MetricsSnapshot[]> {
    const snapshots = await Promise.all([...this.#workers.values()].map((worker) => this.#ask(worker)))
    return snapshots.filter((snapshot) => snapshot !== null)
  }

  signal(signal: NodeJS.Signals): void {
    for (const worker of this.#workers.values()) worker.process.kill(signal)
  }

  async drain(): Promise<void> {
    this.#draining = true
    const ended = [...this.#workers.values()].map((worker) => new Promise<void>((resolve) => worker.once('exit', () => resolve())))
    this.signal('SIGTERM')
    await Promise.all(ended)
  }

  #restartLater(slot: number, wait_ms: number, how: { readonly code: number | null; readonly signal: string | null }): void {
    const { logger } = this.#options
    logger.error({ slot, ...how, wait_ms }, 'a gateway process has ended; starting it again')
    setTimeout(() => {
      if (this.#draining) return
      this.start(slot, wait_ms).catch((error: unknown) => logger.error({ slot, err: error }, 'a gateway process could not be started'))
    }, wait_ms)
  }

  #ask(worker: Worker): Promise<MetricsSnapshot | null> {
    const id = this.#next_ask++
    return new Promise((resolve) => {
      const end = (snapshot: MetricsSnapshot | null): void => {
        clearTimeout(timer)
        this.#asked.delete(id)
        resolve(snapshot)
      }
      const timer = setTimeout(() => end(null), METRICS_TIMEOUT_MS)
      this.#asked.set(id, end)
      if (worker.isConnected()) worker.send({ weir: 'metrics', id } satisfies ToWorker)
      else end(null)
    })
  }
}

/** Metrics of this process and its gateways as one text. */
export function metricsTogether(
  own: Metrics,
  gateways: () => Promise<readonly MetricsSnapshot[]>,
): Pick<Metrics, 'render' | 'content_type'> {
  return {
    content_type: own.content_type,
    render: async () => await renderTogether([await own.snapshot(), ...(await gateways())]),
  }
}

/** A gateway process's side: tells where it listens, and answers what it has measured. */
export function answerPrimary(url: string, metrics: Pick<Metrics, 'snapshot'>, on_trouble: (error: unknown) => void): void {
  const { worker } = cluster
  if (worker === undefined) return
  worker.on('message', (message: ToWorker) => {
    metrics
      .snapshot()
      .then((snapshot) => worker.send({ weir: 'metrics', id: message.id, snapshot } satisfies ToPrimary))
      .catch(on_trouble)
  })
  // Without it Node ends this process at once when the first one has died; so it drains like any that is asked to end.
  worker.once('disconnect', () => (worker.exitedAfterDisconnect = true))
  worker.send({ weir: 'ready', url } satisfies ToPrimary)
}
