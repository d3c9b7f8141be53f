import type { GrantUnit } from '../../money/grant.ts'
import { TENANT_DEFAULTS } from '../records.ts'
import type {
  GrantRecord,
  KeyRecord,
  PriceVersionRecord,
  ProjectRecord,
  ProviderKeyRecord,
  RecordChange,
  RoutingRecord,
  TenantRecord,
} from '../records.ts'
import { bigOf, numberOf, type SqlRow, textOf } from './executor.ts'

/** Most texts whose values keys of one load share. */
const MAX_SHARED = 10_000

/** Columns as written; lists and settings are JSON text. */
export interface Tables {
  tenants: TenantColumns
  projects: ProjectColumns
  keys: KeyColumns
  grants: GrantColumns
  tenant_routing: RoutingColumns
  provider_keys: ProviderKeyRecord
  price_versions: PriceVersionRecord
  changes: { seq?: number; kind: string; body: string }
}
type TextLists<T, Names extends keyof T> = Omit<T, Names> & {
  readonly [Name in Names]: T[Name] extends readonly unknown[] ? string : string | null
}
export type TenantColumns = TextLists<TenantRecord, 'zones' | 'limits'>
export type ProjectColumns = TextLists<ProjectRecord, 'zones' | 'limits'>
export type KeyColumns = TextLists<KeyRecord, 'scopes' | 'models' | 'zones' | 'limits'>
export type GrantColumns = TextLists<GrantRecord, 'models' | 'weights'>
export type RoutingColumns = TextLists<RoutingRecord, 'rules' | 'samples' | 'models'>

export function tenantColumns(record: TenantRecord): TenantColumns {
  return { ...record, zones: JSON.stringify(record.zones), limits: JSON.stringify(record.limits) }
}

export function projectColumns(record: ProjectRecord): ProjectColumns {
  return { ...record, zones: jsonOrNull(record.zones), limits: JSON.stringify(record.limits) }
}

export function keyColumns(record: KeyRecord): KeyColumns {
  const { scopes, models, zones, limits } = record
  return { ...record, scopes: JSON.stringify(scopes), models: jsonOrNull(models), zones: jsonOrNull(zones), limits: JSON.stringify(limits) }
}

export function grantColumns(record: GrantRecord): GrantColumns {
  return { ...record, models: jsonOrNull(record.models), weights: jsonOrNull(record.weights) }
}

export function routingColumns(record: RoutingRecord): RoutingColumns {
  const models = record.models.map(({ max_price_pico: { input, output }, ...model }) => ({
    ...model,
    max_price_pico: { input: input?.toString() ?? null, output: output?.toString() ?? null },
  }))
  return {
    ...record,
    rules: JSON.stringify(record.rules),
    samples: JSON.stringify(record.samples),
    models: JSON.stringify(models),
  }
}

export function tenantOf(row: SqlRow): TenantRecord {
  return {
    id: textOf(row, 'id'),
    name: textOf(row, 'name'),
    audience: textOf(row, 'audience') as TenantRecord['audience'],
    status: textOf(row, 'status') as TenantRecord['status'],
    locale: textOf(row, 'locale') as TenantRecord['locale'],
    time_zone: textOf(row, 'time_zone'),
    zones: fromJson<readonly string[]>(row, 'zones'),
    on_client_abort: textOf(row, 'on_client_abort') as TenantRecord['on_client_abort'],
    on_limits_away: textOf(row, 'on_limits_away') as TenantRecord['on_limits_away'],
    credit_line_nano: bigOf(row, 'credit_line_nano'),
    limits: fromJson<TenantRecord['limits']>(row, 'limits'),
    registration_number: textOrNull(row, 'registration_number'),
    public_slug: textOrNull(row, 'public_slug'),
    label: textOf(row, 'label') as TenantRecord['label'],
    label_text: textOrNull(row, 'label_text'),
    label_place: textOf(row, 'label_place') as TenantRecord['label_place'],
    priority: textOf(row, 'priority') as TenantRecord['priority'],
    queue_weight: numberOf(row, 'queue_weight'),
    created_at: numberOf(row, 'created_at'),
  }
}

export function projectOf(row: SqlRow): ProjectRecord {
  return {
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    name: textOf(row, 'name'),
    limits: fromJson<ProjectRecord['limits']>(row, 'limits'),
    zones: fromJsonOrNull<readonly string[]>(row, 'zones'),
    created_at: numberOf(row, 'created_at'),
  }
}

