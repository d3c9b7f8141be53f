import { DOMAINS } from '../base/domains.ts'
import type { Configuration, Model } from '../config/model.ts'
import { mayServeAudience } from '../routing/access.ts'
import { lifeOf, type Life } from '../routing/lives.ts'
import { table } from './table.ts'

/** A chat model as the matrix of domains has it. */
export interface MatrixRow {
  readonly model: string
  /** The model that it is a profile of, or null. */
  readonly profile_of: string | null
  readonly life: Life
  /** Tenants that it is reserved for; null for everybody. */
  readonly tenants: readonly string[] | null
  /** `public`: by every tenant; `internal`: by those that do not serve the public; `no`. Whatever their zones allow. */
  readonly callable: 'public' | 'internal' | 'no'
  /** Why not by everybody; empty where it is. */
  readonly why: string
}

/** Chat models by domain. */
export interface DomainMatrix {
  readonly domains: Readonly<Record<string, readonly MatrixRow[]>>
  /** Domains that no vertical model or profile is for. */
  readonly without_vertical: readonly string[]
  /** Domains whose verticals cannot be called. */
  readonly without_callable: readonly string[]
}

/** Something that is allowed and that somebody should look at. */
export interface Finding {
  readonly model: string
  readonly message: string
}

/** What there is for each domain at an instant. */
export function domainMatrix({ catalogue, prices }: Configuration, now_ms: number): DomainMatrix {
  const chats = [...catalogue.models.values()].filter(({ kind }) => kind === 'chat')
  const rowOf = (model: Model): MatrixRow => {
    const { id, profile, tenants } = model
    const why = whyNot(model, prices.sell.has(id), now_ms)
    const filed = model.endpoints.some((endpoint) =>
      mayServeAudience({ ...NOBODY, tenant: { ...NOBODY.tenant, audience: 'public' } }, endpoint),
    )
    const life = lifeOf(model, now_ms)
    const row = { model: id, profile_of: profile?.of ?? null, life, tenants }
    if (why !== null) return { ...row, callable: 'no', why }
    return filed ? { ...row, callable: 'public', why: '' } : { ...row, callable: 'internal', why: 'no endpoint has a filing' }
  }
  const domains = Object.fromEntries(
    DOMAINS.map((domain) => [domain, chats.filter((model) => model.domain === domain).map(rowOf)] as const),
  )
  const verticals = Object.entries(domains).filter(([domain]) => domain !== 'general')
  return {
    domains,
    without_vertical: verticals.filter(([, rows]) => rows.length === 0).map(([domain]) => domain),
    without_callable: verticals
      .filter(([, rows]) => rows.length > 0 && rows.every(({ callable }) => callable === 'no'))
      .map(([domain]) => domain),
  }
}

/** Of whom only the audience is asked. */
const NOBODY = {
  tenant: { id: '', zones: [], audience: 'internal' },
  project: { zones: null },
  key: { zones: null, models: null },
} as const

function whyNot(model: Model, has_price: boolean, now_ms: number): string | null {
  if (lifeOf(model, now_ms) === 'retired') return 'retired'
  if (model.tenants?.length === 0) return 'its tenants and those of its model have nobody in common'
  if (!has_price) return 'no price'
  return model.endpoints.length > 0 ? null : [...new Set(model.inactive.map(({ reason }) => reason))].join('; ')
}

/** What of lives and successors somebody should look at. */
export function findingsOf({ catalogue }: Configuration, now_ms: number): readonly Finding[] {
  return [...catalogue.models.values()].flatMap((model) =>
    messagesOf(model, catalogue.models, now_ms).map((message) => ({ model: model.id, message })),
  )
}

function messagesOf(model: Model, models: ReadonlyMap<string, Model>, now_ms: number): readonly string[] {
  const { life, retires_at, replaced_by, tenants, kind, profile } = model
  const messages: string[] = []
  const successor = replaced_by === null ? undefined : models.get(replaced_by)
  const own_dates = profile === null
  if (own_dates && life !== 'retired' && retires_at !== null && retires_at <= now_ms)
    messages.push('its retires_on has passed, so it is not served: write life: retired')
  if (own_dates && lifeOf(model, now_ms) === 'deprecated' && replaced_by === null) messages.push('is deprecated, and nothing replaces it')
  if (tenants?.length === 0) messages.push('is for nobody: its tenants and those of its model have nobody in common')
  if (successor === undefined) return messages
  if (lifeOf(successor, now_ms) === 'retired') messages.push(`its successor ${successor.id} is retired itself`)
  if (successor.kind !== kind) messages.push(`its successor ${successor.id} is of another kind (${successor.kind})`)
  if (successor.tenants !== null && (tenants === null || tenants.some((tenant) => !successor.tenants?.includes(tenant))))
    messages.push(`its successor ${successor.id} does not exist for all of its tenants`)
  return messages
}

/** Models of one domain that wait for the same are told together beyond this many. */
const MOST_ALIKE = 4

/** The matrix as a table, and what is missing in it. */
export function matrixText({ domains, without_vertical, without_callable }: DomainMatrix): string {
  const rows = Object.entries(domains).flatMap(([domain, models]) => rowsOf(domain, models))
  const lines = [
    ...(without_vertical.length === 0 ? [] : [`nothing vertical for ${without_vertical.join(', ')}: general models serve them`]),
    ...(without_callable.length === 0 ? [] : [`no vertical that can be called for ${without_callable.join(', ')}`]),
  ]
  return [table(['DOMAIN', 'CHAT MODEL', 'CALLABLE', 'WHY NOT'], rows), ...lines.map((line) => `${line}\n`)].join('')
}

function rowsOf(domain: string, models: readonly MatrixRow[]): readonly (readonly string[])[] {
  if (models.length === 0) return [[domain, '-', '-', '']]
  const alike = Map.groupBy(models, ({ callable, why }) => `${callable} ${why}`)
  return [...alike.values()].flatMap((group) => {
    const [first] = group
    if (first === undefined) return []
    const together = first.callable === 'no' && group.length > MOST_ALIKE
    const named = (row: MatrixRow): readonly string[] => [domain, nameOf(row), row.callable, row.why]
    return together
      ? [[domain, `${group.slice(0, 2).map(nameOf).join(', ')} and ${group.length - 2} more`, 'no', first.why]]
      : group.map(named)
  })
}

function nameOf({ model, profile_of, life, tenants }: MatrixRow): string {
  const notes = [
    ...(profile_of === null ? [] : [`profile of ${profile_of}`]),
    ...(life === 'ga' || life === 'retired' ? [] : [life]),
    ...(tenants === null ? [] : [`for ${tenants.join(', ')}`]),
  ]
  return notes.length === 0 ? model : `${model} (${notes.join('; ')})`
}
