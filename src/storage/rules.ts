import { cnyFromNano } from '../money/amount.ts'
import { windowAround } from '../money/window.ts'
import type { LimitKind, LimitRule, LimitScope, LimitState } from './ports.ts'
import type { KeyRecord, LimitSetting, ProjectRecord, TenantRecord } from './records.ts'

/** Whose limits a request must fit into. */
export interface LimitedBy {
  readonly tenant: Pick<TenantRecord, 'id' | 'limits' | 'time_zone'>
  readonly project: Pick<ProjectRecord, 'id' | 'limits'>
  readonly key: Pick<KeyRecord, 'id' | 'limits'>
}

/** The rules that a request for `model` must fit into now: those of its key, its project and its tenant that concern this model. */
export function rulesFor(limited: LimitedBy, model: string, now_ms: number): readonly LimitRule[] {
  return everyRuleOf(limited, now_ms).filter((rule) => rule.model === null || rule.model === model)
}

/** The rules of a key, its project and its tenant, for whichever model. */
export function everyRuleOf({ tenant, project, key }: LimitedBy, now_ms: number): readonly LimitRule[] {
  return [
    ...rulesOf('key', key.id, key.limits, tenant.time_zone, now_ms),
    ...rulesOf('project', project.id, project.limits, tenant.time_zone, now_ms),
    ...rulesOf('tenant', tenant.id, tenant.limits, tenant.time_zone, now_ms),
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

/** A limit and where it stands, as people read it: money in CNY, everything else in whole numbers, times in UTC. */
export function viewLimit({ rule, available, held, used, resets_at_ms }: LimitState): object {
  const { scope, scope_id, kind, model, window, limit } = rule
  const plain = (amount: bigint): string => (isAmountKind(kind) ? cnyFromNano(amount) : String(amount))
  return {
    object: 'limit',
    scope,
    scope_id,
    kind,
    model,
    window: window?.name ?? null,
    limit: plain(limit),
    used: used === null ? null : plain(used),
    held: plain(held),
    available: plain(available),
    resets_at: resets_at_ms === null ? null : new Date(resets_at_ms).toISOString(),
  }
}

/** Whether a limit of this kind counts money. */
export function isAmountKind(kind: LimitKind): boolean {
  return kind === 'amount_window' || kind === 'budget'
}

/** A limit's name within its request, which has one key, one project and one tenant. */
export function limitName({ kind, scope, model }: Pick<LimitRule, 'kind' | 'scope' | 'model'>): string {
  return model === null ? `${scope} ${kind}` : `${scope} ${kind} ${model}`
}
