/** Every endpoint of a catalogue, and whether requests of a tenant, project or key can get there. Pure: the rules of `access.ts` and `lives.ts`, told. */
import type { Catalogue, Endpoint, Model } from '../config/model.ts'
import { allowsModel, allowsZone, isOpenTo, mayServeAudience, type Party } from './access.ts'
import { lifeOf } from './lives.ts'

/** Why an endpoint is closed to somebody. */
export type ClosedBy = 'suspended' | 'private' | 'retired' | 'model' | 'zone' | 'filing' | 'inactive'

/** One way that prompts could take. */
export interface Way {
  readonly model: string
  readonly endpoint: Endpoint
  /** Null where it is open. */
  readonly closed_by: ClosedBy | null
  /** The same in words; empty where it is open. */
  readonly why: string
}

/** Somebody whose prompts are looked at, and whether the tenant is served at all. */
export type Looker = Party & { readonly tenant: Party['tenant'] & { readonly status: 'active' | 'suspended' } }

/** A tenant's own ways: before what its projects and keys narrow. */
export function wholeTenant(tenant: Looker['tenant']): Looker {
  return { tenant, project: { zones: null }, key: { zones: null, models: null } }
}

/** Every endpoint of every model, in the catalogue's order, as this party finds it at an instant. */
export function waysOf(party: Looker, catalogue: Catalogue, now_ms: number): readonly Way[] {
  const names = namesOf(catalogue)
  return [...catalogue.models.values()].flatMap((model) => {
    const way = (endpoint: Endpoint, inactive: string | null): Way => {
      const closed = closedBy(party, model, names.get(model.id) ?? [], endpoint, inactive, now_ms)
      return { model: model.id, endpoint, closed_by: closed?.[0] ?? null, why: closed?.[1] ?? '' }
    }
    return [...model.endpoints.map((endpoint) => way(endpoint, null)), ...model.inactive.map(({ target, reason }) => way(target, reason))]
  })
}

/** Each model's id and aliases. */
function namesOf({ models, aliases }: Catalogue): ReadonlyMap<string, readonly string[]> {
  const names = new Map([...models.keys()].map((id): [string, string[]] => [id, [id]]))
  for (const [alias, id] of aliases) names.get(id)?.push(alias)
  return names
}

function closedBy(
  party: Looker,
  model: Model,
  names: readonly string[],
  endpoint: Endpoint,
  inactive: string | null,
  now_ms: number,
): readonly [ClosedBy, string] | null {
  if (party.tenant.status === 'suspended') return ['suspended', 'the tenant is suspended']
  if (!isOpenTo(party.tenant.id, model) || !isOpenTo(party.tenant.id, endpoint)) return ['private', 'it is reserved for other tenants']
  if (lifeOf(model, now_ms) === 'retired') return ['retired', 'the model is retired']
  if (!names.some((name) => allowsModel(party, model.id, name))) return ['model', 'the key does not name the model']
  if (!allowsZone(party, endpoint)) return ['zone', `the zone ${endpoint.zone} is not among ${zonesText(party, endpoint)}`]
  if (!mayServeAudience(party, endpoint)) return ['filing', 'it has no filing, and the tenant serves the public']
  return inactive === null ? null : ['inactive', inactive]
}

/** Whose zones lack the endpoint's. */
function zonesText({ tenant, project }: Party, { zone }: Endpoint): string {
  if (!tenant.zones.includes(zone)) return `the tenant's`
  return project.zones?.includes(zone) === false ? `the project's` : `the key's`
}

/** Scheme, host and port that an endpoint is spoken to at. */
export function originOf({ base_url }: Pick<Endpoint, 'base_url'>): string {
  const { protocol, hostname, port } = new URL(base_url)
  return `${protocol}//${hostname}:${port === '' ? (protocol === 'https:' ? '443' : '80') : port}`
}
