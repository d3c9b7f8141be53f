/** Processes that may use a part of a core only, so that several can be compared with one on a small machine. */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const PERIOD_US = 20_000
/** Where control groups of the CPU are: version 1, then version 2 (Linux: admin-guide/cgroup-v1 and cgroup-v2). */
const ROOTS = ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup'] as const

/** A group of processes that has a part of one core. */
export interface Quota {
  hold(pid: number): void
  /** To be called when its processes have ended. */
  remove(): void
}

/** Makes a group. Null where this user may not, or the system has none. @param part of one core, such as 0.25 */
export function makeQuota(name: string, part: number): Quota | null {
  const root = ROOTS.find((path) => existsSync(join(path, 'cgroup.procs')))
  if (root === undefined) return null
  const directory = join(root, `weir-bench-${process.pid}-${name}`)
  const quota_us = Math.round(PERIOD_US * part)
  try {
    mkdirSync(directory)
    if (existsSync(join(directory, 'cpu.cfs_quota_us'))) {
      writeFileSync(join(directory, 'cpu.cfs_period_us'), String(PERIOD_US))
      writeFileSync(join(directory, 'cpu.cfs_quota_us'), String(quota_us))
    } else writeFileSync(join(directory, 'cpu.max'), `${quota_us} ${PERIOD_US}`)
  } catch (error) {
    if (error instanceof Error && 'code' in error) return null
    throw error
  }
  return {
    hold: (pid) => writeFileSync(join(directory, 'cgroup.procs'), String(pid)),
    remove: () => rmdirSync(directory),
  }
}