export function keyOf(row: SqlRow): KeyRecord {
  return {
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    project: textOf(row, 'project'),
    name: textOf(row, 'name'),
    hash: textOf(row, 'hash'),
    last4: textOf(row, 'last4'),
    scopes: fromJson<readonly string[]>(row, 'scopes'),
    models: fromJsonOrNull<readonly string[]>(row, 'models'),
    zones: fromJsonOrNull<readonly string[]>(row, 'zones'),
    limits: fromJson<KeyRecord['limits']>(row, 'limits'),
    expires_at: timeOrNull(row, 'expires_at'),
    revoked_at: timeOrNull(row, 'revoked_at'),
    created_at: numberOf(row, 'created_at'),
  }
}

/** The columns of a key in the order in which a page has them. */
export const KEY_COLUMNS = [
  ...(['id', 'tenant', 'project', 'name', 'hash', 'last4'] as const),
  ...(['scopes', 'models', 'zones', 'limits', 'expires_at', 'revoked_at', 'created_at'] as const),
]

/**
 * Decodes pages of keys, each a JSON list of lists of {@link KEY_COLUMNS}. Equal texts and lists of different keys become one value:
 * most keys have the limits of many others, and there may be millions.
 *
 * @throws TypeError if a column is not what the schema says
 */
export function keyPageDecoder(): (page: string) => readonly KeyRecord[] {
  const names = new Shared<string>((text) => text)
  const lists = new Shared<readonly string[]>((text) => JSON.parse(text) as readonly string[])
  const limits = new Shared<KeyRecord['limits']>((text) => JSON.parse(text) as KeyRecord['limits'])
  const listOrNull = (value: unknown): readonly string[] | null => (value === null ? null : lists.of(pageText(value)))
  const decode = (row: readonly unknown[]): KeyRecord => ({
    id: pageText(row[0]),
    tenant: names.of(pageText(row[1])),
    project: names.of(pageText(row[2])),
    name: pageText(row[3]),
    hash: pageText(row[4]),
    last4: pageText(row[5]),
    scopes: lists.of(pageText(row[6])),
    models: listOrNull(row[7]),
    zones: listOrNull(row[8]),
    limits: limits.of(pageText(row[9])),
    expires_at: row[10] === null ? null : pageTime(row[10]),
    revoked_at: row[11] === null ? null : pageTime(row[11]),
    created_at: pageTime(row[12]),
  })
  return (page) => (JSON.parse(page) as readonly (readonly unknown[])[]).map(decode)
}

/** One value per text, as long as there are not too many texts. */
class Shared<T> {
  readonly #known = new Map<string, T>()
  readonly #make: (text: string) => T

  constructor(make: (text: string) => T) {
    this.#make = make
  }

