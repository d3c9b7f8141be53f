import type { GrantUnit } from '../../money/grant.ts'
import type { GrantRecord, KeyRecord, PriceVersionRecord, ProjectRecord, RecordChange, TenantRecord } from '../ports.ts'
import { bigOf, numberOf, type SqlRow, textOf } from './executor.ts'

/** Columns as written; lists and settings are JSON text. */
export interface Tables {
  tenants: TenantColumns
  projects: ProjectColumns
  keys: KeyColumns
  grants: GrantColumns
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

/** The JSON of a change's record; its bigint is a decimal string. */
export function changeBody(change: RecordChange): string {
  switch (change.kind) {
    case 'tenant':
      return JSON.stringify({ ...change.record, credit_line_nano: change.record.credit_line_nano.toString() })
    case 'grant':
      return JSON.stringify({ ...change.record, amount: change.record.amount.toString() })
    case 'project':
    case 'key':
      return JSON.stringify(change.record)
  }
}

/** Reads what {@link changeBody} wrote. */
export function changeOf(kind: RecordChange['kind'], body: string): RecordChange {
  const record: unknown = JSON.parse(body)
  switch (kind) {
    case 'tenant': {
      const plain = record as Omit<TenantRecord, 'credit_line_nano'> & { credit_line_nano: string }
      return { kind, record: { ...plain, credit_line_nano: BigInt(plain.credit_line_nano) } }
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

function timeOrNull(row: SqlRow, column: string): number | null {
  return row[column] === null ? null : numberOf(row, column)
}
