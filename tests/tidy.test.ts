import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { errorTable } from '../src/base/errors.ts'
import { REPO_ROOT } from './support/root.ts'
import { constructs, names, purity, sizes } from './tidy/constructs.ts'
import { deadPaths, documentedErrors, errorTableDifferences, machinePaths, registryHosts, resolvedAddresses } from './tidy/documents.ts'
import { homes, layers, reachable } from './tidy/layers.ts'
import { parseSource, repositoryFiles, sourcesIn, type Rule } from './tidy/source.ts'

const sources = sourcesIn('src')
const texts = repositoryFiles()
const exists = (path: string): boolean => existsSync(join(REPO_ROOT, path))

function textFile(path: string): { path: string; text: string } {
  return { path, text: readFileSync(join(REPO_ROOT, path), 'utf8') }
}

/** A rule holds for src, and each bad snippet is found: its findings match, so the rule cannot pass by accident. */
function ruleHolds(name: string, rule: Rule, bad: ReadonlyArray<readonly [path: string, code: string, finding: RegExp]>): void {
  // oxlint-disable-next-line vitest/valid-title -- the name of the rule
  describe(name, () => {
    test('holds for src', () => {
      expect(sources.length).toBeGreaterThan(0)
      expect(rule(sources)).toEqual([])
    })
    test.each(bad)('finds a bad %s (snippet %#)', (path, code, finding) => {
      expect(rule([parseSource(path, code)]).join('\n')).toMatch(finding)
    })
  })
}

/** A rule gives nothing for what is allowed. */
function ruleAllows(name: string, rule: Rule, good: ReadonlyArray<readonly [path: string, code: string]>): void {
  test.each(good)(`${name} allow a good %s (snippet %#)`, (path, code) => {
    expect(rule([parseSource(path, code)])).toEqual([])
  })
}

ruleHolds('layers', layers, [
  ['src/money/x.ts', `import { a } from '../upstream/sse.ts'`, /money must not import upstream/],
  ['src/base/x.ts', `export { a } from '../money/usage.ts'`, /base must not import money/],
  ['src/gateway/x.ts', `import type { A } from '../control/api.ts'`, /gateway must not import control/],
  ['src/worker/x.ts', `import { a } from '../gateway/serve.ts'`, /worker must not import gateway/],
  ['src/gateway/x.ts', `import { a } from '../storage/sql/post.ts'`, /must not see the driver.*storage\/ports\.ts/],
  ['src/gateway/x.ts', `const a = await import('../storage/open.ts')`, /must not see the driver/],
  ['src/config/x.ts', `import { a } from '../upstream/source.ts'`, /only types of upstream/],
  ['src/upstream/x.ts', `import type { A } from '../config/model.ts'`, /upstream must not import config/],
  ['src/storage/ports.ts', `import type { A } from './journal/rows.ts'`, /ports must not see the driver/],
  ['src/extra/x.ts', `import { a } from '../base/ids.ts'`, /in no layer/],
  ['src/base/x.ts', `import { a } from '../../tests/support/wait.ts'`, /in no layer of src/],
  ['src/base/x.ts', `type A = import('../money/usage.ts').TokenUsage`, /base must not import money/],
])
ruleAllows('layers', layers, [
  ['src/config/x.ts', `import type { A } from '../upstream/source.ts'`],
  ['src/gateway/x.ts', `import type { Limits } from '../storage/ports.ts'`],
  ['src/storage/sql/x.ts', `import { a } from '../journal/rows.ts'`],
  ['src/main.ts', `import { a } from './storage/open.ts'`],
])

ruleHolds('one home per library', homes, [
  ['src/gateway/forward.ts', `import { request } from 'undici'`, /undici lives in .*pool/],
  ['src/worker/post.ts', `import { DatabaseSync } from 'node:sqlite'`, /node:sqlite lives in/],
  ['src/control/tenants.ts', `import { Hono } from 'hono/tiny'`, /hono lives in/],
  ['src/gateway/serve.ts', `import type { Counter } from 'prom-client'`, /prom-client lives in/],
  ['src/money/x.ts', `import { z } from 'zod'`, /zod lives in/],
  ['src/base/x.ts', `import _ from '@scope/lodash/fp'`, /@scope\/lodash has no home/],
])

