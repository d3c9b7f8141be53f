/** Who may reach what: private models and endpoints, zones, the models of a key. Pure: the one place that says so for every plane. */
import type { Endpoint, Model } from '../config/model.ts'
import { type Filed, mayServePublic } from './filings.ts'
import type { KeyRecord, ProjectRecord, TenantRecord } from '../storage/records.ts'

/** Whose request it is, as far as access goes. */
export interface Party {
  readonly tenant: Pick<TenantRecord, 'id' | 'zones' | 'audience'>
  readonly project: Pick<ProjectRecord, 'zones'>
  readonly key: Pick<KeyRecord, 'zones' | 'models'>
}

/** A model as far as it says for whom it is. */
export type Reserved = Pick<Model, 'tenants' | 'endpoints' | 'inactive'>

/** Whether a model or endpoint is for this tenant: for everybody, or it is named. */
export function isOpenTo(tenant: string, { tenants }: Pick<Model, 'tenants'>): boolean {
  return tenants === null || tenants.includes(tenant)
}

/**
 * Whether a model exists for this tenant. One that is reserved for others, or whose every endpoint is, does not: whoever asks for it hears
 * what is said of a name that nobody has.
 */
export function isVisibleTo(tenant: string, model: Reserved): boolean {
  if (!isOpenTo(tenant, model)) return false
  return model.endpoints.some((endpoint) => isOpenTo(tenant, endpoint)) || model.inactive.some(({ target }) => isOpenTo(tenant, target))
}

/** The model's callable endpoints that exist for this tenant; none of a model that does not. */
export function endpointsFor(tenant: string, model: Pick<Model, 'tenants' | 'endpoints'>): readonly Endpoint[] {
  if (!isOpenTo(tenant, model)) return []
  return model.endpoints.every(({ tenants }) => tenants === null)
    ? model.endpoints
    : model.endpoints.filter((endpoint) => isOpenTo(tenant, endpoint))
}

/** Whether tenant, project and key all name the endpoint's zone. A project or key that names none has its tenant's. */
export function allowsZone({ tenant, project, key }: Party, { zone }: Pick<Endpoint, 'zone'>): boolean {
  return tenant.zones.includes(zone) && (project.zones?.includes(zone) ?? true) && (key.zones?.includes(zone) ?? true)
}

/** Whether the key names the model, by its id or as it was asked for. A key that names none has all of its tenant's. */
export function allowsModel({ key }: Party, model: string, asked: string): boolean {
  return key.models === null || key.models.includes(model) || key.models.includes(asked)
}

/** Traffic that serves the public goes to filed models only (Interim Measures for Generative AI Services, art. 2 and 17). */
export function mayServeAudience({ tenant }: Party, endpoint: Filed): boolean {
  return tenant.audience === 'internal' || mayServePublic(endpoint)
}
