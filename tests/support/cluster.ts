import { appendFileSync, existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect } from 'vitest'
import type { AuditedEvent, AuditedGrant, Books } from './audit.ts'
import { type GatewayProcess, startGateway, startSandboxProcess, type SandboxProcess, writeConfiguration } from './fleet.ts'
import { noPostgres, type PostgresServer } from './postgres.ts'
import { spawnNode, type SpawnedProcess } from './processes.ts'
import { REDIS_PROGRAM } from './redis.ts'
import { tempDir } from './temp.ts'
import { waitFor } from './wait.ts'

const TOKEN = 'admin-token-of-a-fleet'
const REST_TIMEOUT_MS = 60_000
const KNOWN_TIMEOUT_MS = 10_000

/** Why tests of whole clusters must be skipped; null where both servers are there. */
export const noCluster: string | null = noPostgres ?? (REDIS_PROGRAM === null ? 'no redis-server is installed' : null)

export interface FleetOptions {
  readonly redis_url: string
  readonly postgres: PostgresServer
  /** Where machines find PostgreSQL, if not at the server itself. */
  readonly database_url?: string
  /** More of `weir.yaml`, as lines of YAML. */
  readonly settings?: string
}

export interface MachineOptions {
  readonly roles?: string
  readonly workers?: number
  readonly redis_url?: string
  readonly database_url?: string
  readonly env?: Readonly<Record<string, string>>
  /** Another checkout than this one, with the release that the machine runs. */
  readonly root?: string
}

/** Machines that share one Redis and one PostgreSQL, with a sandbox that outlives them. A machine is a folder: its processes come and go. */
export interface Fleet {
  readonly config_dir: string
  readonly sandbox: SandboxProcess
  readonly postgres: PostgresServer
  /** Starts what the machine of this name is to run; again after it has ended. */
  start(name: string, options?: MachineOptions): Promise<GatewayProcess>
  /** Folders of every journal that there is. */
  journals(): readonly string[]
  folderOf(name: string): string
  books(): Promise<Books>
  /** Waits until nothing is open and everything is posted. */
  rest(control: GatewayProcess): Promise<void>
  /** Starts `weir` on a machine, to be waited for or killed. */
  spawnWeir(name: string, ...args: readonly string[]): SpawnedProcess
  /** Runs `weir` on a machine. */
  weir(name: string, ...args: readonly string[]): Promise<{ readonly code: number | null; readonly said: string }>
  /** `weir audit` on a machine that has the control plane, the sandbox's count included, finds nothing. */
  expectAudit(name: string): Promise<void>
}

export async function newFleet({ redis_url, postgres, database_url, settings = '' }: FleetOptions): Promise<Fleet> {
  const base = tempDir()
  const sandbox = await startSandboxProcess()
  const config_dir = join(base, 'config')
  writeConfiguration(config_dir, sandbox.url)
  if (settings !== '') appendFileSync(join(config_dir, 'weir.yaml'), settings)
  const default_database_url = database_url ?? (await postgres.url())
  const folderOf = (name: string): string => join(base, 'machines', name)
  const envOf = (options: MachineOptions): Record<string, string> => ({
    WEIR_REDIS_URL: options.redis_url ?? redis_url,
    WEIR_DATABASE_URL: options.database_url ?? default_database_url,
    WEIR_ADMIN_TOKEN: TOKEN,
    ...(options.roles === undefined ? {} : { WEIR_ROLES: options.roles }),
    ...(options.workers === undefined ? {} : { WEIR_WORKERS: String(options.workers) }),
    ...options.env,
  })
  const machines = new Map<string, MachineOptions>()
  const journals = (): readonly string[] =>
    [...machines.keys()].flatMap((name) => {
      const folder = folderOf(name)
      if (!existsSync(folder)) return []
      return readdirSync(folder)
        .filter((entry) => entry.startsWith('slot-'))
        .map((slot) => join(folder, slot))
    })
  const books = (): Promise<Books> => readClusterBooks(postgres, journals())
  const spawnWeir: Fleet['spawnWeir'] = (name, ...args) => {
    const folders = { WEIR_CONFIG_DIR: config_dir, WEIR_DATA_DIR: folderOf(name) }
    return spawnNode('src/cli.ts', args, { NODE_ENV: 'test', ...folders, ...envOf(machines.get(name) ?? {}) })
  }
  const weir: Fleet['weir'] = async (name, ...args) => {
    const command = spawnWeir(name, ...args)
    const { code } = await command.exited
    return { code, said: `${command.stdout()}${command.stderr()}` }
  }
  return {
    config_dir,
    sandbox,
    postgres,
    folderOf,
    journals,
    books,
    start: (name, options = {}) => {
      machines.set(name, options)
      const { root } = options
      return startGateway({ config_dir, data_dir: folderOf(name), env: envOf(options), ...(root === undefined ? {} : { root }) })
    },
    rest: (control) => rest(control, books),
    spawnWeir,
    weir,
    expectAudit: async (name) => {
      const { code, said } = await weir(name, 'audit', '--sandbox', sandbox.url)
      expect(said).toContain('Everything agrees.')
      expect(code).toBe(0)
    },
  }
}

