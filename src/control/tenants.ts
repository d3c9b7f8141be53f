import { isDeepStrictEqual } from 'node:util'
import * as z from 'zod'
import { parseFilingNumber } from '../routing/filings.ts'
import { MAX_QUEUE_WEIGHT, type ProjectRecord, PublicSlugTaken, TENANT_DEFAULTS, type TenantRecord } from '../storage/records.ts'
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

const RegistrationNumber = z
  .string()
  .refine((text) => parseFilingNumber(text) !== null, 'write a number such as Hunan-Sibionics-20250905S0006 or Beijing-ChatGLM-20230821')

/** GB 45438-2025: the label names artificial intelligence and that it generated; "AI" alone is none. */
const LabelText = z
  .string()
  .trim()
  .max(64)
  .regex(/^[^\p{Cc}]+$/u, 'must be one line of text')
  .regex(/AI|人工智能|artificial intelligence/i, 'must name artificial intelligence: AI or 人工智能')
  .regex(/生成|合成|generated|synthesi[sz]ed/i, 'must say that it generated the text: 生成, 合成 or generated')

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
  registration_number: RegistrationNumber.nullable(),
  public_slug: ChosenId.nullable(),
  label: z.enum(['none', 'explicit']),
  label_text: LabelText.nullable(),
  label_place: z.enum(['start', 'end']),
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
  registration_number: TenantFields.registration_number.default(TENANT_DEFAULTS.registration_number),
  public_slug: TenantFields.public_slug.default(TENANT_DEFAULTS.public_slug),
  label: TenantFields.label.default(TENANT_DEFAULTS.label),
  label_text: TenantFields.label_text.default(TENANT_DEFAULTS.label_text),
  label_place: TenantFields.label_place.default(TENANT_DEFAULTS.label_place),
  priority: TenantFields.priority.default(TENANT_DEFAULTS.priority),
  queue_weight: TenantFields.queue_weight.default(TENANT_DEFAULTS.queue_weight),
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
 * @throws AdminProblem `invalid_request`, also when the id is taken; `conflict` when another tenant has the public slug
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
  if (known === null) await putTenant(record, deps)
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

/** @throws AdminProblem `conflict` where another tenant has the public slug */
async function putTenant(record: TenantRecord, { records }: ControlDeps): Promise<number> {
  try {
    return await records.put({ kind: 'tenant', record })
  } catch (error) {
    if (error instanceof PublicSlugTaken) throw new AdminProblem('conflict', error.message, 'public_slug')
    throw error
  }
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
 * @throws AdminProblem `invalid_request`, `not_found`, `conflict` when another tenant has the public slug
 */
export async function changeTenant(id: string, body: unknown, deps: ControlDeps): Promise<object> {
  const { credit_line_cny, ...changes } = parse(TenantChange, body)
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
  const changed = await deps.turns.run(id, async () => {
    const known = await tenantOrThrow(id, deps)
    const record: TenantRecord = { ...known, ...given, credit_line_nano: credit_line_cny ?? known.credit_line_nano }
    const seq = await putTenant(record, deps)
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
