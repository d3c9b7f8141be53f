import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chatPlan, Crowd, type Target } from '../support/audit-clients.ts'
import { admin, type Fleet, knownTo, newFleet, newTenant, noCluster } from '../support/cluster.ts'
import { CHAT_MODEL, type GatewayProcess } from '../support/fleet.ts'
import { startHalfOpenProxy } from '../support/half-open.ts'
import { type PostgresServer, startPostgres } from '../support/postgres.ts'
import { seededRandom } from '../support/random.ts'
import { monitorRedis } from '../support/redis-monitor.ts'
import { type RedisServer, startRedis } from '../support/redis.ts'
import { waitFor } from '../support/wait.ts'

const SECOND_MS = 1000
/** Nothing here depends on how fast the machine is: this is how long a wait may take before it has failed. */
const PATIENCE_MS = 30_000
/** Servers and processes start one after the other. */
const START_MS = 240_000
const WHOLE = chatPlan({ stream: false, directives: { tokens: 10 } })

async function statusOf(target: Target, model = CHAT_MODEL): Promise<number> {
  const headers = { authorization: `Bearer ${target.key}`, 'content-type': 'application/json' }
  const body = JSON.stringify({ model, max_tokens: 5, messages: [{ role: 'user', content: 'hello' }] })
  const response = await fetch(`${target.url}/v1/chat/completions`, { method: 'POST', headers, body })
  await response.body?.cancel()
  return response.status
}

async function metricsOf(machine: GatewayProcess): Promise<string> {
  return await (await fetch(`${machine.admin_url}/metrics`)).text()
}

function childrenOf(machine: GatewayProcess): readonly number[] {
  const { pid } = machine.process
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
}

function metric(text: string, name: string): number {
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN)
}

