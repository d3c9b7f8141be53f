import { randomBytes } from 'node:crypto'
import { systemClock, type Clock } from '../../src/base/clock.ts'
import type { MasterKeys } from '../../src/base/envelope.ts'
import type { Configuration } from '../../src/config/model.ts'
import { createControlApi, type ControlDeps, type ReloadOutcome } from '../../src/control/api.ts'
import { windowAround } from '../../src/money/window.ts'
import { createLogger } from '../../src/observe/log.ts'
import { createMetrics } from '../../src/observe/metrics.ts'
import { rebuildLimits } from '../../src/storage/memory/rebuild.ts'
import { NO_NODES } from '../../src/storage/nodes.ts'
import { openEmbedded, type EmbeddedStorage } from '../../src/storage/open.ts'
import { atEnd } from './cleanup.ts'

export const ADMIN_TOKEN = 'admin-token-of-a-test'

export interface Answer {
  readonly status: number
  readonly body: Record<string, unknown>
  readonly text: string
}

/** A control plane on real storage, called in this process. */
export interface TestControl {
  readonly deps: ControlDeps
  readonly storage: EmbeddedStorage
  call(method: string, path: string, body?: unknown): Promise<Answer>
  /** Closes storage, as a stop would. Also runs when the test ends. */
  close(): Promise<void>
}

export interface TestControlOptions {
  readonly clock?: Clock
  readonly configuration?: Configuration
  readonly reload?: () => Promise<ReloadOutcome>
  readonly master_keys?: MasterKeys | null
}

/** Opens a data directory with limits rebuilt from its ledger, as a start does, and the admin API on it. */
export async function openControl(data_dir: string, options: TestControlOptions = {}): Promise<TestControl> {
  const clock = options.clock ?? systemClock()
  const storage = await openEmbedded({ data_dir, clock, commit_timeout_ms: 5000, keep_days: 7 })
  let closing: Promise<void> | null = null
  const close = (): Promise<void> => (closing ??= storage.close())
  atEnd(close)
  await storage.ledger.post()
  await rebuildLimits(storage.limits, storage.records, storage.ledger, { clock, windowAt: windowAround })
  const deps: ControlDeps = {
    ...storage,
    nodes: NO_NODES,
    clock,
    random: randomBytes,
    metrics: createMetrics({ openHolds: () => storage.limits.openHolds() }),
    logger: createLogger({ level: 'error' }),
    token: ADMIN_TOKEN,
    configuration: () => options.configuration ?? null,
    master_keys: options.master_keys ?? null,
    knowsModel: (name) => ['qwen3-max', 'sandbox-chat'].includes(name),
    modelOf: (name) => (['qwen3-max', 'sandbox-chat', 'text-embedding-v4'].includes(name) ? name : name === 'qwen' ? 'qwen3-max' : null),
    kindOf: (model) => (model === 'text-embedding-v4' ? 'embeddings' : 'chat'),
    reload: options.reload ?? (() => Promise.resolve({ ok: true, digest: 'abc' })),
  }
  const app = createControlApi(deps)
  const call = async (method: string, path: string, body?: unknown): Promise<Answer> => {
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json' }
    const response = await app.request(path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
    const text = await response.text()
    return { status: response.status, text, body: JSON.parse(text) as Record<string, unknown> }
  }
  return { deps, storage, call, close }
}
