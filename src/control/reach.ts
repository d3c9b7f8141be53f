import type { Configuration } from '../config/model.ts'
import { originOf, waysOf, wholeTenant, type Looker, type Way } from '../routing/reach.ts'
import type { KeyRecord, ProjectRecord, TenantRecord } from '../storage/records.ts'
import { proxyFor, type ProxySettings } from '../upstream/proxy.ts'
import type { ControlDeps } from './deps.ts'
import { tenantOrThrow } from './find.ts'
import { AdminProblem } from './problem.ts'

/** Most keys that a group names; the others are counted. */
const MOST_KEYS = 20
/** Most groups of keys that an answer tells of. */
const MOST_GROUPS = 200

/**
 * Where the prompts of a tenant can go, by the configuration in force: every model and endpoint with its address, zone and filing, and why
 * the others are closed; then each project, and each group of keys with the same settings, for which something is closed that the
 * tenant has open. Revoked and expired keys are left out.
 *
 * @throws AdminProblem `not_found`, `conflict` where no configuration can be read
 */
export async function reachOf(tenant_id: string, deps: ControlDeps): Promise<object> {
  const configuration = deps.configuration()
  if (configuration === null) throw new AdminProblem('conflict', 'the configuration cannot be read: weir check says why')
  const tenant = await tenantOrThrow(tenant_id, deps)
  const now_ms = deps.clock.now_ms()
  const ways = (party: Looker): readonly Way[] => waysOf(party, configuration.catalogue, now_ms)
  const own = ways(wholeTenant(tenant))
  const projects = await deps.records.projects(tenant_id)
  const keys = (await deps.records.keys(tenant_id)).filter((key) => isLive(key, now_ms))
  const groups = [...Map.groupBy(keys, settingsOf).values()]
  const { id, status, audience, zones } = tenant
  return {
    object: 'reach',
    tenant: { id, status, audience, zones },
    configuration: { digest: configuration.digest, in_force: deps.offline !== true },
    ways: own.map((way) => wayView(way, configuration.settings.proxy)),
    projects: projects.flatMap((project) => projectView(project, tenant, own, ways)),
    keys: groups.slice(0, MOST_GROUPS).flatMap((group) => groupView(group, projects, tenant, ways)),
    more_groups: Math.max(0, groups.length - MOST_GROUPS),
  }
}

function isLive({ revoked_at, expires_at }: KeyRecord, now_ms: number): boolean {
  return revoked_at === null && (expires_at === null || expires_at > now_ms)
}

/** Keys of which this is the same reach the same. */
function settingsOf({ project, zones, models }: KeyRecord): string {
  return JSON.stringify([project, zones?.toSorted() ?? null, models?.toSorted() ?? null])
}

function wayView({ model, endpoint, closed_by, why }: Way, proxy: Configuration['settings']['proxy']): object {
  const via = viaOf(endpoint, proxy)
  return {
    model,
    endpoint: endpoint.id,
    origin: originOf(endpoint),
    ...(via === null ? {} : { via }),
    zone: endpoint.zone,
    filing: endpoint.filing?.number ?? null,
    sandbox: endpoint.sandbox,
    open: closed_by === null,
    ...(closed_by === null ? {} : { closed_by, why }),
  }
}

/** The proxy on the way, without its credentials. */
function viaOf(endpoint: Way['endpoint'], settings: ProxySettings): string | null {
  const proxy = endpoint.transport.proxy ?? proxyFor(new URL(endpoint.base_url).origin, settings)
  return proxy === null ? null : originOf({ base_url: proxy })
}

type Ways = (party: Looker) => readonly Way[]

function projectView(project: ProjectRecord, tenant: TenantRecord, own: readonly Way[], ways: Ways): object[] {
  const closed = narrowed(own, ways({ ...wholeTenant(tenant), project }))
  return closed.length === 0 ? [] : [{ id: project.id, zones: project.zones, closed }]
}

function groupView(group: readonly KeyRecord[], projects: readonly ProjectRecord[], tenant: TenantRecord, ways: Ways): object[] {
  const [key] = group
  const project = projects.find(({ id }) => id === key?.project)
  if (key === undefined || project === undefined) return []
  const of_project = ways({ ...wholeTenant(tenant), project })
  const closed = narrowed(of_project, ways({ tenant, project, key }))
  if (closed.length === 0) return []
  const { zones, models } = key
  return [{ ids: group.slice(0, MOST_KEYS).map(({ id }) => id), count: group.length, project: project.id, zones, models, closed }]
}

/** What is open before and closed after. */
function narrowed(before: readonly Way[], after: readonly Way[]): object[] {
  return after.flatMap(({ model, endpoint, closed_by, why }, index) =>
    closed_by === null || before[index]?.closed_by !== null ? [] : [{ model, endpoint: endpoint.id, closed_by, why }],
  )
}
