import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { admin, newFleet, noCluster } from '../support/cluster.ts'
import type { GatewayProcess } from '../support/fleet.ts'
import { startPostgres } from '../support/postgres.ts'
import { startRedis } from '../support/redis.ts'
import { waitFor } from '../support/wait.ts'

/** How long a wait may take before it has failed. */
const PATIENCE_MS = 60_000
/** Servers and processes start one after the other. */
const WHOLE_MS = 300_000

const metricsOf = async (machine: GatewayProcess): Promise<string> => (await fetch(`${machine.admin_url}/metrics`)).text()
const sees = (machine: GatewayProcess, line: string): Promise<unknown> =>
  waitFor(async () => (await metricsOf(machine)).split('\n').includes(line), { timeout_ms: PATIENCE_MS, what: line })

describe.skipIf(noCluster !== null)('many gateways', () => {
  it(
    'divide a capacity among those that live, and all take a key that one of them was given, until it is removed',
    async () => {
      const redis = await startRedis()
      const fleet = await newFleet({ redis_url: redis.url, postgres: await startPostgres() })
      const catalogue = join(fleet.config_dir, 'catalogue.yaml')
      const text = readFileSync(catalogue, 'utf8')
      const limited = text.replace(/\{id: tide\/first,/, '{id: tide/first, capacity: {concurrency: 5},')
      writeFileSync(catalogue, limited.replace(/\{id: tide\/second, provider: sandbox,/, '{id: tide/second, provider: deepseek,'))
      const master = join(fleet.config_dir, 'master.key')
      writeFileSync(master, randomBytes(32).toString('base64'), { mode: 0o600 })
      const env = { WEIR_MASTER_KEY_FILE: master }
      const control = await fleet.start('control', { roles: 'control,worker', env })
      const a = await fleet.start('a', { roles: 'gateway', env })
      const room = (places: number): string => `weir_endpoint_room{endpoint="tide/first",limit="concurrency"} ${places}`
      await sees(a, room(5))
      const b = await fleet.start('b', { roles: 'gateway', env })
      // Five among two: one has three of them, the other two.
      const places = async (): Promise<readonly string[]> => {
        const both = await Promise.all([a, b].map(metricsOf))
        return both.map((metrics) => /weir_endpoint_room\{endpoint="tide\/first",limit="concurrency"\} (\d+)/.exec(metrics)?.[1] ?? '')
      }
      await waitFor(async () => (await places()).toSorted().join(' ') === '2 3', { timeout_ms: PATIENCE_MS, what: 'the shares of two' })

      const added = await admin(control, '/provider-keys', { provider: 'deepseek', name: 'main', secret: 'sk-upstream-of-a-test' })
      expect(added).toMatchObject({ id: 'deepseek/main', last4: 'test' })
      const ready = 'weir_provider_key_state{key="deepseek/main",state="ready"} 1'
      await Promise.all([sees(a, ready), sees(b, ready)])
      await admin(control, '/provider-keys/deepseek/main', undefined, 'DELETE')
      const gone = async (machine: GatewayProcess): Promise<boolean> => !(await metricsOf(machine)).includes('deepseek/main')
      await waitFor(async () => (await gone(a)) && (await gone(b)), { timeout_ms: PATIENCE_MS, what: 'the key to be gone everywhere' })

      await b.stop()
      await sees(a, room(5))
    },
    WHOLE_MS,
  )
})
