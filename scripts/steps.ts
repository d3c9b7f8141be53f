/** The steps that `npm test` and `npm run check` are made of: commands with a name, a limit and a result. */
import { spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export const ROOT = resolve(import.meta.dirname, '..')

const STATIC_LIMIT_MS = 5 * 60_000
const KILL_AFTER_MS = 10_000
const LINGER_MS = 5_000
const POLL_MS = 100

/** One command of a run. `limit_ms` is how long it may take before it is stopped and counts as failed. */
export interface Step {
  readonly name: string
  readonly command: readonly [string, ...string[]]
  readonly limit_ms: number
}

/** What needs no running code: types, lint, format, and what nothing uses. */
export const STATIC_STEPS: readonly Step[] = [
  { name: 'types', command: ['tsc', '-p', '.'], limit_ms: STATIC_LIMIT_MS },
  { name: 'lint', command: ['oxlint', '--deny-warnings'], limit_ms: STATIC_LIMIT_MS },
  { name: 'format', command: ['oxfmt', '--check', '--no-error-on-unmatched-pattern'], limit_ms: STATIC_LIMIT_MS },
  { name: 'unused', command: ['knip', '--no-progress', '--no-config-hints'], limit_ms: STATIC_LIMIT_MS },
]

let running: ChildProcess | null = null

/** Ends the running command, and then this process, when this process is told to end. */
export function endWithParent(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'disconnect'] as const) {
    process.once(signal, () => {
      running?.kill('SIGTERM')
      setTimeout(() => process.exit(1), KILL_AFTER_MS).unref()
      running?.once('exit', () => process.exit(1))
      if (running === null) process.exit(1)
    })
  }
  process.channel?.unref()
}

/**
 * Runs a command of node_modules/.bin (bin/run.mjs puts it on PATH) and prints how long it took.
 * @returns whether it ended with 0 within its limit and left no process behind
 */
export async function runStep(step: Step, env: Readonly<Record<string, string>> = {}): Promise<boolean> {
  const started_at = performance.now()
  const run_id = `${process.pid}-${step.name}`
  console.log(`── ${step.name}`)
  const ending = await spawned(step, { ...process.env, ...env, WEIR_TEST_RUN: run_id })
  const left_behind = await reap(run_id)
  const seconds = ((performance.now() - started_at) / 1000).toFixed(1)
  if (left_behind.length > 0) console.log(`${step.name}: processes left behind:\n  ${left_behind.join('\n  ')}`)
  const ok = ending === 'exit 0' && left_behind.length === 0
  console.log(`── ${step.name}: ${ok ? 'ok' : `failed (${ending})`} in ${seconds} s\n`)
  return ok
}

function spawned(step: Step, env: NodeJS.ProcessEnv): Promise<string> {
  const [command, ...args] = step.command
  const child = spawn(command, args, { cwd: ROOT, env, stdio: ['ignore', 'inherit', 'inherit'], shell: process.platform === 'win32' })
  running = child
  return new Promise((settle) => {
    let overdue = false
    const limit = setTimeout(() => {
      overdue = true
      child.kill('SIGTERM')
      setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS).unref()
    }, step.limit_ms)
    const end = (ending: string): void => {
      clearTimeout(limit)
      running = null
      settle(overdue ? `stopped at its limit of ${step.limit_ms / 1000} s` : ending)
    }
    child.once('error', (error) => {
      end(error.message)
    })
    child.once('close', (code, signal) => {
      end(signal === null ? `exit ${code}` : signal)
    })
  })
}

/** Waits a little for what carries the run's mark in its environment, kills what stays, and names it. Linux only: elsewhere nothing is seen. */
async function reap(run_id: string): Promise<string[]> {
  const give_up_at = performance.now() + LINGER_MS
  let found = marked(run_id)
  while (found.length > 0 && performance.now() < give_up_at) {
    await sleep(POLL_MS)
    found = marked(run_id)
  }
  for (const { pid } of found) process.kill(pid, 'SIGKILL')
  return found.map(({ pid, command }) => `${pid} ${command}`)
}

function marked(run_id: string): Array<{ pid: number; command: string }> {
  if (process.platform !== 'linux') return []
  const mark = `\0WEIR_TEST_RUN=${run_id}\0`
  return readdirSync('/proc').flatMap((entry) => {
    const pid = Number(entry)
    if (!Number.isInteger(pid)) return []
    const environment = procText(pid, 'environ')
    return `\0${environment}`.includes(mark) ? [{ pid, command: procText(pid, 'cmdline').replaceAll('\0', ' ') }] : []
  })
}

/** A file of /proc, or '' when the process is gone, or another user's. */
function procText(pid: number, name: string): string {
  try {
    return readFileSync(join('/proc', String(pid), name), 'utf8')
  } catch {
    return ''
  }
}