describe('reachable', () => {
  test('every file of src is reached from an entry', () => {
    expect(reachable(sources)).toEqual([])
  })
  test('a file that nothing imports is found, and one that a worker URL names is not', () => {
    const files = [
      parseSource('src/main.ts', `import type { A } from './base/a.ts'; new Worker(new URL('./base/worker.ts', import.meta.url))`),
      parseSource('src/base/a.ts', ''),
      parseSource('src/base/worker.ts', ''),
      parseSource('src/base/dead.ts', `import './a.ts'`),
    ]
    expect(reachable(files)).toEqual(['src/base/dead.ts is reached from no entry: import it or delete it'])
  })
})

ruleHolds('banned constructs', constructs, [
  ['src/gateway/x.ts', `const a = process.env.PORT`, /process\.env: read the setting in src\/config\/load\.ts/],
  ['src/gateway/x.ts', `const { a } = process.env`, /process\.env/],
  ['src/gateway/x.ts', `const a = Date.now()`, /Date\.now\(\): take a Clock/],
  ['src/money/x.ts', `const a = new Date()`, /new Date\(clock\.now_ms\(\)\)/],
  ['src/gateway/x.ts', `const a = performance.now()`, /monotonic_ms/],
  ['src/gateway/x.ts', `const a = Math.random()`, /source of randomness/],
  ['src/gateway/x.ts', `const a = crypto.randomUUID()`, /uuidv7/],
  ['src/money/x.ts', `const a = parseFloat('1')`, /money\/amount\.ts/],
  ['src/control/x.ts', `const a = (1).toFixed(2)`, /toFixed\(\)/],
  ['src/control/x.ts', `const a = Number(row.amount_nano)`, /keep the bigint/],
  ['src/gateway/x.ts', `console.log('x')`, /Log that is passed in/],
  ['src/gateway/x.ts', `process.exit(1)`, /process\.exit/],
  ['src/gateway/relay.ts', `const a = JSON.parse(text)`, /json-spans/],
  ['src/gateway/x.ts', `try { a() } catch {}`, /empty catch/],
  ['src/gateway/x.ts', `try { a() } catch { /* fine */ }`, /empty catch/],
  ['src/gateway/x.ts', `export default 1`, /by name/],
  ['src/gateway/x.ts', `export * from './y.ts'`, /export \*/],
  ['src/gateway/x.ts', `const a = b as any`, /unknown/],
  ['src/gateway/x.ts', `const a = b!.c`, /non-null/],
  ['src/gateway/x.ts', `enum A { B }`, /union of strings/],
  ['src/gateway/x.ts', `class A { constructor(readonly b: string) {} }`, /declare the field/],
  ['src/gateway/x.ts', `const a = new Function('return 1')`, /write a function/],
])
ruleAllows('banned constructs', constructs, [
  ['src/config/load.ts', `const a = process.env`],
  ['src/base/clock.ts', `const a = Date.now() + performance.now()`],
  ['src/money/x.ts', `const a = new Date(at_ms); const b = Number(tokens)`],
  ['src/cli.ts', `console.log('x'); process.exit(2)`],
  ['src/gateway/request.ts', `const a = JSON.parse(text)`],
  ['src/gateway/x.ts', `// process.env, Date.now()\nconst a = 'Math.random()'; const b = a !== 'any'`],
])

ruleHolds('names', names, [
  ['src/gateway/index.ts', '', /barrel/],
  ['src/gateway/x.ts', ['// TO', 'DO: later'].join(''), /do it/],
])

ruleHolds('pure files', purity, [
  ['src/money/x.ts', `import { readFileSync } from 'node:fs'`, /node:fs in a pure file/],
  ['src/gateway/quote.ts', `export async function a() {}`, /async in a pure file/],
  ['src/upstream/sse.ts', `export const a = async () => { await b }`, /async in a pure file/],
  ['src/upstream/dialects/x.ts', `setTimeout(a, 1)`, /setTimeout in a pure file/],
  ['src/gateway/route.ts', `process.nextTick(a)`, /process\.nextTick in a pure file/],
])
ruleAllows('pure files', purity, [
  ['src/money/x.ts', `import { createHash } from 'node:crypto'`],
  ['src/gateway/forward.ts', `export async function a() { await b }`],
])

