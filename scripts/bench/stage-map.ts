/** From a CPU profile to stages of a request. Pure. */
import type { Profile } from './inspector.ts'

/** Which stage a file of src belongs to: the first pattern that matches the path within src. */
export type StageRules = ReadonlyArray<readonly [path: RegExp, stage: string]>

export const MAIN_RULES: StageRules = [
  [/^storage\/journal\//, 'journal: rows handed over, commits heard'],
  [/^storage\/memory\//, 'admit, settle: limits'],
  [/^money\/event-json/, 'event and row as JSON'],
  [/^gateway\/(ingress|serve|broken-http|cors|call|open-calls|keepalive|refus\w+)\.ts/, 'ingress'],
  [/^gateway\/(authenticate|keys)\.ts/, 'authenticate'],
  [/^gateway\/(body|request)\.ts/, 'body and request'],
  [/^(gateway\/(route|snapshot)\.ts|routing\/)/, 'route'],
  [/^gateway\/quote\.ts/, 'quote'],
  [/^gateway\/admit\.ts/, 'admit: rules, prices, row'],
  [/^(gateway\/(forward|attempt|outbound|progress)|upstream\/(pool|proxy|breaker|transport-failure|classify|failure))\.ts/, 'forward'],
  [/^gateway\/(relay|reply|headers)\.ts/, 'relay'],
  [/^(gateway\/meter\.ts|upstream\/(dialects\/|sse\.ts))/, 'meter: dialect'],
  [/^gateway\/(settle|lease|ticker|ending)\.ts/, 'settle'],
  [/^observe\//, 'metrics and log'],
]

export const WRITER_RULES: StageRules = [
  [/^storage\/journal\/rows\.ts/, 'rows into SQLite'],
  [/^(storage\/(sql\/|accounts)|money\/)/, 'posting and rollups'],
  [/^storage\/journal\//, 'batches and messages'],
]

/** Functions without a file, native ones, that are a stage of their own wherever they are called from. */
const NATIVE: ReadonlyMap<string, string> = new Map([
  ...['writev', 'writeBuffer', 'writeUtf8String', 'writeLatin1String', 'writeAsciiString', 'shutdown'].map((name): [string, string] => [
    name,
    'writing to sockets',
  ]),
  ['postMessage', 'waking the other thread'],
])
/** COMMIT and the few other statements without parameters. */
const COMMIT = 'exec'

const SOURCE = /^file:\/\/.*?\/src\/((?:[\w-]+\/)*[\w-]+\.ts)$/
const LIBRARIES: StageRules = [
  [/node_modules\/undici\/|^wasm:/, 'forward'],
  [/node_modules\/@?hono/, 'ingress'],
  [/node_modules\/(pino|prom-client)/, 'metrics and log'],
  [/^node:(_http|internal\/http|https?$|_http_\w+)/, 'Node: HTTP'],
  [/^node:(net|internal\/stream_base_commons|internal\/net)/, 'Node: sockets'],
  [/^node:(internal\/)?(timers|process\/task_queues|async|per_context)/, 'Node: timers, queues, messages'],
  [/^node:/, 'Node: other'],
]

export interface StageHits {
  readonly hits: number
  /** Of these in the stage's own source, the rest in what it calls. */
  readonly own: number
}
export interface Attribution {
  readonly stages: ReadonlyMap<string, StageHits>
  /** Samples in which the thread did something. */
  readonly busy: number
}

/**
 * Self time by stage, in samples. A frame that is in no file of a stage (libraries, Node, native functions, `src/base`) counts for the
 * nearest frame above it that is; without one, for the library it is in. Samples are counted, not the time between them: a thread
 * that waits, for a disk or for its turn on the core, is not sampled meanwhile.
 */
export function attribute({ nodes }: Profile, rules: StageRules): Attribution {
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const children = new Set(nodes.flatMap((node) => node.children ?? []))
  const stages = new Map<string, StageHits>()
  let busy = 0
  const walk = (id: number, above: string | null): void => {
    const node = byId.get(id)
    if (node === undefined) return
    const { functionName: name, url } = node.callFrame
    const here = ruleFor(rules, SOURCE.exec(url)?.[1] ?? '')
    const stage = stageOf(name, url, here ?? above)
    const hits = node.hitCount ?? 0
    if (stage !== null && hits > 0) {
      busy += hits
      const known = stages.get(stage) ?? { hits: 0, own: 0 }
      stages.set(stage, { hits: known.hits + hits, own: known.own + (here === null ? 0 : hits) })
    }
    for (const child of node.children ?? []) walk(child, here ?? above)
  }
  for (const { id } of nodes) if (!children.has(id)) walk(id, null)
  return { stages, busy }
}

function stageOf(name: string, url: string, nearest: string | null): string | null {
  if (name === '(idle)') return null
  if (name === '(garbage collector)') return 'garbage collection'
  if (name === '(program)' || name === '(root)') return 'native, no JavaScript on the stack'
  if (url === '' && name === COMMIT && nearest === 'rows into SQLite') return 'commit with fsync'
  const native = url === '' ? NATIVE.get(name) : undefined
  return native ?? nearest ?? ruleFor(LIBRARIES, url) ?? 'other'
}

function ruleFor(rules: StageRules, path: string): string | null {
  return rules.find(([pattern]) => pattern.test(path))?.[1] ?? null
}

/** The functions with most self time: name, place, samples. */
export function hottest({ nodes }: Profile, count: number): ReadonlyArray<readonly [name: string, hits: number]> {
  const functions = new Map<string, number>()
  for (const { callFrame, hitCount = 0 } of nodes) {
    if (callFrame.functionName === '(idle)' || hitCount === 0) continue
    const place = callFrame.url.replace(/^.*\/(src|node_modules)\//, '$1/')
    const name = `${callFrame.functionName || '(anonymous)'} ${place}${place === '' ? '' : `:${callFrame.lineNumber + 1}`}`.trim()
    functions.set(name, (functions.get(name) ?? 0) + hitCount)
  }
  return [...functions].toSorted((a, b) => b[1] - a[1]).slice(0, count)
}
