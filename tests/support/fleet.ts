import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ServedPage, ServedRow } from '../../src/sandbox/tally.ts'
import { spawnNode, type ProcessExit, type SpawnedProcess } from './processes.ts'
import { waitFor } from './wait.ts'

const START_TIMEOUT_MS = 60_000
const SETTLE_TIMEOUT_MS = 30_000
const PAGE_ROWS = 10_000

/** Prices of a test in CNY per million tokens, six decimals each, so that removing the point gives pico-yuan per token. */
export interface TestPrices {
  readonly input: string
  readonly cached_input: string
  readonly output: string
}
/** What the tests charge: an odd price that needs rounding, and a dearer one for longer answers. */
export const CHAT_PRICES = { input: '1.234567', cached_input: '0.123457', output: '4.000003' } as const satisfies TestPrices
export const LONG_CHAT_PRICES = { input: '3.000001', cached_input: '0.300003', output: '9.123457' } as const satisfies TestPrices
export const EMBEDDING_PRICES = { input: '0.700001', cached_input: '0.700001', output: '0.000000' } as const satisfies TestPrices
/** Answers of more output tokens than this have {@link LONG_CHAT_PRICES}. */
export const LONG_ABOVE_TOKENS = 40
export const CHAT_MODEL = 'tide-chat'
export const EMBEDDING_MODEL = 'tide-embedding'

/** A sandbox in a process of its own, which outlives the gateways. */
export interface SandboxProcess {
  readonly url: string
  /** Its own count, once nothing that it serves is open any more. */
  served(): Promise<readonly ServedRow[]>
}

/** Starts a sandbox that ends with the test. */
export async function startSandboxProcess(): Promise<SandboxProcess> {
  const child = spawnNode('src/sandbox/main.ts', ['--port', '0'])
  const [, url = ''] = await child.waitForOutput(/listening on (http:\S+)/, START_TIMEOUT_MS)
  return { url, served: () => servedOnce(url) }
}

async function servedOnce(url: string): Promise<readonly ServedRow[]> {
  await waitFor(async () => (await page(url, 0, 1)).totals.open === 0, { timeout_ms: SETTLE_TIMEOUT_MS, what: 'the sandbox to be at rest' })
  const rows: ServedRow[] = []
  for (let since: number | null = 0; since !== null;) {
    const { served, next, oldest }: ServedPage = await page(url, since, PAGE_ROWS)
    if (oldest > since) throw new Error('the sandbox has forgotten rows')
    rows.push(...served)
    since = next
  }
  return rows
}

async function page(url: string, since: number, limit: number): Promise<ServedPage> {
  const response = await fetch(`${url}/sandbox/served?since=${since}&limit=${limit}`)
  return (await response.json()) as ServedPage
}

const pricesYaml = (prices: TestPrices): string =>
  Object.entries(prices)
    .map(([name, cny]) => `${name}: '${cny}'`)
    .join(', ')

function catalogueYaml(sandbox_url: string): string {
  return `providers:
  sandbox:
    zone: private
    timeouts: {connect_timeout_ms: 2000, headers_timeout_ms: 1000, first_event_timeout_ms: 1000, silence_timeout_ms: 1000}
models:
  ${CHAT_MODEL}:
    kind: chat
    owned_by: tests
    context_tokens: 100000
    max_output_tokens: 2000
    tokenizer: sandbox
    created: '2026-01-01'
    endpoints:
      - {id: tide/first, provider: sandbox, base_url: '${sandbox_url}/first/v1', tier: 1}
      - {id: tide/second, provider: sandbox, base_url: '${sandbox_url}/second/v1', tier: 2}
  ${EMBEDDING_MODEL}:
    kind: embeddings
    owned_by: tests
    context_tokens: 100000
    max_output_tokens: 0
    tokenizer: sandbox
    created: '2026-01-01'
    endpoints:
      - {id: tide/embedding, provider: sandbox, base_url: '${sandbox_url}/first/v1'}
`
}

function priceBookYaml(): string {
  const version = "version: 'tests-1', effective_from: '2026-01-01', source: tests, as_of: '2026-01-01'"
  const chat = `- {name: long, when: {output_above: ${LONG_ABOVE_TOKENS}}, ${pricesYaml(LONG_CHAT_PRICES)}}\n        - {name: base, ${pricesYaml(CHAT_PRICES)}}`
  return `calendar: {}
sell:
  ${CHAT_MODEL}:
    - ${version.replaceAll(', ', '\n      ')}
      rules:
        ${chat}
  ${EMBEDDING_MODEL}:
    - ${version.replaceAll(', ', '\n      ')}
      rules:
        - {name: base, ${pricesYaml(EMBEDDING_PRICES)}}
cost:
  tide/first:
    - ${version.replaceAll(', ', '\n      ')}
      rules:
        - {name: base, input: '0.5', output: '2'}
`
}

/** Writes the configuration of a gateway in front of this sandbox into `directory`, made if missing. */
export function writeConfiguration(directory: string, sandbox_url: string): void {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'catalogue.yaml'), catalogueYaml(sandbox_url))
  writeFileSync(join(directory, 'price-book.yaml'), priceBookYaml())
  // Small slices, so that streams outgrow their hold and extend it.
  writeFileSync(join(directory, 'weir.yaml'), 'limits: {slice_tokens: 64}\ndrain: {timeout_ms: 20000}\nlog: {level: warn}\n')
}

export interface GatewayFolders {
  readonly config_dir: string
  readonly data_dir: string
  /** More of its environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Another checkout to run than this one. */
  readonly root?: string
}

/** A gateway in a process of its own. */
export interface GatewayProcess {
  readonly url: string
  readonly admin_url: string
  /** Shown at the first start on a data directory only. */
  readonly demo_key: string | null
  readonly process: SpawnedProcess
  stop(signal?: NodeJS.Signals): Promise<ProcessExit>
}

/** Starts a gateway's process without waiting for it: for tests of starts that fail or are killed. */
export function spawnGateway({ config_dir, data_dir, env = {}, root }: GatewayFolders): SpawnedProcess {
  const no_proxy = { HTTP_PROXY: '', http_proxy: '', HTTPS_PROXY: '', https_proxy: '' }
  const folders = { WEIR_CONFIG_DIR: config_dir, WEIR_DATA_DIR: data_dir }
  const main = root === undefined ? 'src/main.ts' : join(root, 'src/main.ts')
  return spawnNode(main, [], { NODE_ENV: 'test', WEIR_PORT: '0', WEIR_ADMIN_PORT: '0', ...folders, ...no_proxy, ...env })
}

/** Starts a gateway on free ports and waits until it listens. It is killed when the test ends. */
export async function startGateway(folders: GatewayFolders): Promise<GatewayProcess> {
  const child = spawnGateway(folders)
  const [, admin_url = ''] = await child.waitForOutput(/Admin and metrics on (http:\S+)/, START_TIMEOUT_MS)
  await child.waitForOutput(/Try it:|Make a key with|has no gateway/, START_TIMEOUT_MS)
  const output = child.stdout()
  return {
    url: /Weir is listening on (http:\S+)/.exec(output)?.[1] ?? '',
    admin_url,
    demo_key: /^sk-weir-\S+$/m.exec(output)?.[0] ?? null,
    process: child,
    stop: (signal) => child.stop(signal),
  }
}