describe.skipIf(noCluster !== null)('a cluster', () => {
  let redis: RedisServer
  let postgres: PostgresServer
  let fleet: Fleet
  let control: GatewayProcess
  let gateway: GatewayProcess

  beforeAll(async () => {
    redis = await startRedis()
    postgres = await startPostgres()
    fleet = await newFleet({ redis_url: redis.url, postgres })
    control = await fleet.start('control', { roles: 'control,worker' })
    gateway = await fleet.start('gateway', { roles: 'gateway' })
  }, START_MS)

  it('keeps its books up: partitions of coming days are made before they are needed', async () => {
    const tomorrow = new Date(Date.now() + 86_400_000 + 8 * 3_600_000).toISOString().slice(0, 10).replaceAll('-', '_')
    const sql = "SELECT relname FROM pg_class WHERE relname LIKE 'events%' ORDER BY relname"
    await waitFor(async () => JSON.stringify(await postgres.sql(sql)).includes(tomorrow), { timeout_ms: PATIENCE_MS, what: 'a partition' })
  })

  it('has its roles apart: the admin API where control is, the gateway where it is, metrics everywhere', async () => {
    expect(control.url).toBe('')
    expect(gateway.process.stdout()).toContain('Weir is listening on')
    expect((await fetch(`${control.admin_url}/admin/v1/tenants`)).status).toBe(401)
    expect((await fetch(`${gateway.admin_url}/admin/v1/tenants`)).status).toBe(404)
    for (const machine of [control, gateway]) expect(await metricsOf(machine)).toContain('weir_open_holds 0')
  })

  it('runs two commands on Redis for a short request, and no SQL', async () => {
    const key = await newTenant(control, 'counted', '1')
    await knownTo([gateway], key)
    const seen = await monitorRedis(redis.port)
    const began = performance.now()
    for (let n = 0; n < 100; n += 1) expect(await statusOf({ url: gateway.url, key })).toBe(200)
    // Whoever speaks of this tenant is the gateway; a command that a script runs has the source "lua".
    const asked = (): readonly string[] => {
      const source = seen.find(({ text, source: from }) => from !== 'lua' && text.includes('counted'))?.source
      return seen.filter((command) => command.source === source).map(({ text }) => text)
    }
    const scripts = (): number => asked().filter((text) => text.startsWith('evalsha')).length
    // The last settle comes after its answer.
    await waitFor(() => scripts() >= 200, { timeout_ms: PATIENCE_MS, what: 'the last settle' })
    const seconds = (performance.now() - began) / SECOND_MS
    expect(scripts()).toBe(200)
    // Beside requests it asks, every second or two, whether keys have changed and limits answer.
    expect(asked().length - 200).toBeLessThan(10 + 3 * seconds)
  })

  it('serves while PostgreSQL answers nothing', async () => {
    const proxy = await startHalfOpenProxy(postgres.port)
    const database_url = (await postgres.url()).replace(`:${postgres.port}/`, `:${proxy.port}/`)
    const cut_off = await fleet.start('cut-off', { roles: 'gateway', database_url })
    const key = await newTenant(control, 'patient', '1')
    await knownTo([cut_off], key)
    proxy.blackhole('to_server')
    for (let n = 0; n < 20; n += 1) expect(await statusOf({ url: cut_off.url, key })).toBe(200)
    proxy.heal()
    expect(await cut_off.stop()).toEqual({ code: 0, signal: null })
  })

  it('refuses a revoked key at the next admission on every process, also where nobody has told the process', async () => {
    const key = await newTenant(control, 'revoked', '1')
    await knownTo([gateway], key)
    const [record] = ((await admin(control, '/keys?tenant=revoked')) as { data: { id: string }[] }).data
    await admin(control, `/keys/${record?.id}/revoke`, {})
    expect(await statusOf({ url: gateway.url, key })).toBe(401)
  })

  it('has what a tenant says of routing everywhere soon, and forgets it as soon', async () => {
    const key = await newTenant(control, 'routed', '1')
    await knownTo([gateway], key)
    const becomes = async (status: number): Promise<void> => {
      const answers = async (): Promise<boolean> => (await statusOf({ url: gateway.url, key }, 'routed/desk')) === status
      await waitFor(answers, { timeout_ms: PATIENCE_MS, what: `the gateway to answer ${status}` })
    }
    await becomes(404)
    await admin(control, '/tenants/routed/routing', { models: { 'routed/desk': { candidates: [{ model: CHAT_MODEL }] } } }, 'PUT')
    await becomes(200)
    await admin(control, '/tenants/routed/routing', undefined, 'DELETE')
    await becomes(404)
  })

  it('has every change everywhere soon: a suspended tenant, a limit, a new project', async () => {
    const key = await newTenant(control, 'changing', '1')
    await knownTo([gateway], key)
    await admin(control, '/tenants/changing', { status: 'suspended' }, 'PATCH')
    expect(await statusOf({ url: gateway.url, key })).toBe(403)
    await admin(control, '/tenants/changing', { status: 'active' }, 'PATCH')
    await waitFor(async () => (await statusOf({ url: gateway.url, key })) === 200, {
      timeout_ms: PATIENCE_MS,
      what: 'the tenant to be served',
    })
    await admin(control, '/limits', { tenant: 'changing', set: { kind: 'requests_per_minute', limit: 1 } }, 'PUT')
    await waitFor(async () => (await statusOf({ url: gateway.url, key })) === 429, { timeout_ms: PATIENCE_MS, what: 'the limit to hold' })
  })

  it('stops serving where keys were not confirmed for 10 s, says so, and serves again', async () => {
    const [to_redis, to_postgres] = [await startHalfOpenProxy(redis.port), await startHalfOpenProxy(postgres.port)]
    const lonely = await fleet.start('lonely', {
      roles: 'gateway',
      redis_url: `redis://127.0.0.1:${to_redis.port}`,
      database_url: (await postgres.url()).replace(`:${postgres.port}/`, `:${to_postgres.port}/`),
    })
    const key = await newTenant(control, 'lonely', '1')
    await knownTo([lonely], key)
    to_redis.blackhole('to_server')
    to_postgres.blackhole('to_server')
    const ready = async (): Promise<{ status: number; reasons: readonly string[] }> => {
      const response = await fetch(`${lonely.url}/readyz`)
      const { reasons } = (await response.json()) as { reasons: readonly string[] }
      return { status: response.status, reasons }
    }
    await waitFor(async () => (await ready()).status === 503, { timeout_ms: PATIENCE_MS, what: 'the gateway to be unready' })
    expect((await ready()).reasons).toEqual(['keys and tenants were not confirmed for 10 s'])
    expect(await statusOf({ url: lonely.url, key })).toBe(503)
    to_redis.heal()
    to_postgres.heal()
    await waitFor(async () => (await ready()).status === 200, { timeout_ms: PATIENCE_MS, what: 'the gateway to be ready' })
    await waitFor(async () => (await statusOf({ url: lonely.url, key })) === 200, {
      timeout_ms: PATIENCE_MS,
      what: 'requests to be served',
    })
    expect(await lonely.stop()).toEqual({ code: 0, signal: null })
  })

  it('waits for nothing of a machine that has drained', async () => {
    const leaver = await fleet.start('leaver', { roles: 'gateway' })
    const key = await newTenant(control, 'leaver', '1')
    await knownTo([leaver], key)
    const crowd = new Crowd(seededRandom(1))
    const sent = Array.from({ length: 20 }, () => crowd.send({ url: leaver.url, key }, WHOLE))
    expect((await Promise.all(sent)).filter(({ outcome }) => outcome === 'completed')).toHaveLength(20)
    // At once, so that posters have not seen all of it.
    expect(await leaver.stop()).toEqual({ code: 0, signal: null })
    const node = (await fleet.books()).events.find(({ tenant }) => tenant === 'leaver')?.node
    const { data } = (await admin(control, '/nodes')) as { data: { node: string; state: string; unposted: number }[] }
    expect(data.find((one) => one.node === node)).toMatchObject({ state: 'stopped', unposted: 0 })
  })

  it('reports what only the journal of a lost machine had, by node and number', async () => {
    const doomed = await fleet.start('doomed', { roles: 'gateway' })
    const key = await newTenant(control, 'doomed', '1')
    await knownTo([doomed], key)
    expect((await new Crowd(seededRandom(1)).send({ url: doomed.url, key }, WHOLE)).outcome).toBe('completed')
    await fleet.rest(control)
    const node = (await fleet.books()).events.find(({ tenant }) => tenant === 'doomed')?.node ?? ''
    await doomed.stop('SIGKILL')
    // As if it had closed three more that reached neither Redis nor PostgreSQL before its disk was gone.
    await postgres.sql(`SET search_path TO weir; UPDATE nodes SET last_seq = 4 WHERE node = '${node}'`)
    const { code, said } = await fleet.weir('control', 'audit')
    expect(code).toBe(1)
    expect(said).toContain(`for ${node} 2–4 it does not`)
    const { data } = (await admin(control, '/nodes')) as { data: { node: string; state: string; roles: string[] }[] }
    const living = data.find((one) => one.state === 'live' && one.roles.join() === 'gateway' && one.node !== node)
    expect((await fleet.weir('control', 'node', 'retire', living?.node ?? '')).said).toContain('lives: stop it instead')
    await waitFor(async () => metric(await metricsOf(control), 'weir_silent_nodes') === 1, { timeout_ms: PATIENCE_MS, what: 'its silence' })
    expect((await fleet.weir('control', 'node', 'list')).said).toMatch(new RegExp(`${node} +silent +gateway`))
    expect((await fleet.weir('control', 'node', 'retire', node)).said).toContain('is taken for stopped')
    await waitFor(async () => metric(await metricsOf(control), 'weir_silent_nodes') === 0, {
      timeout_ms: PATIENCE_MS,
      what: 'nobody waits',
    })
    await postgres.sql(`SET search_path TO weir; UPDATE nodes SET last_seq = 1 WHERE node = '${node}'`)
    await fleet.expectAudit('control')
  })

  afterAll(async () => {
    for (const machine of [gateway, control]) expect(await machine.stop()).toEqual({ code: 0, signal: null })
  })
})

