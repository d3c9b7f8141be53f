import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { audit } from '../support/audit.ts'
import { Crowd, type Sighting } from '../support/audit-clients.ts'
import { type Fleet, newFleet, noCluster } from '../support/cluster.ts'
import type { GatewayProcess } from '../support/fleet.ts'
import { loadOf, openPayers, type Payer, refill } from '../support/payers.ts'
import { startPostgres } from '../support/postgres.ts'
import { faultRounds, faultSeed, type Random, seededRandom } from '../support/random.ts'
import { startRedis } from '../support/redis.ts'

const LOAD_MS = 1500
const AUDIT_EVERY_ROUNDS = 10
/** Machines of which one is killed in every round: two gateways, and two that post, sweep and fill. */
const MACHINES = { 'gateway-a': 'gateway', 'gateway-b': 'gateway', 'worker-a': 'worker', 'worker-b': 'worker' } as const
type Name = keyof typeof MACHINES
const NAMES = Object.keys(MACHINES) as Name[]

type Running = Map<Name, GatewayProcess>

/** One of the machines is killed while all of them are under load, and started again. */
async function killOne(fleet: Fleet, running: Running, payers: readonly Payer[], crowd: Crowd, random: Random): Promise<void> {
  const over = new AbortController()
  const load = loadOf(payers, urlsOf(running), crowd, over.signal)
  await sleep(random.whole(50, LOAD_MS))
  const name = random.pick(NAMES)
  await running.get(name)?.stop('SIGKILL')
  // The others go on while it is away; sometimes it is back before anything has noticed.
  await sleep(random.whole(0, 500))
  over.abort()
  await load
  running.set(name, await fleet.start(name, { roles: MACHINES[name] }))
}

function urlsOf(running: Running): readonly string[] {
  return [...running.values()].map(({ url }) => url).filter((url) => url !== '')
}

function tallyOf(sightings: readonly Sighting[]): Readonly<Record<string, number>> {
  const tally: Record<string, number> = {}
  for (const { outcome, left } of sightings) tally[left ? 'left' : outcome] = (tally[left ? 'left' : outcome] ?? 0) + 1
  return tally
}

it.skipIf(noCluster !== null)(
  'gateways and posters killed under load: every finished answer is billed once and exactly, and Redis, ledger and journals agree',
  async () => {
    const rounds = faultRounds()
    const random = seededRandom(faultSeed())
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    const fleet = await newFleet({ redis_url: redis.url, postgres })
    const control = await fleet.start('control', { roles: 'control' })
    const running: Running = new Map()
    for (const name of NAMES) running.set(name, await fleet.start(name, { roles: MACHINES[name] }))
    const payers = await openPayers(control)
    const crowd = new Crowd(random)
    const auditNow = async (): Promise<readonly string[]> => {
      await fleet.rest(control)
      return audit({ sightings: crowd.sightings, served: await fleet.sandbox.served(), books: await fleet.books() })
    }
    for (let round = 1; round <= rounds; round += 1) {
      await refill(control, payers, round)
      await killOne(fleet, running, payers, crowd, random)
      if (round % AUDIT_EVERY_ROUNDS === 0 && round < rounds) expect(await auditNow(), `after round ${round}`).toEqual([])
    }
    expect(await auditNow()).toEqual([])
    await fleet.expectAudit('control')
    console.info(`${rounds} kills: ${JSON.stringify(tallyOf(crowd.sightings))}`)
    for (const machine of [...running.values(), control]) expect(await machine.stop()).toEqual({ code: 0, signal: null })
  },
)