/** `GET` (or, with a body, `POST`) below `/admin/v1` of a machine that has the control plane. */
export async function admin(machine: GatewayProcess, path: string, body?: object, method?: string): Promise<unknown> {
  const headers = { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' }
  const init = body === undefined ? {} : { body: JSON.stringify(body) }
  const response = await fetch(`${machine.admin_url}/admin/v1${path}`, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    headers,
    ...init,
  })
  const answer: unknown = await response.json()
  expect([path, response.ok, answer]).toEqual([path, true, answer])
  return answer
}

/** A new tenant with money and a key. */
export async function newTenant(control: GatewayProcess, id: string, amount_cny: string, more: object = {}): Promise<string> {
  await admin(control, '/tenants', { id, audience: 'internal', ...more })
  if (amount_cny !== '0') await admin(control, `/tenants/${id}/credit`, { id: 'opening', amount_cny })
  const { secret } = (await admin(control, '/keys', { tenant: id })) as { readonly secret: string }
  return secret
}

/** Waits until these gateways have heard of a key. */
export async function knownTo(gateways: readonly GatewayProcess[], key: string): Promise<void> {
  const knows = async ({ url }: GatewayProcess): Promise<boolean> =>
    (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).ok
  for (const gateway of gateways) await waitFor(() => knows(gateway), { timeout_ms: KNOWN_TIMEOUT_MS, what: 'a gateway to know a key' })
}

async function rest(control: GatewayProcess, books: () => Promise<Books>): Promise<void> {
  await waitFor(async () => openHolds(await (await fetch(`${control.admin_url}/metrics`)).text()) === 0, {
    timeout_ms: REST_TIMEOUT_MS,
    what: 'every hold to be closed',
  })
  await waitFor(async () => (await books()).unposted.length === 0, { timeout_ms: REST_TIMEOUT_MS, what: 'every event to be posted' })
}

function openHolds(metrics: string): number {
  return Number(/^weir_open_holds (\d+)$/m.exec(metrics)?.[1] ?? Number.NaN)
}

interface JournalRows {
  readonly open: readonly string[]
  readonly closed: ReadonlyArray<{ readonly id: string; readonly revision: number; readonly body: string }>
}

function readJournal(folder: string): JournalRows {
  const database = new DatabaseSync(join(folder, 'weir.db'), { readOnly: true, timeout: 5000 })
  try {
    const open = database.prepare(
      "SELECT id FROM journal AS s WHERE kind = 'S' AND NOT EXISTS (SELECT 1 FROM journal AS c WHERE c.id = s.id AND c.kind IN ('U', 'R'))",
    )
    const closed = database.prepare("SELECT id, revision, body FROM journal WHERE kind = 'U'")
    return {
      open: open.all().map((row) => String(row['id'])),
      closed: closed.all().map((row) => ({ id: String(row['id']), revision: Number(row['revision']), body: String(row['body']) })),
    }
  } finally {
    database.close()
  }
}

