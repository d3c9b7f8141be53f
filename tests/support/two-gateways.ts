import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { audit, type Evidence } from './audit.ts'
import { Crowd } from './audit-clients.ts'
import { type Fleet, type MachineOptions, newFleet } from './cluster.ts'
import type { GatewayProcess } from './fleet.ts'
import { loadOf, openPayers, type Payer, refill } from './payers.ts'
import { type PostgresServer, startPostgres } from './postgres.ts'
import { faultSeed, type Random, seededRandom } from './random.ts'
import { waitFor } from './wait.ts'

export const OPEN_TIMEOUT_MS = 30_000

/** Two gateways and a machine with the other roles. */
export interface Cluster {
  readonly fleet: Fleet
  readonly gateways: readonly GatewayProcess[]
  readonly control: GatewayProcess
  readonly payers: readonly Payer[]
  readonly crowd: Crowd
  readonly random: Random
}

export interface ClusterOptions {
  readonly redis_url: string
  /** Of machines by name: `control`, `gateway-a`, `gateway-b`. */
  readonly machines?: Readonly<Record<string, MachineOptions>>
  readonly postgres?: PostgresServer
  /** More of `weir.yaml`, as lines of YAML. */
  readonly settings?: string
}

/** Starts the machines, and gives every payer something. */
export async function newCluster({ redis_url, machines = {}, postgres, settings = '' }: ClusterOptions): Promise<Cluster> {
  const random = seededRandom(faultSeed())
  const server = postgres ?? (await startPostgres())
  const fleet = await newFleet({ redis_url, postgres: server, settings })
  const control = await fleet.start('control', { roles: 'control,worker', ...machines['control'] })
  const gateways = [
    await fleet.start('gateway-a', { roles: 'gateway', ...machines['gateway-a'] }),
    await fleet.start('gateway-b', { roles: 'gateway', ...machines['gateway-b'] }),
  ]
  const payers = await openPayers(control)
  await refill(control, payers, 1)
  return { fleet, gateways, control, payers, crowd: new Crowd(random), random }
}

/** Load on all gateways while `work` is done, and some time more. */
export async function underLoad({ payers, gateways, crowd }: Cluster, work: () => Promise<void>): Promise<void> {
  const over = new AbortController()
  const urls = gateways.map(({ url }) => url)
  const load = loadOf(payers, urls, crowd, over.signal)
  try {
    await sleep(1500)
    await work()
    await served(crowd)
  } finally {
    over.abort()
    await load
  }
}

/** Requests are answered again. */
export async function served(crowd: Crowd): Promise<void> {
  const before = crowd.sightings.length
  await waitFor(() => crowd.sightings.slice(before).filter(({ outcome }) => outcome === 'completed').length >= 10, {
    timeout_ms: OPEN_TIMEOUT_MS,
    what: 'requests to be answered again',
  })
}

/** At rest everything agrees: clients, sandbox, journals, ledger, and what Redis believes. */
export async function expectAudit({ fleet, control, crowd }: Cluster, lines: Evidence['lines'] = {}): Promise<void> {
  await fleet.rest(control)
  expect(audit({ sightings: crowd.sightings, served: await fleet.sandbox.served(), books: await fleet.books(), lines })).toEqual([])
  await fleet.expectAudit('control')
}