ruleHolds('sizes', sizes, [
  ['src/base/x.ts', `function a() {\n${'b()\n'.repeat(69)}}`, /71 lines/],
  ['src/base/x.ts', `const a = {\n  b() {\n${'c()\n'.repeat(69)}}\n}`, /71 lines/],
  ['src/base/x.ts', `class A {\n  b = () => {\n${'c()\n'.repeat(69)}}\n}`, /71 lines/],
  ['src/base/x.ts', 'a()\n'.repeat(401), /401 lines of code/],
])
ruleAllows('sizes', sizes, [
  ['src/base/x.ts', `function a() {\n${'b()\n'.repeat(68)}}`],
  ['src/base/x.ts', `/**\n${' * a\n'.repeat(100)} */\n${'// b\n\n'.repeat(100)}${'a()\n'.repeat(400)}`],
])

describe('documents', () => {
  test.skipIf(!exists('ARCHITECTURE.md'))('every path of src that ARCHITECTURE.md names exists (skipped without that file)', () => {
    expect(deadPaths(textFile('ARCHITECTURE.md'), exists)).toEqual([])
  })

  const with_errors = ['README.md', 'ARCHITECTURE.md', 'docs/errors.md']
    .filter(exists)
    .map(textFile)
    .map(({ path, text }) => ({ path, errors: documentedErrors(text) }))
    .filter(({ errors }) => errors.length > 0)
  test.skipIf(with_errors.length === 0)(
    'the documented errors are those of base/errors.ts (skipped while no document has the table)',
    () => {
      expect(with_errors.flatMap(({ path, errors }) => errorTableDifferences(path, errors, errorTable()))).toEqual([])
    },
  )

  test('a dead path is found', () => {
    const text = 'See `src/base/ids.ts`, src/base/, `src/gone.ts`.\nAnd src/gateway/*.ts, src/{a,b}.ts, lib/src/x.ts.'
    expect(deadPaths({ path: 'A.md', text }, (path) => path.startsWith('src/base/'))).toEqual([
      'A.md:1 names src/gone.ts, which does not exist',
    ])
  })

  test('a missing, an unknown and a misnumbered error are found', () => {
    const text = '| Status | Code | when |\n|---|---|---|\n| 400 | `bad`, `worse` | |\n| 502 / 504 | `late` | |\n\n| 500 | `other` |'
    const actual = [
      { code: 'bad', status: 400 },
      { code: 'late', status: 408 },
      { code: 'gone', status: 410 },
    ]
    expect(errorTableDifferences('A.md', documentedErrors(text), actual)).toEqual([
      'A.md lacks gone (410)',
      'A.md names worse, which base/errors.ts does not have',
      'A.md gives late as 502/504, base/errors.ts as 408',
    ])
  })
})

describe('the repository speaks of itself alone', () => {
  const outside = texts.filter(({ path }) => path !== 'LICENSE')

  test('no file names a registry host', () => {
    expect(texts.length).toBeGreaterThan(0)
    expect(registryHosts(outside)).toEqual([])
  })
  test('no file has a path of one machine', () => {
    expect(machinePaths(outside)).toEqual([])
  })
  test('the lock file records no addresses', () => {
    expect(resolvedAddresses(textFile('package-lock.json'))).toEqual([])
  })

  test('hosts, paths and addresses are found', () => {
    const bad = (text: string) => [{ path: 'a', text }]
    expect(registryHosts(bad('\nhttps://' + ['registry', 'npmjs', 'org'].join('.')))).toHaveLength(1)
    expect(registryHosts(bad(['npm', 'mirror'].join('')))).toHaveLength(1)
    expect(machinePaths(bad(['cd ', 'home', 'somebody', 'weir'].join('/')))).toHaveLength(1)
    expect(machinePaths(bad(['"', 'work', 'thing"'].join('/')))).toHaveLength(1)
    expect(machinePaths(bad('`src/work/x.ts`, https://a.example/home/x, ./work/x'))).toEqual([])
    expect(resolvedAddresses({ path: 'a', text: ' "resolved": "https://x/y.tgz"' })).toHaveLength(1)
  })
})
