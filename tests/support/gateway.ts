import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PartialDirectives } from '../../src/sandbox/directives.ts'
import { startSandbox, type Sandbox } from '../../src/sandbox/server.ts'
import type { UsageEvent } from '../../src/money/event.ts'
import { assemble, type Account, type AccountOptions, type Assembled } from './assemble.ts'
import { atEnd } from './cleanup.ts'
import { tempDir } from './temp.ts'
import { waitFor } from './wait.ts'

type Members = Readonly<Record<string, unknown>>

export interface GatewayOptions extends AccountOptions {
  /** What the sandbox does unless a request says otherwise. */
  readonly sandbox?: PartialDirectives
  /** Of every endpoint; what is left out is long. */
  readonly timeouts?: Members
  /** Members of `weir.yaml`. */
  readonly settings?: Members
  /** Changes to the models of {@link modelsAt}, by id. A model that is not among them and has no kind is a chat model at `/<its id>`. */
  readonly models?: Readonly<Record<string, Members>>
  /** Virtual models of `routes.yaml`, by name; without them there is no such file. */
  readonly routes?: Readonly<Record<string, Members>>
  /** Numbers of the registry, of 2026-08-24; by default those that {@link models} name. */
  readonly filings?: readonly string[]
  readonly providers?: Readonly<Record<string, Members>>
  /** More members of endpoints, by id. */
  readonly endpoints?: Readonly<Record<string, Members>>
  /** Origin in front of endpoints instead of the sandbox's. */
  readonly upstream?: string
}

/** A gateway of one test with its sandbox and one account; everything is stopped when the test ends. */
export interface TestGateway extends Assembled {
  readonly sandbox: Sandbox
  /** Of {@link GatewayOptions}' account. */
  readonly key: string
  readonly tenant: string
  readonly main_account: Account
  readonly config_dir: string
  readonly data_dir: string
  /** `POST` with the account's key, unless another is given. */
  post(path: string, body: unknown, headers?: Readonly<Record<string, string>>): Promise<Response>
  chat(body: Members, headers?: Readonly<Record<string, string>>): Promise<Response>
  get(path: string, key?: string): Promise<Response>
  /** The event of a request, posted first; null if there is none. */
  event(id: string | null): Promise<UsageEvent | null>
  /** Waits until nothing is open, then throws unless ledger, journal, limits and metrics agree. */
  audit(): Promise<{ readonly events: number; readonly amount_nano: bigint }>
  /** Writes the price book again with this version of `solo` added, to be in force from now on. */
  reprice(version: string, input: string, output: string): void
}

/** Price of every chat model: CNY per million tokens. */
export const INPUT_CNY = '2'
export const OUTPUT_CNY = '8'
/** The same in nano-yuan per token. */
export const INPUT_NANO = 2000n
export const OUTPUT_NANO = 8000n

const EVERYTHING_ENDS_MS = 20_000