  of(text: string): T {
    const known = this.#known.get(text)
    if (known !== undefined) return known
    const value = this.#make(text)
    if (this.#known.size < MAX_SHARED) this.#known.set(text, value)
    return value
  }
}

function pageText(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('a column of a key is not text')
  return value
}

function pageTime(value: unknown): number {
  if (!Number.isSafeInteger(value)) throw new TypeError('a time of a key is not an integer within 2^53')
  return value as number
}

export function grantOf(row: SqlRow): GrantRecord {
  return {
    id: textOf(row, 'id'),
    tenant: textOf(row, 'tenant'),
    kind: textOf(row, 'kind') as GrantRecord['kind'],
    unit: textOf(row, 'unit') as GrantUnit,
    amount: bigOf(row, 'amount'),
    priority: numberOf(row, 'priority'),
    models: fromJsonOrNull<readonly string[]>(row, 'models'),
    weights: fromJsonOrNull<Readonly<Record<string, string>>>(row, 'weights'),
    expires_at: timeOrNull(row, 'expires_at'),
    created_at: numberOf(row, 'created_at'),
  }
}

export function routingOf(row: SqlRow): RoutingRecord {
  const bigOrNull = (text: string | null): bigint | null => (text === null ? null : BigInt(text))
  const models = fromJson<readonly TextModel[]>(row, 'models')
  return {
    tenant: textOf(row, 'tenant'),
    version: numberOf(row, 'version'),
    rules: fromJson<RoutingRecord['rules']>(row, 'rules'),
    samples: fromJson<RoutingRecord['samples']>(row, 'samples'),
    models: models.map(({ max_price_pico: { input, output }, ...model }) => ({
      ...model,
      max_price_pico: { input: bigOrNull(input), output: bigOrNull(output) },
    })),
    updated_at: numberOf(row, 'updated_at'),
  }
}

/** A virtual model whose prices are digits. */
type TextModel = Omit<RoutingRecord['models'][number], 'max_price_pico'> & {
  readonly max_price_pico: { readonly input: string | null; readonly output: string | null }
}

export function providerKeyOf(row: SqlRow): ProviderKeyRecord {
  const limit = (column: string): number | null => (row[column] === null ? null : numberOf(row, column))
  return {
    id: textOf(row, 'id'),
    provider: textOf(row, 'provider'),
    name: textOf(row, 'name'),
    secret: textOf(row, 'secret'),
    last4: row['last4'] === null ? null : textOf(row, 'last4'),
    weight: numberOf(row, 'weight'),
    concurrency: limit('concurrency'),
    requests_per_minute: limit('requests_per_minute'),
    tokens_per_minute: limit('tokens_per_minute'),
    status: textOf(row, 'status') as ProviderKeyRecord['status'],
    created_at: numberOf(row, 'created_at'),
    changed_at: numberOf(row, 'changed_at'),
  }
}

export function priceVersionOf(row: SqlRow): PriceVersionRecord {
  return {
    id: textOf(row, 'id'),
    side: textOf(row, 'side') as PriceVersionRecord['side'],
    subject: textOf(row, 'subject'),
    effective_from: numberOf(row, 'effective_from'),
    body: textOf(row, 'body'),
    created_at: numberOf(row, 'created_at'),
  }
}

/** The JSON of a change's record; its bigint is a decimal string. Of routing only whose it is: its texts are in one place alone. */
export function changeBody(change: RecordChange): string {
  switch (change.kind) {
    case 'tenant':
      return JSON.stringify({ ...change.record, credit_line_nano: change.record.credit_line_nano.toString() })
    case 'grant':
      return JSON.stringify({ ...change.record, amount: change.record.amount.toString() })
    case 'routing':
      return JSON.stringify({ tenant: change.record.tenant })
    case 'project':
    case 'key':
      return JSON.stringify(change.record)
    case 'provider_key':
      // The log of changes is kept: a secret that was removed or rewrapped would stay in it as it was.
      return JSON.stringify({ ...change.record, secret: '' })
  }
}

/** The tenant that a change of routing is about. */
export function routedTenant(body: string): string {
  return (JSON.parse(body) as { readonly tenant: string }).tenant
}

/** Reads what {@link changeBody} wrote of everything but routing; null for a kind that only a later release knows. */
export function changeOf(kind: string, body: string): RecordChange | null {
  const record: unknown = JSON.parse(body)
  switch (kind) {
    case 'tenant': {
      const plain = record as Omit<TenantRecord, 'credit_line_nano'> & { credit_line_nano: string }
      return { kind, record: { ...TENANT_DEFAULTS, ...plain, credit_line_nano: BigInt(plain.credit_line_nano) } }
    }
    case 'grant': {
      // A release before `models` wrote bodies without it.
      const plain = record as Omit<GrantRecord, 'amount' | 'models'> & { amount: string; models?: GrantRecord['models'] }
      return { kind, record: { ...plain, models: plain.models ?? null, amount: BigInt(plain.amount) } }
    }
    case 'project':
      return { kind, record: record as ProjectRecord }
    case 'key':
      return { kind, record: record as KeyRecord }
    case 'provider_key':
      return { kind, record: record as ProviderKeyRecord }
    default:
      return null
  }
}

function jsonOrNull(value: unknown): string | null {
  return value === null ? null : JSON.stringify(value)
}

function fromJson<T>(row: SqlRow, column: string): T {
  return JSON.parse(textOf(row, column)) as T
}

function fromJsonOrNull<T>(row: SqlRow, column: string): T | null {
  return row[column] === null ? null : fromJson<T>(row, column)
}

function textOrNull(row: SqlRow, column: string): string | null {
  return row[column] === null ? null : textOf(row, column)
}

function timeOrNull(row: SqlRow, column: string): number | null {
  return row[column] === null ? null : numberOf(row, column)
}
