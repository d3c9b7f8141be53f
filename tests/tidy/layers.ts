import type { Import, Rule, SourceFile } from './source.ts'

/**
 * What each layer of src may import, lower layers first; `types` may be imported for their types only.
 * base ← money ← storage/ports ← {upstream, routing, storage, observe, config} ← {gateway, control, worker, sandbox} ← entries.
 * Same as in ARCHITECTURE.md, and changed together with it.
 */
const LAYERS: Readonly<
  Record<string, { readonly files: RegExp; readonly imports: readonly string[]; readonly types?: readonly string[] }>
> = {
  base: { files: /^src\/base\//, imports: [] },
  money: { files: /^src\/money\//, imports: ['base'] },
  ports: {
    files: /^src\/storage\/(ports|records|cluster-ports|rules|books|accounts|grants|meters|nodes)\.ts$/,
    imports: ['base', 'money'],
  },
  storage: { files: /^src\/storage\//, imports: ['base', 'money', 'ports'] },
  upstream: { files: /^src\/upstream\//, imports: ['base', 'money', 'ports'] },
  filings: { files: /^src\/routing\/filings\.ts$/, imports: [] },
  routing: { files: /^src\/routing\//, imports: ['base', 'money', 'ports', 'filings'], types: ['config', 'upstream'] },
  config: { files: /^src\/config\//, imports: ['base', 'money', 'ports', 'filings'], types: ['upstream', 'routing'] },
  observe: { files: /^src\/observe\//, imports: ['base', 'money', 'ports'], types: ['config', 'upstream'] },
  gateway: { files: /^src\/gateway\//, imports: ['base', 'money', 'ports', 'filings', 'upstream', 'routing', 'config', 'observe'] },
  control: { files: /^src\/control\//, imports: ['base', 'money', 'ports', 'filings', 'upstream', 'routing', 'config', 'observe'] },
  worker: { files: /^src\/worker\//, imports: ['base', 'money', 'ports', 'config', 'observe'] },
  sandbox: { files: /^src\/sandbox\//, imports: ['base', 'money', 'observe'] },
  entry: {
    files: /^src\/([\w-]+\.ts$|(cli|start)\/)/,
    imports: [
      'base',
      'money',
      'ports',
      'storage',
      'filings',
      'upstream',
      'routing',
      'config',
      'observe',
      'gateway',
      'control',
      'worker',
      'sandbox',
    ],
  },
}

function layerOf(path: string): string | null {
  return Object.entries(LAYERS).find(([, layer]) => layer.files.test(path))?.[0] ?? null
}

/** Every import of src goes down the table above. */
export const layers: Rule = (files) =>
  files.flatMap((file) => {
    const from = layerOf(file.path)
    if (from === null) return [`${file.path} is in no layer: move it into a folder of tests/tidy/layers.ts, or write its layer there`]
    return file.imports.flatMap((imported) => misplaced(file, from, imported) ?? [])
  })

function misplaced(file: SourceFile, from: string, imported: Import): string | null {
  const at = `${file.path}:${imported.line}`
  if (imported.path === null) return null
  const to = layerOf(imported.path)
  if (to === null) return `${at} imports ${imported.path}, which is in no layer of src: pass in what it gives`
  const layer = LAYERS[from]
  if (from === to || layer?.imports.includes(to) === true) return null
  if (layer?.types?.includes(to) === true) {
    return imported.type_only ? null : `${at} ${from} may use only types of ${to}: write "import type", or pass the value in`
  }
  if (to === 'storage') return `${at} ${from} must not see the driver ${imported.path}: use the port in src/storage/ports.ts`
  return `${at} ${from} must not import ${to}: move what both need down to a layer below, or pass it in from main`
}

/** One home per library: files that may import it. A library without a row has no home yet. */
const HOMES: Readonly<Record<string, RegExp>> = {
  undici: /^src\/upstream\/pool\.ts$/,
  'node:sqlite': /^src\/storage\/(sql|journal)\//,
  kysely: /^src\/storage\/(sql|postgres)\//,
  pg: /^src\/storage\/postgres\//,
  ioredis: /^src\/storage\/redis\//,
  hono: /^src\/(gateway\/ingress\.ts|control\/api\.ts|sandbox\/|(main|admin)\.ts$)/,
  '@hono/node-server': /^src\/(gateway\/ingress\.ts|control\/api\.ts|sandbox\/|(main|admin)\.ts$)/,
  'prom-client': /^src\/observe\//,
  pino: /^src\/observe\//,
  zod: /^src\/(config|gateway|control|cli)\//,
  yaml: /^src\/config\//,
  'csv-parse': /^src\/config\/csv\.ts$/,
  jose: /^src\/(gateway\/authenticate\.ts|control\/|upstream\/providers\/)/,
}

function packageOf(specifier: string): string | null {
  if (specifier.startsWith('.') || (specifier.startsWith('node:') && !(specifier in HOMES))) return null
  if (specifier.startsWith('node:')) return specifier
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}

/** Every library is imported only in its home. */
export const homes: Rule = (files) =>
  files.flatMap((file) =>
    file.imports.flatMap(({ specifier, line }) => {
      const name = packageOf(specifier)
      if (name === null) return []
      const home = HOMES[name]
      if (home === undefined) return [`${file.path}:${line} ${name} has no home: give it one in tests/tidy/layers.ts, or do without it`]
      return home.test(file.path) ? [] : [`${file.path}:${line} ${name} lives in ${home.source}: use what its home exports`]
    }),
  )

/** Where src starts: the processes, and the worker threads, which are named by a URL. */
const ENTRIES = /^src\/(main|cli|sandbox\/main)\.ts$/

/** Every file of src can be reached from an entry. */
export const reachable: Rule = (files) => {
  const by_path = new Map(files.map((file) => [file.path, file]))
  const reached = new Set<string>()
  const waiting = files.map((file) => file.path).filter((path) => ENTRIES.test(path))
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (reached.has(path)) continue
    reached.add(path)
    waiting.push(...(by_path.get(path)?.imports ?? []).flatMap((imported) => imported.path ?? []))
  }
  return files.filter((file) => !reached.has(file.path)).map((file) => `${file.path} is reached from no entry: import it or delete it`)
}
