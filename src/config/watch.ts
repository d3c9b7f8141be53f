import { statSync, watch } from 'node:fs'
import type { FSWatcher } from 'node:fs'
import { join } from 'node:path'
import { CONFIG_FILES, digestOnDisk } from './load.ts'
import type { LoadResult } from './load.ts'
import { promptPaths } from './profiles.ts'
import type { ConfigIssue, Configuration } from './model.ts'

/** Editors and mounts change a directory in several steps; this long after the last one it is read. */
const SETTLE_MS = 200
/** How often the files' identities are compared, for file systems and replaced directories that send no events. */
const POLL_MS = 5000

export interface WatchOptions {
  readonly config_dir: string
  /** Digest of the configuration that runs now; a load that gives the same one is no change. */
  readonly digest: string
  readonly load: () => LoadResult
  readonly onChange: (configuration: Configuration) => void
  /** A configuration with mistakes: the old one stays. */
  readonly onIssues: (issues: readonly ConfigIssue[]) => void
  /** Stops watching, as `close` does. */
  readonly signal?: AbortSignal
  readonly settle_ms?: number
  readonly poll_ms?: number
}

export interface ConfigurationWatch {
  /** Loads at once, and calls `onChange` or `onIssues` even when the files are the same (a secret may not be); for SIGHUP. */
  reload(): void
  /** Nothing is called any more after this. */
  close(): void
}

/**
 * Watches a configuration directory: files written in place, replaced by rename, or swapped behind a symbolic link.
 * Throws nothing: what goes wrong while loading, or in `onChange`, is given to `onIssues`. Keeps no process alive.
 */
export function watchConfiguration(options: WatchOptions): ConfigurationWatch {
  let digest = options.digest
  let bad = false
  let seen = fingerprint(options.config_dir)
  let settling: NodeJS.Timeout | null = null
  let watcher: FSWatcher | null = null
  let closed = false

  const refuse = (issues: readonly ConfigIssue[]): void => {
    bad = true
    options.onIssues(issues)
  }
  const apply = (even_if_same: boolean): void => {
    if (closed) return
    seen = fingerprint(options.config_dir)
    try {
      const result = options.load()
      if (!result.ok) return refuse(result.issues)
      if (!even_if_same && !bad && result.configuration.digest === digest) return
      options.onChange(result.configuration)
      digest = result.configuration.digest
      bad = false
    } catch (error) {
      refuse([unexpected(options.config_dir, error)])
    }
  }
  const settle = (): void => {
    if (closed) return
    if (settling !== null) clearTimeout(settling)
    settling = setTimeout(() => apply(false), options.settle_ms ?? SETTLE_MS).unref()
  }
  const arm = (): void => {
    watcher?.close()
    watcher = watchDirectory(options.config_dir, settle)
  }
  const poll = setInterval(() => {
    const now = fingerprint(options.config_dir)
    if (now === seen) return
    // A directory that was replaced needs a new watcher.
    arm()
    settle()
  }, options.poll_ms ?? POLL_MS).unref()
  const close = (): void => {
    closed = true
    clearInterval(poll)
    if (settling !== null) clearTimeout(settling)
    watcher?.close()
  }

  arm()
  // What changed between the caller's load and this moment has sent no event. A large configuration takes seconds to load.
  if (digestOnDisk(options.config_dir) !== digest) settle()
  if (options.signal?.aborted === true) close()
  options.signal?.addEventListener('abort', close, { once: true })
  return { reload: () => apply(true), close }
}

/** Null when the system has no watcher to give; then the poll alone notices changes. */
function watchDirectory(config_dir: string, changed: () => void): FSWatcher | null {
  try {
    // Symbolic links are followed, so a swap of `..data` in a mounted volume is an event of the directory itself.
    const watcher = watch(config_dir, { persistent: false }, changed)
    // The directory went away; the poll watches it again when it is back.
    watcher.on('error', () => watcher.close())
    return watcher
  } catch (error) {
    if (error instanceof Error && 'code' in error) return null
    throw error
  }
}

/** What identifies the contents of the files without reading them. */
function fingerprint(config_dir: string): string {
  const parts = [config_dir, ...CONFIG_FILES.map((name) => join(config_dir, name)), ...promptPaths(config_dir)].map((path, index) => {
    const stat = statSync(path, { throwIfNoEntry: false, bigint: true })
    if (stat === undefined) return '-'
    return index === 0 ? `${stat.dev}:${stat.ino}` : `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}`
  })
  return parts.join(' ')
}

function unexpected(config_dir: string, error: unknown): ConfigIssue {
  const message = error instanceof Error ? error.message : String(error)
  return {
    file: config_dir,
    path: '',
    line: null,
    message: `could not be applied: ${message}`,
    expected: 'a configuration that can be loaded',
  }
}
