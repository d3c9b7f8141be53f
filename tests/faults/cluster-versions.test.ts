import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { audit } from '../support/audit.ts'
import { Crowd } from '../support/audit-clients.ts'
import { admin, newFleet, noCluster } from '../support/cluster.ts'
import type { GatewayProcess } from '../support/fleet.ts'
import { loadOf, openPayers, refill } from '../support/payers.ts'
import { startPostgres } from '../support/postgres.ts'
import { checkOutPreviousRelease, noPreviousRelease } from '../support/previous-release.ts'
import { faultSeed, seededRandom } from '../support/random.ts'
import { startRedis } from '../support/redis.ts'

const LOAD_MS = 2000
const why = noCluster ?? noPreviousRelease
if (why !== null) console.info(`skipped: ${why}`)

describe.skipIf(why !== null)('an upgrade, machine by machine, under load', () => {
  it('previous and present release work on one Redis and one PostgreSQL, and the present one takes over what the previous one has left', async () => {
    const root = checkOutPreviousRelease()
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    const fleet = await newFleet({ redis_url: redis.url, postgres })
    const start = (name: string, roles: string, previous: boolean): Promise<GatewayProcess> =>
      fleet.start(name, previous ? { roles, root } : { roles })
    let control = await start('control', 'control', true)
    const running = new Map<string, GatewayProcess>()
    for (const name of ['gateway-a', 'gateway-b']) running.set(name, await start(name, 'gateway', true))
    running.set('worker', await start('worker', 'worker', true))
    const payers = await openPayers(control)
    const crowd = new Crowd(seededRandom(faultSeed()))
    let round = 0
    /** Load on every gateway while something happens. */
    const meanwhile = async (happens: () => Promise<void>): Promise<void> => {
      round += 1
      await refill(control, payers, round)
      const urls = [...running.values()].map(({ url }) => url).filter((url) => url !== '')
      const over = new AbortController()
      const load = loadOf(payers, urls, crowd, over.signal)
      await sleep(LOAD_MS)
      await happens()
      await sleep(LOAD_MS)
      over.abort()
      await load
    }
    const upgrade = async (name: string, roles: string): Promise<void> => {
      await running.get(name)?.stop('SIGKILL')
      running.set(name, await start(name, roles, false))
    }

    // The present release migrates the schema under the previous one's feet, and changes come from it.
    await meanwhile(async () => {
      await control.stop()
      control = await start('control', 'control', false)
      await admin(control, '/tenants/rich', { name: 'Rich', priority: 'high' }, 'PATCH')
      // A kind of record that the previous release does not know.
      await admin(control, '/tenants/rich/routing', { rules: [{ domain: 'finance', keywords: ['river'] }] }, 'PUT')
    })
    await meanwhile(() => upgrade('gateway-a', 'gateway'))
    await meanwhile(() => upgrade('worker', 'worker'))
    await meanwhile(() => upgrade('gateway-b', 'gateway'))
    await meanwhile(() => sleep(0))

    await fleet.rest(control)
    const { sightings } = crowd
    expect(sightings.filter(({ outcome }) => outcome === 'completed').length).toBeGreaterThan(100)
    expect(audit({ sightings, served: await fleet.sandbox.served(), books: await fleet.books() })).toEqual([])
    await fleet.expectAudit('control')
    for (const machine of [...running.values(), control]) expect(await machine.stop()).toEqual({ code: 0, signal: null })
  })
})