describe.skipIf(noCluster !== null)('several gateway processes on one machine', () => {
  it('listen on one port, answer for all in one /metrics, are started again when they die, and end together', async () => {
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    const fleet = await newFleet({ redis_url: redis.url, postgres })
    const machine = await fleet.start('many', { workers: 3 })
    const key = await newTenant(machine, 'acme', '10')
    await knownTo([machine], key)
    await sleep(SECOND_MS)
    const crowd = new Crowd(seededRandom(1))
    const sent = 60
    // Connections of their own, so that every process gets some.
    for (let n = 0; n < sent; n += 1) expect((await crowd.send({ url: machine.url, key }, WHOLE, new Agent())).outcome).toBe('completed')
    const requests = (text: string): number =>
      [...text.matchAll(/^weir_requests_total\{.*code="ok".*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0)
    expect(requests(await metricsOf(machine))).toBe(sent)
    await fleet.rest(machine)
    expect(new Set((await fleet.books()).events.map(({ node }) => node)).size).toBe(3)
    const children = childrenOf(machine)
    expect(children).toHaveLength(3)
    process.kill(children[0] ?? 0, 'SIGKILL')
    await waitFor(
      () => {
        const now = childrenOf(machine)
        return now.length === 3 && !now.includes(children[0] ?? 0)
      },
      { timeout_ms: PATIENCE_MS, what: 'a process to take the place of the one that died' },
    )
    await waitFor(async () => (await crowd.send({ url: machine.url, key }, WHOLE, new Agent())).outcome === 'completed', {
      timeout_ms: PATIENCE_MS,
      what: 'requests to be served',
    })
    expect(metric(await metricsOf(machine), 'weir_journal_healthy')).toBe(1)
    writeFileSync(join(fleet.config_dir, 'weir.yaml'), 'log: {level: debug}\n')
    expect(await machine.stop()).toEqual({ code: 0, signal: null })
  })

  it('drain, whether a terminal signals the whole group at once or the first process is killed', async () => {
    const [redis, postgres] = [await startRedis(), await startPostgres()]
    const fleet = await newFleet({ redis_url: redis.url, postgres })
    const slow = chatPlan({ stream: true, directives: { tokens: 60, token_delay_ms: 50 } })
    const signalGroup = ({ process: { pid } }: GatewayProcess, children: readonly number[]): void => {
      for (const one of [pid, ...children]) process.kill(one, 'SIGINT')
    }
    const killFirst = ({ process: { pid } }: GatewayProcess): void => void process.kill(pid, 'SIGKILL')
    let key: string | null = null
    for (const end of [signalGroup, killFirst]) {
      const machine = await fleet.start('many', { workers: 2 })
      key ??= await newTenant(machine, 'acme', '10')
      await knownTo([machine], key)
      await sleep(SECOND_MS)
      const crowd = new Crowd(seededRandom(1))
      const target = { url: machine.url, key }
      const answers = Array.from({ length: 8 }, () => crowd.send(target, slow, new Agent()))
      await waitFor(async () => metric(await metricsOf(machine), 'weir_open_holds') === 8, {
        timeout_ms: PATIENCE_MS,
        what: 'every request to be admitted',
      })
      const children = childrenOf(machine)
      end(machine, children)
      expect((await Promise.all(answers)).map(({ outcome }) => outcome)).toEqual(answers.map(() => 'completed'))
      await machine.process.exited
      const gone = (pid: number): boolean => !existsSync(`/proc/${pid}`)
      await waitFor(() => children.every(gone), { timeout_ms: PATIENCE_MS, what: 'the other processes to end' })
    }
  })
})
