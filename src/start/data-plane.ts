import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pooledRandom, type RandomBytes } from '../base/ids.ts'
import type { Clock } from '../base/clock.ts'
import { readClassifier } from '../classifier.ts'
import type { Settings } from '../config/model.ts'
import { drainServer } from '../drain.ts'
import { createGatewayServer } from '../gateway/ingress.ts'
import type { KeyTable } from '../gateway/keys.ts'
import { OpenCalls } from '../gateway/open-calls.ts'
import type { Plane } from '../gateway/plane.ts'
import { RecentRefusals } from '../gateway/refusals.ts'
import { StreamTicker } from '../gateway/ticker.ts'
import type { Logger } from '../observe/log.ts'
import type { Room } from '../gateway/room.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { BreakerBoard } from '../upstream/breaker.ts'
import type { LatencyBoard } from '../upstream/latency.ts'
import { createTransport } from '../upstream/pool.ts'
import { PROVIDERS } from '../upstream/providers/registry.ts'
import { RetryBudget } from '../upstream/retry-budget.ts'
import type { ConfigurationInForce } from './configuration.ts'
import type { Mode } from './mode.ts'
import type { Undo } from './undo.ts'

export interface DataPlaneDeps {
  readonly mode: Mode
  readonly configuration: ConfigurationInForce
  readonly keys: KeyTable
  readonly breakers: BreakerBoard
  readonly latencies: LatencyBoard
  readonly room: Room
  readonly clock: Clock
  readonly randomBytes: RandomBytes
  readonly metrics: Metrics
  readonly logger: Logger
  readonly end_user_secret: Buffer
}

export interface DataPlane {
  readonly url: string
  /** Refuses what comes, lets what runs finish, within the limits of the settings. */
  drain(): Promise<void>
}

/** Starts the gateway: listens when it returns. @throws the error of a port that cannot be had */
export async function startDataPlane(deps: DataPlaneDeps, undo: Undo): Promise<DataPlane> {
  const { settings } = deps.configuration.current
  const plane = makePlane(deps, settings, undo)
  plane.ticker.start()
  undo.add(() => plane.ticker.stop())
  const server = createGatewayServer(plane, settings)
  const url = await listen(server, settings.host, settings.port)
  undo.add(() => closeAtOnce(server))
  return {
    url,
    drain: async () => {
      plane.state.draining = true
      await drainServer(server, deps.configuration.current.settings.drain, plane.open)
    },
  }
}

function makePlane(deps: DataPlaneDeps, settings: Settings, undo: Undo): Plane {
  const { mode, configuration, keys, breakers, latencies, room, clock, randomBytes, metrics, logger, end_user_secret } = deps
  const { log, closing, limits, ledger, records } = mode.storage
  const transport = createTransport({ connections_per_origin: settings.limits.upstream_connections_per_origin, proxy: settings.proxy })
  undo.add(() => transport.close())
  return {
    snapshot: () => configuration.snapshot,
    unready: () => mode.unready(),
    keys,
    limits,
    log,
    closing,
    ledger,
    records,
    transport,
    breakers,
    latencies,
    retries: new RetryBudget(),
    classifier: readClassifier(),
    room,
    providers: PROVIDERS,
    clock,
    randomBytes: pooledRandom(randomBytes),
    metrics,
    logger,
    open: new OpenCalls(),
    refusals: new RecentRefusals(),
    ticker: new StreamTicker(limits, log, clock, logger),
    end_user_secret,
    state: { draining: false },
  }
}

async function closeAtOnce(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeAllConnections()
  await closed
}

function listen(server: Server, host: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      const { port: actual } = server.address() as AddressInfo
      const shown = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
      resolve(`http://${shown.includes(':') ? `[${shown}]` : shown}:${actual}`)
    })
  })
}
