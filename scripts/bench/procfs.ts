/** What Linux says of a process. Other systems have no /proc: the benchmark runs on Linux only. */
import { readdirSync, readFileSync } from 'node:fs'

/** USER_HZ, which proc(5) counts in; 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

/** CPU of a process in microseconds, user and system, all threads, ended ones included (proc(5), fields 14 and 15). */
export function cpuMicroseconds(pids: readonly number[]): number {
  let ticks = 0
  for (const pid of pids) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    ticks += Number(fields[11]) + Number(fields[12])
  }
  return (ticks * 1_000_000) / TICKS_PER_SECOND
}

/** CPU of a process in microseconds with that of all its children, those that have ended too (proc(5): cutime and cstime). */
export function treeMicroseconds(pid: number): number {
  let ticks = 0
  for (const other of withChildren(pid)) {
    const fields = statFields(other)
    // Of one that has ended meanwhile its parent knows.
    ticks += Number(fields?.[11] ?? 0) + Number(fields?.[12] ?? 0)
  }
  const own = statFields(pid)
  return ((ticks + Number(own?.[13] ?? 0) + Number(own?.[14] ?? 0)) * 1_000_000) / TICKS_PER_SECOND
}

function statFields(pid: number): readonly string[] | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch (error) {
    if (hasEnded(error)) return null
    throw error
  }
}

/** It has ended since the directory was read. */
function hasEnded(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH')
}

/** Resident memory in bytes. */
export function residentBytes(pids: readonly number[]): number {
  let kibibytes = 0
  for (const pid of pids) kibibytes += Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0)
  return kibibytes * 1024
}

/** A process and its children. */
export function withChildren(pid: number): number[] {
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((other) => parentOf(other) === pid)
  return [pid, ...children]
}

function parentOf(pid: number): number | null {
  try {
    return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0)
  } catch (error) {
    if (hasEnded(error)) return null
    throw error
  }
}

/** CPU of one thread. */
export interface ThreadTime {
  readonly tid: number
  readonly name: string
  readonly cpu_us: number
}

/** CPU of every thread of a process, the main thread first, the others in the order they were started in (schedstats of the kernel). */
export function threadTimes(pid: number): readonly ThreadTime[] {
  return readdirSync(`/proc/${pid}/task`)
    .map(Number)
    .toSorted((a, b) => a - b)
    .map((tid) => {
      const on_cpu_ns = Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1').split(' ')[0])
      return { tid, name: readFileSync(`/proc/${pid}/task/${tid}/comm`, 'latin1').trim(), cpu_us: on_cpu_ns / 1000 }
    })
}
