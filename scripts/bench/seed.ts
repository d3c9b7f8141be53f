/** The data directory and the configuration that a benchmarked gateway starts with. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { systemClock } from '../../src/base/clock.ts'
import { hashKey } from '../../src/base/ids.ts'
import { walletOf } from '../../src/money/grant.ts'
import type { GrantRecord, KeyRecord, LimitSetting, TenantRecord } from '../../src/storage/records.ts'
import { openEmbedded, type Storage } from '../../src/storage/open.ts'

const TENANT = 'bench'
const PROJECT = 'default'
const MONEY_NANO = 1_000_000_000_000_000_000n

/** Limits of every kind that hold something back, set so high that nothing is. */
const LIMITS: readonly LimitSetting[] = [
  { kind: 'requests_per_minute', model: null, limit: '900000000', window: null },
  { kind: 'tokens_per_minute', model: null, limit: '900000000000', window: null },
  { kind: 'concurrency', model: null, limit: '1000000', window: null },
  { kind: 'amount_window', model: null, limit: '900000000000000000', window: 'month' },
]

export interface SeedOptions {
  readonly dir: string
  readonly upstream_port: number
  readonly keys: number
  readonly models: number
}

/** What a client of the seeded gateway may send. */
export interface Seed {
  readonly config_dir: string
  readonly data_dir: string
  readonly keys: readonly string[]
  /** Models answered as `/whole`. */
  readonly models: readonly string[]
}

/** Writes configuration and data for a gateway with so many keys and models. */
export async function seed(options: SeedOptions): Promise<Seed> {
  const config_dir = join(options.dir, 'config')
  const data_dir = join(options.dir, 'data')
  mkdirSync(config_dir, { recursive: true })
  const extra = Array.from({ length: options.models }, (_, index) => `whole-${index}`)
  writeConfiguration(config_dir, options.upstream_port, extra)
  const keys = Array.from({ length: options.keys }, (_, index) => `sk-weir-bench-${index}`)
  const storage = await openEmbedded({ data_dir, clock: systemClock(), commit_timeout_ms: 5000, keep_days: 7 })
  try {
    await seedTenant(storage)
  } finally {
    await storage.close()
  }
  seedKeys(data_dir, keys)
  return { config_dir, data_dir, keys, models: extra }
}

function writeConfiguration(config_dir: string, upstream_port: number, extra: readonly string[]): void {
  const paths = ['whole', 'burst', 'paced', 'idle']
  const models = [...paths.map((path) => ({ id: `bench-${path}`, path })), ...extra.map((id) => ({ id, path: 'whole' }))]
  const catalogue = models.map(({ id, path }) => [
    `  ${id}:`,
    '    {kind: chat, owned_by: bench, context_tokens: 131072, max_output_tokens: 8192, tokenizer: qwen3, created: "2026-01-01",',
    `    endpoints: [{provider: vllm, id: e/${id}, base_url: "http://127.0.0.1:${upstream_port}/${path}/v1", api_key: upstream-secret}]}`,
  ])
  const version = `version: "1", effective_from: "2026-01-01", source: bench, as_of: "2026-01-01"`
  const price = (subject: string): string =>
    `  ${subject}: [{${version}, rules: [{name: all, input: "2", cached_input: "0.5", output: "8"}]}]`
  const sell = models.map(({ id }) => price(id))
  const cost = models.map(({ id }) => price(`e/${id}`))
  const limits = '{max_open_requests: 10000, upstream_connections_per_origin: 20000, tenant_share_percent: 100, max_connections: 20000}'
  writeFileSync(join(config_dir, 'weir.yaml'), `limits: ${limits}\ndrain: {delay_ms: 0, timeout_ms: 100}\n`)
  writeFileSync(join(config_dir, 'catalogue.yaml'), ['models:', ...catalogue.flat(), ''].join('\n'))
  writeFileSync(join(config_dir, 'price-book.yaml'), ['calendar: {}', 'sell:', ...sell, 'cost:', ...cost, ''].join('\n'))
}

async function seedTenant({ records, ledger }: Storage): Promise<void> {
  const created_at = Date.now()
  const tenant: TenantRecord = {
    ...{ id: TENANT, name: TENANT, audience: 'internal', status: 'active', locale: 'en', time_zone: 'Asia/Shanghai', zones: ['private'] },
    ...{
      on_client_abort: 'cancel',
      on_limits_away: 'closed',
      priority: 'normal',
      queue_weight: 1,
      credit_line_nano: 0n,
      limits: LIMITS,
      created_at,
    },
  }
  const wallet: GrantRecord = {
    ...{ id: walletOf(TENANT), tenant: TENANT, kind: 'wallet', unit: 'nano_cny', amount: 0n, priority: 100 },
    ...{ models: null, weights: null, expires_at: null, created_at },
  }
  await records.put({ kind: 'tenant', record: tenant })
  await records.put({ kind: 'project', record: { id: PROJECT, tenant: TENANT, name: PROJECT, limits: [], zones: null, created_at } })
  await records.put({ kind: 'grant', record: wallet })
  await ledger.transact({
    ...{ id: 'bench-money', at: created_at, kind: 'top_up', note: 'money for the benchmark' },
    entries: [
      { account: { code: 'cash_clearing', owner: TENANT, ref: '', unit: 'nano_cny' }, amount: MONEY_NANO },
      { account: { code: 'wallet_liability', owner: TENANT, ref: wallet.id, unit: 'nano_cny' }, amount: -MONEY_NANO },
    ],
  })
}

/** Straight into the table, in one statement: one by one through the port would take longer than the benchmark. */
function seedKeys(data_dir: string, secrets: readonly string[]): void {
  const database = new DatabaseSync(join(data_dir, 'weir.db'))
  const limits: KeyRecord['limits'] = LIMITS.slice(0, 3)
  database.exec('PRAGMA synchronous = OFF; PRAGMA cache_size = -200000')
  database.function('hash_of', { deterministic: true }, (index) => hashKey(secrets[Number(index)] ?? ''))
  database
    .prepare(
      'WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) ' +
        'INSERT INTO keys (id, tenant, project, name, hash, last4, scopes, models, zones, limits, expires_at, revoked_at, created_at) ' +
        "SELECT printf('k%07d', i), ?, ?, 'k' || i, hash_of(i), substr('0000' || i, -4), '[]', NULL, NULL, ?, NULL, NULL, ? FROM n",
    )
    .run(secrets.length, TENANT, PROJECT, JSON.stringify(limits), Date.now())
  database.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  database.close()
}
