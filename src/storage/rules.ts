import { windowAround } from '../money/window.ts'
import type { KeyRecord, LimitRule, LimitScope, LimitSetting, ProjectRecord, TenantRecord } from './ports.ts'

/** Whose limits a request must fit into. */
export interface LimitedBy {
  readonly tenant: Pick<TenantRecord, 'id' | 'limits' | 'time_zone'>
  readonly project: Pick<ProjectRecord, 'id' | 'limits'>
  readonly key: Pick<KeyRecord, 'id' | 'limits'>
}

/** The rules that a request for `model` must fit into now: those of its key, its project and its tenant that concern this model. */
export function rulesFor({ tenant, project, key }: LimitedBy, model: string, now_ms: number): readonly LimitRule[] {
  const concerned = (settings: readonly LimitSetting[]): readonly LimitSetting[] =>
    settings.filter((setting) => setting.model === null || setting.model === model)
  return [
    ...rulesOf('key', key.id, concerned(key.limits), tenant.time_zone, now_ms),
    ...rulesOf('project', project.id, concerned(project.limits), tenant.time_zone, now_ms),
    ...rulesOf('tenant', tenant.id, concerned(tenant.limits), tenant.time_zone, now_ms),
  ]
}

/** Stored limits of one scope as rules, with the boundaries of their windows around `now_ms` in the tenant's time zone. */
export function rulesOf(
  scope: LimitScope,
  scope_id: string,
  settings: readonly LimitSetting[],
  time_zone: string,
  now_ms: number,
): readonly LimitRule[] {
  return settings.map(({ kind, model, limit, window }) => ({
    scope,
    scope_id,
    model,
    kind,
    limit: BigInt(limit),
    window: window === null ? null : windowAround(window, time_zone, now_ms),
  }))
}
