import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import type { ServedRow } from '../../src/sandbox/tally.ts'
import { audit, numberingOf, priceOf, readBooks, type AuditedEvent, type Evidence } from '../support/audit.ts'
import { chatPlan, Crowd, type Sighting } from '../support/audit-clients.ts'
import {
  CHAT_MODEL,
  spawnGateway,
  startGateway,
  startSandboxProcess,
  writeConfiguration,
  type GatewayFolders,
  type GatewayProcess,
} from '../support/fleet.ts'
import { spawnNode } from '../support/processes.ts'
import { faultRounds, faultSeed, seededRandom, type Random } from '../support/random.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

const CLIENTS = 16
const AUDIT_EVERY_ROUNDS = 10
/** Longest load before a kill; also the longest wait before a kill during a start. */
const LOAD_MS = 1200
const START_MS = 900
const REST_TIMEOUT_MS = 20_000

interface Fleet extends GatewayFolders {
  readonly sandbox_url: string
  served(): Promise<readonly ServedRow[]>
}

async function newFleet(): Promise<Fleet> {
  const folder = tempDir()
  const sandbox = await startSandboxProcess()
  const config_dir = join(folder, 'config')
  writeConfiguration(config_dir, sandbox.url)
  return { config_dir, data_dir: join(folder, 'data'), sandbox_url: sandbox.url, served: sandbox.served }
}

/** A tenant under load. What it is given in every round lasts for a part of the round only. */
interface Payer {
  readonly key: string
  readonly clients: number
  readonly refill: (round: number) => readonly { readonly path: string; readonly body: object }[]
}

const POOR = [
  { tenant: 'purse', money: '0.002', grant: null },
  { tenant: 'pack', money: '0.001', grant: { unit: 'tokens', amount: 800 } },
  { tenant: 'calls', money: '0.0005', grant: { unit: 'requests', amount: 4 } },
] as const

/** The demo tenant, which is shown its key once and has plenty, and three that have little: of money, of tokens, of requests. */
async function openPayers(fleet: Fleet): Promise<readonly Payer[]> {
  const gateway = await startGateway(fleet)
  if (gateway.demo_key === null) throw new Error('the first start showed no key')
  const payers: Payer[] = [{ key: gateway.demo_key, clients: 7, refill: () => [] }]
  for (const { tenant, money, grant } of POOR) {
    await admin(fleet, gateway, '/tenants', { id: tenant, audience: 'internal' })
    const { secret } = (await admin(fleet, gateway, '/keys', { tenant })) as { readonly secret: string }
    payers.push({
      key: secret,
      clients: 3,
      refill: (round) => [
        { path: `/tenants/${tenant}/credit`, body: { id: `round-${round}`, amount_cny: money } },
        ...(grant === null ? [] : [{ path: `/tenants/${tenant}/grants`, body: { id: `${tenant}-${round}`, kind: 'pack', ...grant } }]),
      ],
    })
  }
  expect(await gateway.stop()).toEqual({ code: 0, signal: null })
  return payers
}