/** Starts a sandbox and a gateway in front of it. */
export async function startGateway(options: GatewayOptions = {}): Promise<TestGateway> {
  const sandbox = await startSandbox({ port: 0, ...(options.sandbox === undefined ? {} : { defaults: options.sandbox }) })
  atEnd(() => sandbox.close())
  const { config_dir, data_dir } = writeConfiguration(options.upstream ?? sandbox.url, options)
  const assembled = await assemble({ config_dir, data_dir })
  atEnd(() => assembled.close())
  const main_account = await assembled.account(options)
  const { secret } = main_account
  const post: TestGateway['post'] = (path, body, headers = {}) =>
    fetch(assembled.url + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
  return {
    ...assembled,
    sandbox,
    key: secret,
    tenant: main_account.tenant,
    main_account,
    config_dir,
    data_dir,
    post,
    chat: (body, headers) => post('/v1/chat/completions', { model: 'solo', messages: HELLO, ...body }, headers),
    get: (path, key = secret) => fetch(assembled.url + path, { headers: { authorization: `Bearer ${key}` } }),
    event: async (id) => {
      await assembled.storage.ledger.post()
      return id === null ? null : assembled.storage.ledger.event(id)
    },
    audit: () => audit(assembled),
    reprice: (version, input, output) => writePrices(config_dir, options, [priceVersion(version, '2026-01-02', input, output)]),
  }
}

/** The prompt of {@link TestGateway.chat}. */
export const HELLO = [{ role: 'user', content: 'hello' }]

/** The directories of a gateway whose endpoints are below `origin`. */
export function writeConfiguration(
  origin: string,
  options: Pick<GatewayOptions, 'models' | 'providers' | 'endpoints' | 'routes' | 'settings' | 'timeouts' | 'filings'>,
): { config_dir: string; data_dir: string } {
  const root = tempDir()
  const config_dir = join(root, 'config')
  mkdirSync(config_dir)
  // JSON is YAML.
  const write = (file: string, value: unknown): void => writeFileSync(join(config_dir, file), JSON.stringify(value))
  write('weir.yaml', { drain: { delay_ms: 0, timeout_ms: 20_000 }, ...options.settings })
  const catalogue = { providers: options.providers ?? {}, models: modelsAt(origin, options) }
  write('catalogue.yaml', catalogue)
  const named = [...JSON.stringify(catalogue).matchAll(/"number":"([^"]+)"/g)].map(([, number = '']) => number)
  if (options.filings !== undefined || named.length > 0) writeFilings(config_dir, options.filings ?? [...new Set(named)])
  if (options.routes !== undefined) write('routes.yaml', { models: options.routes })
  writePrices(config_dir, options, [])
  return { config_dir, data_dir: join(root, 'data') }
}

/**
 * `solo` (alias `fast`) is served at `/a` alone, `pair` at `/a` and, when that fails, at `/b`; `embed` makes embeddings.
 * Upstreams know `solo` and `pair` as `up-solo` and `up-pair`.
 */
function modelsAt(
  origin: string,
  { models = {}, endpoints = {}, timeouts = {} }: Pick<GatewayOptions, 'models' | 'endpoints' | 'timeouts'>,
): Members {
  const endpoint = (id: string, prefix: string, upstream_model: string, tier: number): Members => ({
    id,
    provider: 'sandbox',
    base_url: `${origin}/${prefix}/v1`,
    upstream_model,
    tier,
    timeouts,
    ...endpoints[id],
  })
  const shared = { owned_by: 'test', tokenizer: 'sandbox', created: '2026-01-01' }
  const chat = { ...shared, kind: 'chat', context_tokens: 2_000_000, max_output_tokens: 1_000_000 }
  const known: Record<string, Members> = {
    solo: { ...chat, aliases: ['fast'], endpoints: [endpoint('solo-a', 'a', 'up-solo', 1)] },
    pair: { ...chat, endpoints: [endpoint('pair-a', 'a', 'up-pair', 1), endpoint('pair-b', 'b', 'up-pair', 2)] },
    embed: {
      ...shared,
      kind: 'embeddings',
      context_tokens: 100_000,
      max_output_tokens: 0,
      endpoints: [endpoint('embed-a', 'a', 'embed', 1)],
    },
  }
  const new_model = (id: string): Members => ({ ...chat, endpoints: [endpoint(id, id, id, 1)] })
  for (const [id, changes] of Object.entries(models))
    known[id] = { ...(known[id] ?? (changes['kind'] === undefined && changes['profile'] === undefined ? new_model(id) : {})), ...changes }
  return known
}

/** The registry; `Of <number> 公司` filed each. */
export function writeFilings(config_dir: string, numbers: readonly string[]): void {
  const rows = numbers.map((number) => `${number},Name of ${number},Of ${number} 公司,北京市,2024-01-02,test\n`)
  writeFileSync(join(config_dir, 'filings.csv'), `# as_of: 2026-08-24\nnumber,name,entity,province,filed_on,source\n${rows.join('')}`)
}

function priceVersion(version: string, effective_from: string, input: string, output: string): Members {
  const rules = [{ name: 'all', input, output }]
  return { version, effective_from, source: 'test', as_of: '2026-01-01', rules }
}

function writePrices(config_dir: string, { models = {} }: Pick<GatewayOptions, 'models'>, more_of_solo: readonly Members[]): void {
  const first = priceVersion('v1', '2026-01-01', INPUT_CNY, OUTPUT_CNY)
  const sell: Record<string, readonly Members[]> = {}
  for (const id of new Set(['solo', 'pair', 'embed', ...Object.keys(models)])) sell[id] = [first]
  sell['solo'] = [first, ...more_of_solo]
  // Endpoints that a test has put in their place have other ids.
  const cost =
    models['pair']?.['endpoints'] !== undefined
      ? {}
      : { 'pair-a': [priceVersion('v1', '2026-01-01', '1', '4')], 'pair-b': [priceVersion('v1', '2026-01-01', '3', '6')] }
  writeFileSync(join(config_dir, 'price-book.yaml'), JSON.stringify({ calendar: {}, sell, cost }))
}

async function audit({ storage, plane }: Assembled): Promise<{ events: number; amount_nano: bigint }> {
  const { limits, ledger } = storage
  const nothingOpen = async (): Promise<boolean> => plane.open.total === 0 && (await limits.openHolds()) === 0
  await waitFor(nothingOpen, { timeout_ms: EVERYTHING_ENDS_MS, what: 'every request to end and every hold to close' })
  await waitFor(async () => (await ledger.auditFacts()).open_requests.length === 0, {
    timeout_ms: EVERYTHING_ENDS_MS,
    what: 'every open journal row to be closed',
  })
  await ledger.post()
  const { events, amount_nano, balances: _, ...wrong } = await ledger.auditFacts()
  const found = Object.entries(wrong).filter(([, ids]) => ids.length > 0)
  if (found.length > 0) throw new Error(`the audit found ${JSON.stringify(found)}`)
  await compareBalances(storage)
  return { events, amount_nano }
}

/** The wallets that admission knows against those of the ledger. */
async function compareBalances({ limits, ledger }: Assembled['storage']): Promise<void> {
  for (const { account, amount } of await ledger.balances()) {
    if (account.code !== 'wallet_liability') continue
    const { grants } = await limits.balance(account.owner)
    const known = grants.find(({ id }) => id === account.ref)
    if (known?.held !== 0n) throw new Error(`${account.ref} still holds ${known?.held}`)
    const ledger_nano = -amount
    if (known.balance !== ledger_nano) throw new Error(`${account.ref} is ${known.balance} at admission and ${ledger_nano} in the ledger`)
  }
}
