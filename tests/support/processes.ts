import { spawn, type ChildProcess } from 'node:child_process'
import { atEnd } from './cleanup.ts'
import { REPO_ROOT } from './root.ts'
import { waitFor } from './wait.ts'

const OUTPUT_LIMIT_CHARS = 4 * 1024 * 1024
const EXIT_TIMEOUT_MS = 60_000

export interface ProcessExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A Node process of one test. Whatever happens, it is killed with SIGKILL when the test ends. */
export interface SpawnedProcess {
  readonly child: ChildProcess
  readonly pid: number
  /** All it has printed so far, limited to the latest 4 Mi characters each. */
  stdout(): string
  stderr(): string
  /** Resolves with the match once stdout matches. @throws Error, with the output, after `timeout_ms` or when it exits first. */
  waitForOutput(pattern: RegExp, timeout_ms: number): Promise<RegExpExecArray>
  /** Sends a signal unless it has exited already. */
  kill(signal: NodeJS.Signals): void
  /** Sends `signal` (SIGTERM) and waits at most 60 s for the exit. */
  stop(signal?: NodeJS.Signals): Promise<ProcessExit>
  readonly exited: Promise<ProcessExit>
}

/**
 * Starts a script with the Node that runs the tests, from the repository's root. `env` is added to the surrounding
 * environment, from which every WEIR_* setting is removed first (but the two that belong to the test run).
 * The process holds an IPC channel to the test (WEIR_PARENT_IPC=1), so that it can notice a killed test.
 */
export function spawnNode(file: string, args: readonly string[] = [], env: Readonly<Record<string, string>> = {}): SpawnedProcess {
  const child = spawn(process.execPath, [file, ...args], {
    cwd: REPO_ROOT,
    env: { ...surroundings(), WEIR_PARENT_IPC: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  return watch(child, [file, ...args].join(' '))
}

function watch(child: ChildProcess, what: string): SpawnedProcess {
  const stdout = collect(child.stdout)
  const stderr = collect(child.stderr)
  let exit: ProcessExit | null = null
  const exited = new Promise<ProcessExit>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      exit = { code, signal }
      resolve(exit)
    })
  })
  const kill = (signal: NodeJS.Signals): void => {
    if (exit === null) child.kill(signal)
  }
  atEnd(async () => {
    kill('SIGKILL')
    await exited
  })
  return {
    child,
    pid: child.pid ?? -1,
    stdout,
    stderr,
    kill,
    exited,
    async waitForOutput(pattern, timeout_ms) {
      const seen = await waitFor(() => pattern.exec(stdout()) ?? (exit === null ? null : 'exited'), {
        timeout_ms,
        what: `${String(pattern)} on stdout of ${what}`,
      }).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${stdout()}\n${stderr()}`, { cause: error })
      })
      if (seen !== 'exited') return seen
      throw new Error(`${what} ended (${JSON.stringify(exit)}) before ${String(pattern)}\n${stdout()}\n${stderr()}`)
    },
    async stop(signal = 'SIGTERM') {
      kill(signal)
      await waitFor(() => exit !== null, { timeout_ms: EXIT_TIMEOUT_MS, what: `the exit of ${what} after ${signal}` })
      return await exited
    },
  }
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = ''
  stream?.setEncoding('utf8')
  stream?.on('data', (piece: string) => {
    text = (text + piece).slice(-OUTPUT_LIMIT_CHARS)
  })
  return () => text
}

const KEPT_SETTINGS = new Set(['WEIR_TEST_RUN', 'WEIR_SHARED_DIR'])

function surroundings(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => KEPT_SETTINGS.has(name) || (!name.startsWith('WEIR_') && !name.startsWith('VITEST')),
  )
  return Object.fromEntries(kept)
}
