import { LimitsUnavailable } from '../storage/cluster-ports.ts'
import { timeZoneOf } from '../money/window.ts'
import type { KeyRecord, ProjectRecord, TenantRecord } from '../storage/records.ts'
import type { ControlDeps } from './deps.ts'
import { AdminProblem } from './problem.ts'

export const DEFAULT_TIME_ZONE = 'Asia/Shanghai'

/** The project that a caller names, by its full id or the part behind the tenant. @throws AdminProblem `not_found` */
export async function projectOrThrow(tenant: string, named: string, deps: ControlDeps): Promise<ProjectRecord> {
  const project = (await deps.records.projects(tenant)).find(({ id }) => id === named || id === projectId(tenant, named))
  if (project === undefined) throw new AdminProblem('not_found', `tenant ${tenant} has no project ${shown(named)}`, 'project')
  return project
}

/** @throws AdminProblem `not_found` */
export async function tenantOrThrow(id: string, deps: Pick<ControlDeps, 'records'>): Promise<TenantRecord> {
  const tenant = await deps.records.tenant(id)
  if (tenant === null) throw new AdminProblem('not_found', `there is no tenant ${shown(id)}`, 'tenant')
  return tenant
}

/** @throws AdminProblem `not_found` */
export async function keyOrThrow(id: string, deps: Pick<ControlDeps, 'records'>): Promise<KeyRecord> {
  const key = await deps.records.key(id)
  if (key === null) throw new AdminProblem('not_found', `there is no key ${shown(id)}`, 'key')
  return key
}

/** Tells data planes of a change; resolves when this process's own has applied it. */
export async function announce(seq: number, deps: ControlDeps): Promise<void> {
  try {
    await deps.changes.publish(seq)
  } catch (error) {
    // The change is made: data planes ask the database every few seconds, and need no message.
    if (!(error instanceof LimitsUnavailable)) throw error
  }
  await deps.caughtUp?.()
}

/** The full id of a tenant's project. */
export function projectId(tenant: string, id: string): string {
  return `${tenant}/${id}`
}

/** A caller's words as they may stand in a message: bounded and printable. */
export function shown(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text)
}

/** Whether this runtime knows the IANA name. */
export function isTimeZone(name: string): boolean {
  return timeZoneOf(name) !== null
}