/** `POST` below `/admin/v1` with the token that a running gateway keeps in its data directory. */
async function admin({ data_dir }: Fleet, gateway: GatewayProcess, path: string, body: object): Promise<unknown> {
  const { token } = JSON.parse(readFileSync(join(data_dir, 'admin.json'), 'utf8')) as { token: string }
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const response = await fetch(`${gateway.admin_url}/admin/v1${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
  const answer: unknown = await response.json()
  expect([path, response.ok, answer]).toEqual([path, true, answer])
  return answer
}

/** One gateway under load of every tenant, killed at a random moment. */
async function killUnderLoad(fleet: Fleet, payers: readonly Payer[], round: number, crowd: Crowd, random: Random): Promise<void> {
  const gateway = await startGateway(fleet)
  for (const { path, body } of payers.flatMap(({ refill }) => refill(round))) await admin(fleet, gateway, path, body)
  const over = new AbortController()
  const load = Promise.all(payers.map(({ key, clients }) => crowd.run({ url: gateway.url, key }, clients, over.signal)))
  await sleep(random.whole(50, LOAD_MS))
  over.abort()
  await gateway.stop('SIGKILL')
  await load
}

/** A start that is killed on its way: while it sweeps, posts, or just listens. */
async function killWhileStarting(fleet: Fleet, random: Random): Promise<void> {
  const starting = spawnGateway(fleet)
  await sleep(random.whole(0, START_MS))
  await starting.stop('SIGKILL')
}

/** Starts a gateway, which sweeps what the last one left, and takes the books once everything is posted. */
async function auditAtRest(fleet: Fleet, payers: readonly Payer[], crowd: Crowd): Promise<readonly string[]> {
  const gateway = await startGateway(fleet)
  for (const { key } of payers) {
    const balance = await fetch(`${gateway.url}/v1/balance`, { headers: { authorization: `Bearer ${key}` } })
    expect(await balance.json()).toMatchObject({ held_cny: '0', open_requests: 0 })
  }
  await waitFor(() => readBooks(fleet.data_dir).unposted.length === 0, { timeout_ms: REST_TIMEOUT_MS, what: 'every event to be posted' })
  const findings = audit({ sightings: crowd.sightings, served: await fleet.served(), books: readBooks(fleet.data_dir) })
  expect(await gateway.stop()).toEqual({ code: 0, signal: null })
  return findings
}

/** How often each ending was seen, to show that the mix is one. */
function tallyOf(sightings: readonly Sighting[], fleet: Fleet): Readonly<Record<string, number>> {
  const tally: Record<string, number> = {}
  const count = (name: string): void => void (tally[name] = (tally[name] ?? 0) + 1)
  for (const { outcome, left } of sightings) count(left ? 'left' : outcome)
  for (const { outcome, code } of sightings) if (code === 'insufficient_balance') count(`${outcome} without money`)
  for (const { status, parts, overrun_nano } of readBooks(fleet.data_dir).events) {
    count(`event ${status}`)
    for (const unit of new Set(parts.map((part) => part.unit))) count(`paid in ${unit}`)
    if (overrun_nano !== '0') count('overrun')
  }
  return tally
}

async function weirAudit(fleet: Fleet, more: readonly string[]): Promise<{ readonly code: number | null; readonly said: string }> {
  const command = spawnNode('src/cli.ts', ['audit', ...more], {
    WEIR_CONFIG_DIR: fleet.config_dir,
    WEIR_DATA_DIR: fleet.data_dir,
    NODE_ENV: 'test',
  })
  const { code } = await command.exited
  return { code, said: `${command.stdout()}${command.stderr()}` }
}

it('kill -9 at any moment under load: every finished answer is billed once and exactly, nothing else is billed beyond what was sent', async () => {
  const rounds = faultRounds()
  const random = seededRandom(faultSeed())
  const fleet = await newFleet()
  const payers = await openPayers(fleet)
  const crowd = new Crowd(random)
  for (let round = 1; round <= rounds; round += 1) {
    if (random.next() < 0.2) await killWhileStarting(fleet, random)
    await killUnderLoad(fleet, payers, round, crowd, random)
    if (round % AUDIT_EVERY_ROUNDS === 0 && round < rounds)
      expect(await auditAtRest(fleet, payers, crowd), `after round ${round}`).toEqual([])
  }
  expect(await auditAtRest(fleet, payers, crowd)).toEqual([])
  const tally = tallyOf(crowd.sightings, fleet)
  console.info(`${rounds} kills: ${JSON.stringify(tally)}`)
  const endings = ['completed', 'partial', 'refused', 'nothing', 'left', 'event swept']
  endings.push('refused without money', 'paid in nano_cny', 'paid in tokens', 'paid in requests')
  expect(endings.filter((ending) => tally[ending] === undefined)).toEqual([])
  for (const more of [[], ['--sandbox', fleet.sandbox_url]]) expect(await weirAudit(fleet, more)).toMatchObject({ code: 0 })
})

it('SIGTERM under load: streams finish, everything is posted, exit code 0, and the next start finds nothing to sweep', async () => {
  const random = seededRandom(faultSeed())
  const fleet = await newFleet()
  const gateway = await startGateway(fleet)
  const key = gateway.demo_key ?? ''
  const crowd = new Crowd(random)
  const over = new AbortController()
  const paced = chatPlan({ stream: true, directives: { tokens: 60, token_delay_ms: 10 } })
  const whole = chatPlan({ stream: false, directives: { tokens: 20 } })
  const load = crowd.run({ url: gateway.url, key }, CLIENTS, over.signal, ({ next }) => (next() < 0.7 ? paced : whole))
  await sleep(random.whole(300, 900))
  const exit = gateway.stop('SIGTERM')
  // Clients go on asking while it drains: they are served or find nobody, and are never cut.
  await sleep(100)
  over.abort()
  expect(await exit).toEqual({ code: 0, signal: null })
  await load
  expect(crowd.sightings.filter(({ outcome }) => outcome === 'completed').length).toBeGreaterThanOrEqual(CLIENTS)
  expect(crowd.sightings.filter(({ outcome, id }) => outcome === 'partial' || (outcome === 'nothing' && id !== null))).toEqual([])
  const evidence: Evidence = { sightings: crowd.sightings, served: await fleet.served(), books: readBooks(fleet.data_dir) }
  expect(audit(evidence)).toEqual([])
  expect(existsSync(join(fleet.data_dir, 'admin.json'))).toBe(false)
  const next = await startGateway(fleet)
  expect(next.process.stdout() + next.process.stderr()).not.toMatch(/had left open/)
  expect(await next.stop()).toEqual({ code: 0, signal: null })
  expect(readBooks(fleet.data_dir).events.filter(({ status }) => status === 'swept')).toEqual([])
})

it('a second SIGINT ends it at once, and what it cut is swept at the next start', async () => {
  const fleet = await newFleet()
  const gateway = await startGateway(fleet)
  const crowd = new Crowd(seededRandom(1))
  const endless = chatPlan({ stream: true, directives: { tokens: 300, token_delay_ms: 100 } })
  const stream = crowd.send({ url: gateway.url, key: gateway.demo_key ?? '' }, endless)
  await waitFor(() => readBooks(fleet.data_dir).open.length === 1, { timeout_ms: REST_TIMEOUT_MS, what: 'the stream to be admitted' })
  await sleep(300)
  gateway.process.kill('SIGINT')
  await waitFor(async () => (await readiness(gateway.url)) !== 200, { timeout_ms: REST_TIMEOUT_MS, what: 'the drain to begin' })
  // At once again it is the same request: a terminal signals the whole group.
  gateway.process.kill('SIGINT')
  await sleep(700)
  expect(gateway.process.child.exitCode).toBe(null)
  expect(await gateway.stop('SIGINT')).toEqual({ code: 130, signal: null })
  expect((await stream).outcome).toBe('partial')
  const next = await startGateway(fleet)
  expect(await next.stop()).toEqual({ code: 0, signal: null })
  const books = readBooks(fleet.data_dir)
  expect(books.events.map(({ status }) => status)).toEqual(['swept'])
  expect(audit({ sightings: crowd.sightings, served: await fleet.served(), books })).toEqual([])
})

/** Status of `/readyz`; 0 once nobody listens. */
async function readiness(url: string): Promise<number> {
  return fetch(`${url}/readyz`).then(
    (response) => response.status,
    () => 0,
  )
}

// ---------------------------------------------------------------- the auditor itself

const TOKENS = { input: 12, cached_input: 3, cache_write: 0, output: 20, reasoning: 4 }

function plainEvent(id: string, n: number, changes: Partial<AuditedEvent> = {}): AuditedEvent {
  const tokens = changes.tokens ?? TOKENS
  const amount = priceOf(CHAT_MODEL, tokens).toString()
  const parts = [{ grant: 'wallet:demo', unit: 'nano_cny', amount }]
  const known = {
    id,
    admitted_at: 0,
    tenant: 'demo',
    revision: 1,
    superseded: false,
    node: 'n-1',
    seq: n,
    model: CHAT_MODEL,
    status: 'completed',
    tags: { n: String(n) },
  }
  return { ...known, attempts: [{}], tokens, amount_nano: amount, parts, overrun_nano: '0', hold: { parts }, ...changes }
}

function plainRow(index: number, request_id: string, changes: Partial<ServedRow> = {}): ServedRow {
  const counted = { prompt_tokens: 15, cached_tokens: 3, sent_tokens: 20, reasoning_tokens: 4 }
  const known = { index, request_id, attempt: 1, path: '/v1/chat/completions', stream: true, model: CHAT_MODEL, started_at: 0, ended_at: 1 }
  return { ...known, ...counted, finished: true, aborted: false, status: 200, directive: 'answer', ...changes }
}

const usage = { prompt: 15, cached: 3, completion: 20 }
const plainSighting = (n: number, changes: Partial<Sighting> = {}): Sighting => ({
  n,
  id: `r${n}`,
  outcome: 'completed',
  code: null,
  usage,
  events: 22,
  pieces: 20,
  left: false,
  ...changes,
})

/** Two finished requests, one that was cut and swept, and one that an upstream refused: nothing to complain of. */
function cleanEvidence(change: (events: AuditedEvent[]) => readonly AuditedEvent[] = (events) => events): Evidence {
  const swept = plainEvent('r3', 3, { status: 'swept', tokens: { input: 15, cached_input: 0, cache_write: 0, output: 5, reasoning: 0 } })
  const sound = [plainEvent('r1', 1), plainEvent('r2', 2), swept]
  const spent = sound.reduce((sum, event) => sum + BigInt(event.amount_nano), 0n)
  const wallet = { tenant: 'demo', grant: 'wallet:demo', unit: 'nano_cny', credited: spent, left: 0n }
  const books = { open: [], unposted: [], unbalanced: [], sum_nano: 0n, grants: [wallet] }
  const events = change(sound)
  const cut = plainSighting(3, { outcome: 'partial', usage: null, events: 7, pieces: 6 })
  const refused = plainSighting(4, { outcome: 'refused', code: 'upstream_error', usage: null, events: 0, pieces: 0 })
  const served = [
    plainRow(0, 'r1'),
    plainRow(1, 'r2'),
    plainRow(2, 'r3', { sent_tokens: 7, finished: false, aborted: true }),
    plainRow(3, 'r4', { status: 429, sent_tokens: 0, finished: false }),
  ]
  return {
    sightings: [plainSighting(1), plainSighting(2), cut, refused],
    served,
    books: { ...books, events, numbering: numberingOf(events) },
  }
}

const CALL = { grant: 'calls', unit: 'requests', amount: '1' }

it('the auditor of these tests has nothing to say of sound books', () => {
  expect(audit(cleanEvidence())).toEqual([])
})

const replaced = (events: readonly AuditedEvent[], id: string, changes: Partial<AuditedEvent>): readonly AuditedEvent[] =>
  events.map((event) => (event.id === id ? { ...event, ...changes } : event))

it.each<readonly [string, (events: AuditedEvent[]) => readonly AuditedEvent[], RegExp]>([
  ['a missing event', (events) => events.filter(({ id }) => id !== 'r1'), /r1: completed and has no event/],
  ['a doubled event', (events) => [...events, plainEvent('r2', 4, { tags: { n: '2' } })], /r2: has two events/],
  ['an event of another id for the same request', (events) => [...events, plainEvent('r9', 4, { tags: { n: '2' } })], /another event too/],
  ['a mispriced event', (events) => replaced(events, 'r1', { amount_nano: '100' }), /r1: costs 100, its tokens/],
  ['a split that does not pay', (events) => replaced(events, 'r1', { parts: [] }), /r1: .*its parts sum up to 0/],
  [
    'a token too many',
    (events) => [...events.slice(1), plainEvent('r1', 1, { tokens: { ...TOKENS, output: 21 } })],
    /r1: is billed 21 tokens of output/,
  ],
  [
    'a token too few',
    (events) => [...events.slice(1), plainEvent('r1', 1, { tokens: { ...TOKENS, output: 19 } })],
    /r1: completed with 19 tokens/,
  ],
  [
    'a sweep beyond what was sent',
    (events) => [...events.slice(0, 2), plainEvent('r3', 3, { status: 'swept', tokens: { ...TOKENS, input: 12, output: 8 } })],
    /r3: is billed 8 tokens of output, sent were 7/,
  ],
  [
    'a sweep beyond what was delivered',
    (events) => [...events.slice(0, 2), plainEvent('r3', 3, { status: 'swept', tokens: { ...TOKENS, output: 7 } })],
    /r3: is billed 7 tokens, 6 were delivered/,
  ],
  ['a finished answer that was only swept', (events) => replaced(events, 'r1', { status: 'swept' }), /r1: completed, its event says swept/],
  ['a bill for a refusal', (events) => [...events, plainEvent('r4', 4)], /r4: was refused \(upstream_error\) and billed/],
  [
    'a bill for what the sandbox never saw',
    (events) => [...events, plainEvent('r7', 4)],
    /r7: is billed for an attempt that the sandbox never saw/,
  ],
  [
    'spending beyond what there was',
    (events) => [...events, plainEvent('r5', 4, { hold: { parts: [] } })],
    /tenant demo: spent \d+ nano_cny of \d+, with overruns of 0/,
  ],
  ['an overrun that was none', (events) => replaced(events, 'r1', { overrun_nano: '5' }), /r1: has an overrun of 5, beyond its hold are 0/],
  [
    'tokens that were held and did not pay',
    (events) => replaced(events, 'r1', { hold: { parts: [{ grant: 'pack', unit: 'tokens', amount: '10' }] } }),
    /r1: used 35 tokens, of 10 that were held 0 paid/,
  ],
  [
    'a request that pays in money too',
    (events) => replaced(events, 'r1', { hold: { parts: [CALL] } }),
    /r1: is paid by a request and more/,
  ],
  ['a gap in the journal', (events) => replaced(events, 'r3', { seq: 9 }), /the journal: numbered 3 events up to 9/],
])('the auditor of these tests reports %s', (_, plant, finding) => {
  expect(audit(cleanEvidence(plant)).join('\n')).toMatch(finding)
})
