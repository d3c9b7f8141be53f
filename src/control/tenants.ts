import { isDeepStrictEqual } from 'node:util'
import * as z from 'zod'
import { MAX_QUEUE_WEIGHT, type ProjectRecord, type TenantRecord } from '../storage/records.ts'
import { cnyFromNano } from '../money/amount.ts'
import { ensureWallet } from './credit.ts'
import type { ControlDeps } from './deps.ts'
import { announce, DEFAULT_TIME_ZONE, isTimeZone, projectId, projectOrThrow, tenantOrThrow } from './find.ts'
import { recountMeters } from './rebuild.ts'
import { AdminProblem, ChosenId, CnyAmount, DisplayName, isoOf, limitView, LimitList, parse } from './problem.ts'

/** The project that every tenant begins with. */
const DEFAULT_PROJECT = 'default'

const TimeZone = z.string().max(64).refine(isTimeZone, 'is not a time zone; write an IANA name such as Asia/Shanghai')
const Zones = z.array(z.enum(['private', 'domestic', 'overseas'])).min(1)

const TenantFields = {
  name: DisplayName,
  audience: z.enum(['public', 'internal']),
  locale: z.enum(['zh', 'en']),
  time_zone: TimeZone,
  zones: Zones,
  on_client_abort: z.enum(['cancel', 'drain']),
  on_limits_away: z.enum(['closed', 'open']),
  credit_line_cny: CnyAmount.refine((nano) => nano >= 0n, 'must not be negative'),
  limits: LimitList,
  priority: z.enum(['high', 'normal', 'low']),
  queue_weight: z.int().min(1).max(MAX_QUEUE_WEIGHT),
}
const NewTenant = z.strictObject({
  id: ChosenId,
  name: TenantFields.name.optional(),
  audience: TenantFields.audience.default('public'),
  locale: TenantFields.locale.default('zh'),
  time_zone: TenantFields.time_zone.default(DEFAULT_TIME_ZONE),
  zones: TenantFields.zones.default(['private', 'domestic']),
  on_client_abort: TenantFields.on_client_abort.default('cancel'),
  on_limits_away: TenantFields.on_limits_away.default('closed'),
  credit_line_cny: TenantFields.credit_line_cny.default(0n),
  limits: TenantFields.limits.default([]),
  priority: TenantFields.priority.default('normal'),
  queue_weight: TenantFields.queue_weight.default(1),
})
const TenantChange = z.strictObject({ ...TenantFields, status: z.enum(['active', 'suspended']) }).partial()

const NewProject = z.strictObject({
  tenant: z.string(),
  id: ChosenId,
  name: DisplayName.optional(),
  zones: Zones.nullable().default(null),
  limits: LimitList.default([]),
})

/**
 * Creates a tenant with an empty wallet and the project `default`, or completes one whose creation was cut short, given the same content.
 *
 * @throws AdminProblem `invalid_request`, also when the id is taken
 */
export async function createTenant(body: unknown, deps: ControlDeps): Promise<object> {
  const { credit_line_cny, name, ...given } = parse(NewTenant, body)
  const record: TenantRecord = {
    ...given,
    name: name ?? given.id,
    status: 'active',
    credit_line_nano: credit_line_cny,
    created_at: deps.clock.now_ms(),
  }
  return await deps.turns.run(record.id, () => storeTenant(record, deps))
}

async function storeTenant(record: TenantRecord, deps: ControlDeps): Promise<object> {
  const known = await deps.records.tenant(record.id)
  if (known === null) await deps.records.put({ kind: 'tenant', record })
  else await refuseWhole(known, record, deps)
  await ensureWallet(record.id, deps)
  // Last: a tenant without it was not created to its end.
  const project: ProjectRecord = {
    id: projectId(record.id, DEFAULT_PROJECT),
    tenant: record.id,
    name: DEFAULT_PROJECT,
    limits: [],
    zones: null,
    created_at: record.created_at,
  }
  await announce(await deps.records.put({ kind: 'project', record: project }), deps)
  return tenantView(known ?? record)
}

