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
    // It has ended since the directory was read.
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH')) return null
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