/** What PostgreSQL and the journals of all machines say, read straight from their tables. */
async function readClusterBooks(postgres: PostgresServer, folders: readonly string[]): Promise<Books> {
  const sql = (text: string): Promise<readonly Record<string, unknown>[]> => postgres.sql(`SET search_path TO weir; ${text}`)
  const rows = await sql('SELECT body, superseded FROM events')
  const events = rows.map((row) => ({
    ...(JSON.parse(String(row['body'])) as Omit<AuditedEvent, 'superseded'>),
    superseded: Number(row['superseded']) !== 0,
  }))
  const superseded = (await sql('SELECT node, seq FROM superseded_numbers')).map((row) => ({
    node: String(row['node']),
    seq: Number(row['seq']),
  }))
  const journals = folders.map(readJournal)
  const bodies = new Map(rows.map((row) => [String(row['body']), true]))
  const elsewhere = new Set(superseded.map(({ node, seq }) => `${node} ${seq}`))
  const unposted = journals
    .flatMap(({ closed }) => closed)
    .filter(({ body }) => {
      const { node, seq } = JSON.parse(body) as AuditedEvent
      return !bodies.has(body) && !elsewhere.has(`${node} ${seq}`)
    })
  const ended = new Set(events.map(({ id }) => id))
  const balances = await sql(
    "SELECT e.owner, e.ref, e.unit, (-SUM(CASE WHEN t.kind = 'usage' THEN 0 ELSE e.amount END))::text AS credited, (-SUM(e.amount))::text AS left_over " +
      'FROM ledger_entries AS e JOIN ledger_transactions AS t ON t.id = e.transaction_id ' +
      "WHERE e.code IN ('wallet_liability', 'prepaid_grant', 'contract_commitment') GROUP BY e.owner, e.ref, e.unit",
  )
  const [sum] = await sql("SELECT COALESCE(SUM(amount), 0)::text AS sum FROM ledger_entries WHERE unit = 'nano_cny'")
  const unbalanced = await sql('SELECT transaction_id AS id FROM ledger_entries GROUP BY transaction_id, unit HAVING SUM(amount) <> 0')
  return {
    events,
    // What another node has closed is open in the journal of the one that died, until that one is back.
    open: journals.flatMap(({ open }) => open).filter((id) => !ended.has(id)),
    unposted: unposted.map(({ id }) => id),
    unbalanced: unbalanced.map((row) => String(row['id'])),
    sum_nano: BigInt(typeof sum?.['sum'] === 'string' ? sum['sum'] : '0'),
    grants: balances.map(grantFrom),
    numbering: numberingOf([...events, ...superseded]),
  }
}

function grantFrom(row: Record<string, unknown>): AuditedGrant {
  const [credited, left] = [BigInt(String(row['credited'])), BigInt(String(row['left_over']))]
  return { tenant: String(row['owner']), grant: String(row['ref']), unit: String(row['unit']), credited, left }
}

/** Every journal's numbers from 1 on are in the ledger, as events or as superseded by others. */
function numberingOf(numbered: ReadonlyArray<{ readonly node: string; readonly seq: number }>): readonly string[] {
  return [...Map.groupBy(numbered, ({ node }) => node)].flatMap(([node, own]) => {
    const numbers = new Set(own.map(({ seq }) => seq))
    const last = Math.max(0, ...numbers)
    if (numbers.size === last && own.length === last) return []
    const missing = Array.from({ length: last }, (_, index) => index + 1).filter((number) => !numbers.has(number))
    return [`of ${node} numbered ${own.length} events up to ${last}; missing are ${missing.slice(0, 5).join(', ')}`]
  })
}
