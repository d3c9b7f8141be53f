import { cpSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { loadConfiguration } from '../../src/config/load.ts'
import type { ConfigIssue, Configuration } from '../../src/config/model.ts'
import { watchConfiguration } from '../../src/config/watch.ts'
import type { ConfigurationWatch } from '../../src/config/watch.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { atEnd } from '../support/cleanup.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

const SOUND = join(REPO_ROOT, 'tests', 'fixtures', 'config', 'sound')
const TIMEOUT_MS = 20_000

interface Watched {
  readonly changes: Configuration[]
  readonly issues: (readonly ConfigIssue[])[]
  readonly watch: ConfigurationWatch
  /** Waits until a configuration with this many open requests was applied last, and gives the number back. */
  readonly applied: (max_open_requests: number) => Promise<number>
}

/** Watches with a poll so slow that only events of the file system can be what is seen, unless told otherwise. */
function watched(config_dir: string, poll_ms = 600_000): Watched {
  const load = () => loadConfiguration({ config_dir, env: {}, providers: [...PROVIDERS.values()] })
  const first = load()
  if (!first.ok) throw new Error(JSON.stringify(first.issues))
  const changes: Configuration[] = []
  const issues: (readonly ConfigIssue[])[] = []
  const watch = watchConfiguration({
    config_dir,
    digest: first.configuration.digest,
    load,
    onChange: (configuration) => changes.push(configuration),
    onIssues: (found) => issues.push(found),
    settle_ms: 20,
    poll_ms,
  })
  atEnd(() => watch.close())
  const applied = async (max_open_requests: number): Promise<number> => {
    const seen = () => changes.at(-1)?.settings.limits.max_open_requests === max_open_requests
    await waitFor(seen, { timeout_ms: TIMEOUT_MS, what: `a configuration with ${max_open_requests} open requests` })
    return max_open_requests
  }
  return { changes, issues, watch, applied }
}

function copyOfSound(): string {
  const dir = tempDir()
  cpSync(SOUND, dir, { recursive: true })
  return dir
}

const settings = (max_open_requests: number | string): string => `limits: {max_open_requests: ${max_open_requests}}\n`

it('a file written in place is applied', async () => {
  const dir = copyOfSound()
  const { applied } = watched(dir)
  writeFileSync(join(dir, 'weir.yaml'), settings(11))
  expect(await applied(11)).toBe(11)
})

it('a file replaced by rename, as editors do, is applied', async () => {
  const dir = copyOfSound()
  const { applied } = watched(dir)
  for (const requests of [21, 22]) {
    writeFileSync(join(dir, '.weir.yaml.swp'), settings(requests))
    renameSync(join(dir, '.weir.yaml.swp'), join(dir, 'weir.yaml'))
    expect(await applied(requests)).toBe(requests)
  }
})

it('files swapped behind a symbolic link, as a mounted volume does, are applied', async () => {
  const dir = tempDir()
  const version = (name: string, requests: number): void => {
    mkdirSync(join(dir, name))
    cpSync(SOUND, join(dir, name), { recursive: true })
    writeFileSync(join(dir, name, 'weir.yaml'), settings(requests))
  }
  version('..2026_1', 31)
  symlinkSync('..2026_1', join(dir, '..data'))
  for (const name of ['weir.yaml', 'catalogue.yaml', 'price-book.yaml']) symlinkSync(join('..data', name), join(dir, name))
  const { applied } = watched(dir)
  for (const requests of [32, 33]) {
    version(`..2026_${requests}`, requests)
    symlinkSync(`..2026_${requests}`, join(dir, '..data_tmp'))
    renameSync(join(dir, '..data_tmp'), join(dir, '..data'))
    expect(await applied(requests)).toBe(requests)
  }
})

it('a directory that is replaced as a whole is noticed, and watched again', async () => {
  const parent = tempDir()
  const dir = join(parent, 'config')
  cpSync(SOUND, dir, { recursive: true })
  const { applied } = watched(dir, 50)
  renameSync(dir, join(parent, 'old'))
  cpSync(SOUND, join(parent, 'new'), { recursive: true })
  writeFileSync(join(parent, 'new', 'weir.yaml'), settings(41))
  renameSync(join(parent, 'new'), dir)
  expect(await applied(41)).toBe(41)
  writeFileSync(join(dir, 'weir.yaml'), settings(42))
  expect(await applied(42)).toBe(42)
})

it('the registry of filing numbers is watched from before it exists, and is in the digest', async () => {
  const dir = copyOfSound()
  const { changes } = watched(dir)
  const sizes = (): readonly number[] => changes.map(({ filings }) => filings.rows.size)
  writeFileSync(join(dir, 'filings.csv'), '# as_of: 2026-08-24\nnumber\nBeijing-A-20240101\n')
  await waitFor(() => sizes().at(-1) === 1, { timeout_ms: TIMEOUT_MS, what: 'the registry to be read' })
  rmSync(join(dir, 'filings.csv'))
  await waitFor(() => sizes().at(-1) === 0, { timeout_ms: TIMEOUT_MS, what: 'the registry to be gone' })
  expect(changes.at(-1)?.digest).not.toBe(changes[0]?.digest)
})

it('a configuration with mistakes keeps the old one, is reported, and its repair is applied', async () => {
  const dir = copyOfSound()
  const { applied, changes, issues } = watched(dir)
  writeFileSync(join(dir, 'weir.yaml'), settings('lots'))
  await waitFor(() => issues.length > 0, { timeout_ms: TIMEOUT_MS, what: 'the mistake to be reported' })
  expect(issues[0]?.[0]).toMatchObject({ file: 'weir.yaml', path: 'limits.max_open_requests', line: 1 })
  expect(changes).toEqual([])
  cpSync(join(SOUND, 'weir.yaml'), join(dir, 'weir.yaml'))
  expect(await applied(100)).toBe(100)
})

it('a change made between loading and watching is applied', async () => {
  const dir = copyOfSound()
  const load = () => loadConfiguration({ config_dir: dir, env: {}, providers: [...PROVIDERS.values()] })
  const changes: Configuration[] = []
  const watch = watchConfiguration({
    config_dir: dir,
    digest: 'of what ran before',
    load,
    onChange: (found) => changes.push(found),
    onIssues: () => undefined,
  })
  atEnd(() => watch.close())
  await waitFor(() => changes.length > 0, { timeout_ms: TIMEOUT_MS, what: 'the change' })
  expect(changes).toHaveLength(1)
})

it('routes that come, change and go are applied', async () => {
  const dir = copyOfSound()
  const { changes } = watched(dir)
  const names = (): readonly string[] | undefined => {
    const last = changes.at(-1)
    return last === undefined ? undefined : [...last.routes.keys()]
  }
  const routes = (name: string): string => `models: {${name}: {candidates: [{model: deepseek-flash}]}}`
  for (const name of ['auto', 'auto/other']) {
    writeFileSync(join(dir, 'routes.yaml'), routes(name))
    await waitFor(() => names()?.[0] === name, { timeout_ms: TIMEOUT_MS, what: `the route ${name}` })
  }
  rmSync(join(dir, 'routes.yaml'))
  await waitFor(() => names()?.length === 0, { timeout_ms: TIMEOUT_MS, what: 'no route' })
})

it('a configuration that is as it was loaded is not loaded again when watching begins', async () => {
  const dir = copyOfSound()
  const first = loadConfiguration({ config_dir: dir, env: {}, providers: [...PROVIDERS.values()] })
  let loads = 0
  const load = () => {
    loads += 1
    return first
  }
  const digest = first.ok ? first.configuration.digest : ''
  const watch = watchConfiguration({ config_dir: dir, digest, load, onChange: () => {}, onIssues: () => {}, settle_ms: 5 })
  atEnd(() => watch.close())
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(loads).toBe(0)
  writeFileSync(join(dir, 'weir.yaml'), settings(71))
  await waitFor(() => loads > 0, { timeout_ms: TIMEOUT_MS, what: 'a load after a change' })
})

it('reload applies at once, even an unchanged configuration, and survives whatever loading throws', () => {
  const dir = copyOfSound()
  const { watch, changes, issues } = watched(dir)
  watch.reload()
  expect(changes).toHaveLength(1)
  rmSync(join(dir, 'price-book.yaml'))
  watch.reload()
  expect(issues.at(-1)?.[0]).toMatchObject({ file: 'price-book.yaml' })
  const broken = watchConfiguration({
    config_dir: dir,
    digest: '',
    load: () => {
      throw new Error('out of file descriptors')
    },
    onChange: (found) => changes.push(found),
    onIssues: (found) => issues.push(found),
  })
  atEnd(() => broken.close())
  broken.reload()
  expect(issues.at(-1)?.[0]?.message).toContain('out of file descriptors')
  expect(changes).toHaveLength(1)
})

it('nothing is called after closing, by call or by signal', async () => {
  const dir = copyOfSound()
  const closed = watched(dir)
  closed.watch.close()
  const abort = new AbortController()
  let calls = 0
  const count = (): void => {
    calls++
  }
  const load = () => loadConfiguration({ config_dir: dir, env: {}, providers: [...PROVIDERS.values()] })
  watchConfiguration({ config_dir: dir, digest: '', load, onChange: count, onIssues: count, settle_ms: 20, signal: abort.signal })
  abort.abort()
  const { applied } = watched(dir)
  writeFileSync(join(dir, 'weir.yaml'), settings(51))
  expect(await applied(51)).toBe(51)
  closed.watch.reload()
  expect([closed.changes, closed.issues, calls]).toEqual([[], [], 0])
})

it('a prompt of a profile that is written is noticed, though it is in a folder of its own', async () => {
  const dir = copyOfSound()
  mkdirSync(join(dir, 'profiles'))
  writeFileSync(join(dir, 'profiles', 'bank.md'), 'first')
  const { changes } = watched(dir, 50)
  writeFileSync(join(dir, 'profiles', 'bank.md'), 'another')
  await waitFor(() => changes.length === 1, { timeout_ms: TIMEOUT_MS, what: 'the prompt to be read again' })
})
