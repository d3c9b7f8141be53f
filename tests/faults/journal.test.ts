import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { audit, readBooks } from '../support/audit.ts'
import { chatPlan, Crowd } from '../support/audit-clients.ts'
import { atEnd } from '../support/cleanup.ts'
import { spawnGateway, startGateway, startSandboxProcess, writeConfiguration, type GatewayProcess } from '../support/fleet.ts'
import { faultSeed, seededRandom } from '../support/random.ts'
import { openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

const CLIENTS = 8
const WAIT_MS = 20_000
const DISK_MEBIBYTES = 24

const WHOLE = chatPlan({ stream: false, directives: { tokens: 10 } })
const STREAM = chatPlan({ stream: true, directives: { tokens: 15, token_delay_ms: 3 } })

/** Takes the room away from a data directory while a gateway runs, and gives it back. */
interface Trouble {
  readonly data_dir: string
  begin(gateway: GatewayProcess): void
  end(gateway: GatewayProcess): void
}

/** A file system of its own, filled to the last byte; null where none can be mounted. */
function fullDisk(): Trouble | null {
  const disk = join(tempDir(), 'disk')
  mkdirSync(disk)
  if (!succeeds('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MEBIBYTES}m`, 'tmpfs', disk])) return null
  atEnd(() => void succeeds('umount', ['-l', disk]))
  const ballast = join(disk, 'ballast')
  const begin = (): void => {
    for (let pages = DISK_MEBIBYTES * 256; pages > 0; pages = Math.floor(pages / 2)) fill(ballast, pages)
  }
  return { data_dir: join(disk, 'data'), begin, end: () => rmSync(ballast) }
}

/** Appends pages until the disk takes no more of this size. */
function fill(ballast: string, pages: number): void {
  try {
    for (;;) writeFileSync(ballast, Buffer.alloc(pages * 4096), { flag: 'a' })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error
  }
}

/** No file of the process may grow or be written: every write of its journal fails. Null where limits cannot be set from outside. */
function unwritable(): Trouble | null {
  const limit = (gateway: GatewayProcess, bytes: string): void => {
    execFileSync('prlimit', ['--pid', String(gateway.process.pid), `--fsize=${bytes}:unlimited`])
  }
  if (!succeeds('prlimit', ['--version'])) return null
  return { data_dir: join(tempDir(), 'data'), begin: (gateway) => limit(gateway, '1'), end: (gateway) => limit(gateway, 'unlimited') }
}

function succeeds(command: string, args: readonly string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch (error) {
    console.warn(`${command} is not possible here: ${error instanceof Error ? error.message : String(error)}`)
    return false
  }
}

async function readyStatus(gateway: GatewayProcess): Promise<number> {
  return (await fetch(`${gateway.url}/readyz`)).status
}

it.for([
  ['a full disk', fullDisk],
  ['a data directory that cannot be written', unwritable],
] as const)(
  '%s: errors that say so, never [DONE], unready; with room again it serves, and nothing finished is missing',
  async ([, makeTrouble], { skip }) => {
    const trouble = makeTrouble()
    if (trouble === null) return skip('this fault cannot be made here')
    const { data_dir } = trouble
    const sandbox = await startSandboxProcess()
    const config_dir = join(tempDir(), 'config')
    writeConfiguration(config_dir, sandbox.url)
    const gateway = await startGateway({ config_dir, data_dir })
    const target = { url: gateway.url, key: gateway.demo_key ?? '' }
    const crowd = new Crowd(seededRandom(faultSeed()))
    const over = new AbortController()
    const load = crowd.run(target, CLIENTS, over.signal, (random) => random.pick([WHOLE, STREAM]))
    // Streams that are under way when the trouble begins.
    let begun = 0
    const long = chatPlan({ stream: true, directives: { tokens: 200, token_delay_ms: 20 } })
    const caught = Array.from({ length: CLIENTS }, () => crowd.send(target, long, undefined, () => void (begun += 1)))
    await waitFor(() => begun === CLIENTS, { timeout_ms: WAIT_MS, what: 'the streams to be under way' })
    trouble.begin(gateway)
    await waitFor(async () => (await readyStatus(gateway)) === 503, { timeout_ms: WAIT_MS, what: '/readyz to say 503' })
    for (const seen of await Promise.all(caught)) expect(seen).toMatchObject({ outcome: 'partial', code: 'admission_unavailable' })
    const before = crowd.sightings.length
    await waitFor(() => crowd.sightings.length > before + CLIENTS * 3, { timeout_ms: WAIT_MS, what: 'requests during the trouble' })
    const during = crowd.sightings.slice(before + CLIENTS)
    expect(during.filter(({ outcome }) => outcome === 'completed')).toEqual([])
    expect(new Set(during.map(({ code }) => code))).toEqual(new Set(['admission_unavailable']))
    over.abort()
    await load
    expect(gateway.process.child.exitCode).toBe(null)
    trouble.end(gateway)
    // Nobody sends anything: a load balancer that asks only for readiness must get it back too.
    await waitFor(async () => (await readyStatus(gateway)) === 200, { timeout_ms: WAIT_MS, what: '/readyz to say 200 again' })
    // Ends that could not be written are written now, not at the next start.
    await waitFor(() => readBooks(data_dir).open.length === 0, { timeout_ms: WAIT_MS, what: 'every request to be closed' })
    expect(await crowd.send(target, STREAM)).toMatchObject({ outcome: 'completed' })
    expect(await crowd.send(target, WHOLE)).toMatchObject({ outcome: 'completed' })
    expect(await gateway.stop()).toEqual({ code: 0, signal: null })
    const books = readBooks(data_dir)
    for (const { id } of await Promise.all(caught)) expect(books.events.filter((event) => event.id === id)).toHaveLength(1)
    expect(audit({ sightings: crowd.sightings, served: await sandbox.served(), books })).toEqual([])
  },
)

it('a second gateway on one data directory refuses to start with the reason, and the first is unharmed', async () => {
  const sandbox = await startSandboxProcess()
  const folders = { config_dir: join(tempDir(), 'config'), data_dir: join(tempDir(), 'data') }
  writeConfiguration(folders.config_dir, sandbox.url)
  const first = await startGateway(folders)
  const target = { url: first.url, key: first.demo_key ?? '' }
  const crowd = new Crowd(seededRandom(1))
  const stream = crowd.send(target, chatPlan({ stream: true, directives: { tokens: 60, token_delay_ms: 30 } }))
  const admin_file = join(folders.data_dir, 'admin.json')
  const admin = readFileSync(admin_file, 'utf8')
  const second = spawnGateway(folders)
  expect(await second.exited).toEqual({ code: 1, signal: null })
  expect(second.stderr()).toMatch(/data directory .* is in use by another weir process/)
  expect(second.stdout()).not.toMatch(/listening/)
  expect(readFileSync(admin_file, 'utf8')).toBe(admin)
  expect((await stream).outcome).toBe('completed')
  expect((await crowd.send(target, WHOLE)).outcome).toBe('completed')
  expect(await first.stop()).toEqual({ code: 0, signal: null })
  expect(audit({ sightings: crowd.sightings, served: await sandbox.served(), books: readBooks(folders.data_dir) })).toEqual([])
})

/*
 * A write-ahead log that ends in the middle of a frame is what a power cut leaves of writes that were not fsynced. The size it
 * had when the last [DONE] arrived marks what must have been fsynced: cut anywhere after it, every finished answer is still there.
 */
it('a write-ahead log torn after the last finished answer: the start works, and every finished answer is billed', async () => {
  const random = seededRandom(faultSeed())
  const sandbox = await startSandboxProcess()
  const folders = { config_dir: join(tempDir(), 'config'), data_dir: join(tempDir(), 'data') }
  writeConfiguration(folders.config_dir, sandbox.url)
  const gateway = await startGateway(folders)
  const target = { url: gateway.url, key: gateway.demo_key ?? '' }
  const crowd = new Crowd(random)
  for (let n = 0; n < 20; n += 1) expect((await crowd.send(target, random.pick([WHOLE, STREAM]))).outcome).toBe('completed')
  const finished = crowd.sightings.map(({ id }) => id ?? '').toSorted((a, b) => (a < b ? -1 : 1))
  const log = join(folders.data_dir, 'weir.db-wal')
  const safe_bytes = statSync(log).size
  const unfinished = crowd.send(target, chatPlan({ stream: true, directives: { tokens: 300, token_delay_ms: 20 } }))
  await waitFor(() => readBooks(folders.data_dir).open.length === 1, { timeout_ms: WAIT_MS, what: 'the stream to be admitted' })
  await sleep(1200)
  await gateway.stop('SIGKILL')
  expect((await unfinished).outcome).toBe('partial')
  const whole_bytes = statSync(log).size
  expect(whole_bytes).toBeGreaterThan(safe_bytes)
  for (const cut_bytes of [1, random.whole(2, 4000), random.whole(1, whole_bytes - safe_bytes), whole_bytes - safe_bytes]) {
    const copy = join(tempDir(), 'data')
    cpSync(folders.data_dir, copy, { recursive: true })
    truncateSync(join(copy, 'weir.db-wal'), whole_bytes - cut_bytes)
    const storage = await openTest(copy)
    await storage.ledger.post()
    const billed = await storage.ledger.events({ limit: 1000 })
    const facts = await storage.ledger.auditFacts()
    await storage.close()
    expect(
      billed.events.map(({ id }) => id).toSorted((a, b) => (a < b ? -1 : 1)),
      `cut by ${cut_bytes} bytes`,
    ).toEqual(finished)
    expect({ ...facts, open_requests: [] }).toMatchObject({
      unbalanced: [],
      missing_events: [],
      unexplained_events: [],
      differing_events: [],
      wrong_sums: [],
    })
  }
  // The gateway itself, on the log cut by one byte: the request whose last row was torn is swept or was never there.
  truncateSync(log, whole_bytes - 1)
  const next = await startGateway(folders)
  expect(await next.stop()).toEqual({ code: 0, signal: null })
  expect(audit({ sightings: crowd.sightings, served: await sandbox.served(), books: readBooks(folders.data_dir) })).toEqual([])
})
