import * as z from 'zod'
import type { LimitScope } from '../storage/ports.ts'
import type { LimitSetting, TenantRecord } from '../storage/records.ts'
import { rulesOf, viewLimit } from '../storage/rules.ts'
import type { ControlDeps } from './deps.ts'
import { announce, keyOrThrow, projectOrThrow, tenantOrThrow } from './find.ts'
import { recountMeters } from './rebuild.ts'
import { AdminProblem, LimitInput, parse } from './problem.ts'

const MAX_LIMITS = 100

const Whose = { tenant: z.string().optional(), project: z.string().optional(), key: z.string().optional() }
const Of = z.strictObject(Whose)
const Change = z.strictObject({ ...Whose, set: LimitInput })
const Removal = z.strictObject({
  ...Whose,
  kind: z.string().max(32),
  model: z.string().max(256).nullable().default(null),
  window: z.string().max(8).nullable().default(null),
})

/** A tenant, one of its projects, or a key: whose limits are meant, and what they are. */
interface Limited {
  readonly scope: LimitScope
  readonly scope_id: string
  readonly tenant: TenantRecord
  readonly limits: readonly LimitSetting[]
  /** Stores other limits in their place; resolves with the change's number. */
  readonly store: (limits: readonly LimitSetting[]) => Promise<number>
}

/**
 * The limits of a tenant, of a project (`tenant` and `project`), or of a key, and where each stands.
 *
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function listLimits(query: unknown, deps: ControlDeps): Promise<object> {
  return limitList(await limitedBy(parse(Of, query), deps), deps)
}

/**
 * Adds a limit, or changes the one of the same kind, model and window. What was used stays used; a new window or budget begins
 * with what the ledger says was used in it already (requests that are open at this moment count from the next rebuild or start on).
 *
 * @param body `{tenant | tenant, project | key, set: {kind, limit, model?, window?}}`
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function setLimit(body: unknown, deps: ControlDeps): Promise<object> {
  const { set, ...whose } = parse(Change, body)
  if (set.model !== null && !deps.knowsModel(set.model)) {
    throw new AdminProblem('invalid_request', `set.model: the catalogue has no ${JSON.stringify(set.model)}`, 'set.model')
  }
  return change(whose, deps, ({ limits }) => {
    const others = limits.filter((setting) => !sameLimit(setting, set))
    if (others.length >= MAX_LIMITS) throw new AdminProblem('invalid_request', `there are ${MAX_LIMITS} limits already`, 'set')
    return [...others, set]
  })
}

/** Takes a limit away. @throws AdminProblem `invalid_request`, `not_found` also when there is no such limit */
export async function removeLimit(query: unknown, deps: ControlDeps): Promise<object> {
  const { kind, model, window, ...whose } = parse(Removal, query)
  return change(whose, deps, ({ scope, scope_id, limits }) => {
    const left = limits.filter((setting) => !sameLimit(setting, { kind, model, window }))
    if (left.length < limits.length) return left
    throw new AdminProblem('not_found', `${scope} ${scope_id} has no such limit; "weir limit list" shows what there is`)
  })
}

/** Reads and writes in one turn of the tenant: a limit is a part of a record whose other parts change too. */
async function change(
  whose: z.infer<typeof Of>,
  deps: ControlDeps,
  changed: (limited: Limited) => readonly LimitSetting[],
): Promise<object> {
  const { tenant } = await limitedBy(whose, deps)
  const after = await deps.turns.run(tenant.id, async () => {
    const limited = await limitedBy(whose, deps)
    const limits = changed(limited)
    await announce(await limited.store(limits), deps)
    return { ...limited, limits }
  })
  await recountMeters(tenant.id, deps)
  return limitList(after, deps)
}

async function limitedBy(whose: z.infer<typeof Of>, deps: ControlDeps): Promise<Limited> {
  const { records } = deps
  if (whose.key !== undefined) {
    const record = await keyOrThrow(whose.key, deps)
    const tenant = await tenantOrThrow(record.tenant, deps)
    if (whose.tenant !== undefined && whose.tenant !== tenant.id) throw new AdminProblem('not_found', 'the key is of another tenant', 'key')
    const put = (limits: readonly LimitSetting[]): Promise<number> => records.put({ kind: 'key', record: { ...record, limits } })
    return { scope: 'key', scope_id: record.id, tenant, limits: record.limits, store: put }
  }
  if (whose.tenant === undefined)
    throw new AdminProblem('invalid_request', 'say whose limits: tenant, tenant and project, or key', 'tenant')
  const tenant = await tenantOrThrow(whose.tenant, deps)
  if (whose.project !== undefined) {
    const record = await projectOrThrow(tenant.id, whose.project, deps)
    const put = (limits: readonly LimitSetting[]): Promise<number> => records.put({ kind: 'project', record: { ...record, limits } })
    return { scope: 'project', scope_id: record.id, tenant, limits: record.limits, store: put }
  }
  const put = (limits: readonly LimitSetting[]): Promise<number> => records.put({ kind: 'tenant', record: { ...tenant, limits } })
  return { scope: 'tenant', scope_id: tenant.id, tenant, limits: tenant.limits, store: put }
}

async function limitList({ scope, scope_id, tenant, limits }: Limited, deps: ControlDeps): Promise<object> {
  const rules = rulesOf(scope, scope_id, limits, tenant.time_zone, deps.clock.now_ms())
  const data = (await deps.limits.states(rules)).map(viewLimit)
  return { object: 'list', tenant: tenant.id, time_zone: tenant.time_zone, data }
}

function sameLimit(
  a: Pick<LimitSetting, 'kind' | 'model' | 'window'>,
  b: { kind: string; model: string | null; window: string | null },
): boolean {
  return a.kind === b.kind && a.model === b.model && a.window === b.window
}