async function refuseWhole(known: TenantRecord, wanted: TenantRecord, { records }: ControlDeps): Promise<void> {
  const { id } = known
  if ((await records.projects(id)).length > 0) throw new AdminProblem('invalid_request', `tenant ${id} exists already`, 'id')
  if (isDeepStrictEqual({ ...known, created_at: 0 }, { ...wanted, created_at: 0 })) return
  const why = `tenant ${id} exists already, created in part and with other settings; create its project "${DEFAULT_PROJECT}" to complete it`
  throw new AdminProblem('invalid_request', why, 'id')
}

/**
 * Changes the named fields of a tenant. A suspension holds before this resolves.
 *
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function changeTenant(id: string, body: unknown, deps: ControlDeps): Promise<object> {
  const { credit_line_cny, ...changes } = parse(TenantChange, body)
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
  const changed = await deps.turns.run(id, async () => {
    const known = await tenantOrThrow(id, deps)
    const record: TenantRecord = { ...known, ...given, credit_line_nano: credit_line_cny ?? known.credit_line_nano }
    const seq = await deps.records.put({ kind: 'tenant', record })
    await deps.limits.block('tenant', id, record.status === 'suspended')
    await announce(seq, deps)
    return record
  })
  if (changes.limits !== undefined) await recountMeters(id, deps)
  return tenantView(changed)
}

/** Every tenant. */
export async function listTenants(deps: ControlDeps): Promise<object> {
  return { object: 'list', data: (await deps.records.tenants()).map(tenantView) }
}

/**
 * Creates a project. Its full id is `<tenant>/<id>`, so that ids of two tenants never meet.
 *
 * @throws AdminProblem `invalid_request`, `not_found` for the tenant
 */
export async function createProject(body: unknown, deps: ControlDeps): Promise<object> {
  const { tenant, id, name, zones, limits } = parse(NewProject, body)
  await tenantOrThrow(tenant, deps)
  const full_id = projectId(tenant, id)
  const record: ProjectRecord = { id: full_id, tenant, name: name ?? id, limits, zones, created_at: deps.clock.now_ms() }
  return await deps.turns.run(tenant, async () => {
    const taken = (await deps.records.projects(tenant)).some((project) => project.id === full_id)
    if (taken) throw new AdminProblem('invalid_request', `project ${full_id} exists already`, 'id')
    await announce(await deps.records.put({ kind: 'project', record }), deps)
    return projectView(record)
  })
}

const ProjectChange = z.strictObject({ name: DisplayName, zones: Zones.nullable() }).partial()

/**
 * Changes the named fields of a project. Its limits are changed one by one (`/admin/v1/limits`).
 *
 * @param id the full id, `<tenant>/<project>`
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function changeProject(id: string, body: unknown, deps: ControlDeps): Promise<object> {
  const changes = parse(ProjectChange, body)
  const [tenant = ''] = id.split('/')
  await tenantOrThrow(tenant, deps)
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
  return await deps.turns.run(tenant, async () => {
    const record: ProjectRecord = { ...(await projectOrThrow(tenant, id, deps)), ...given }
    await announce(await deps.records.put({ kind: 'project', record }), deps)
    return projectView(record)
  })
}

/** Projects of one tenant, or of all. @throws AdminProblem `not_found` for the tenant */
export async function listProjects(tenant: string | undefined, deps: ControlDeps): Promise<object> {
  if (tenant !== undefined) await tenantOrThrow(tenant, deps)
  const tenants = tenant === undefined ? (await deps.records.tenants()).map(({ id }) => id) : [tenant]
  const projects: ProjectRecord[] = []
  for (const id of tenants) projects.push(...(await deps.records.projects(id)))
  return { object: 'list', data: projects.map(projectView) }
}

function tenantView({ credit_line_nano, created_at, limits, ...tenant }: TenantRecord): object {
  return {
    object: 'tenant',
    ...tenant,
    credit_line_cny: cnyFromNano(credit_line_nano),
    limits: limits.map(limitView),
    created_at: isoOf(created_at),
  }
}

function projectView({ created_at, limits, ...project }: ProjectRecord): object {
  return { object: 'project', ...project, limits: limits.map(limitView), created_at: isoOf(created_at) }
}
