import type { Compilable, Kysely } from 'kysely'
import {
  type ExpiredGrantsQuery,
  type ExpiredGrantsSlice,
  type GrantRecord,
  type KeyRecord,
  type LoadedRecords,
  type NumberedChange,
  PriceVersionConflict,
  type PriceVersionRecord,
  type ProjectRecord,
  type ProviderKeyRecord,
  PublicSlugTaken,
  type RecordChange,
  type Records,
  type RoutingRecord,
  type TenantRecord,
} from '../records.ts'
import { type SqlDialect, SQLITE } from './dialect.ts'
import { numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf, UniqueViolation } from './executor.ts'
import {
  changeBody,
  changeOf,
  grantColumns,
  grantOf,
  KEY_COLUMNS,
  keyColumns,
  keyOf,
  keyPageDecoder,
  priceVersionOf,
  projectColumns,
  projectOf,
  providerKeyOf,
  routedTenant,
  routingColumns,
  routingOf,
  type Tables,
  tenantColumns,
  tenantOf,
} from './tables.ts'

/** Records on SQL: each write and its numbered change in one transaction. */
export class SqlRecords implements Records {
  readonly #executor: SqlExecutor
  readonly #dialect: SqlDialect

  constructor(executor: SqlExecutor, dialect: SqlDialect = SQLITE) {
    this.#executor = executor
    this.#dialect = dialect
  }

  async put(change: RecordChange): Promise<number> {
    const sql = this.#dialect.queries
    const log = sql
      .insertInto('changes')
      .values({ kind: change.kind, body: changeBody(change) })
      .returning('seq')
    const results = await this.#written([upsert(change, sql), statementOf(log)], change)
    const [row] = results[1] ?? []
    if (row === undefined) throw new TypeError('a change was written without a number')
    return numberOf(row, 'seq')
  }

  async #written(statements: readonly SqlStatement[], change: RecordChange): ReturnType<SqlExecutor['write']> {
    try {
      return await this.#executor.write(statements)
    } catch (error) {
      if (change.kind !== 'tenant' || change.record.public_slug === null) throw error
      const { id, public_slug: slug } = change.record
      const tenants = this.#dialect.queries.selectFrom('tenants').select('id').where('public_slug', '=', slug)
      const taken = (await this.#read(tenants)).some((row) => textOf(row, 'id') !== id)
      throw taken ? new PublicSlugTaken(slug) : error
    }
  }

  async tenant(id: string): Promise<TenantRecord | null> {
    const [row] = await this.#read(this.#dialect.queries.selectFrom('tenants').selectAll().where('id', '=', id))
    return row === undefined ? null : tenantOf(row)
  }

  async tenants(): Promise<readonly TenantRecord[]> {
    return (await this.#read(this.#dialect.queries.selectFrom('tenants').selectAll().orderBy('id'))).map(tenantOf)
  }

  async projects(tenant: string): Promise<readonly ProjectRecord[]> {
    return (await this.#read(this.#dialect.queries.selectFrom('projects').selectAll().where('tenant', '=', tenant).orderBy('id'))).map(
      projectOf,
    )
  }

  async keys(tenant?: string): Promise<readonly KeyRecord[]> {
    const all = this.#dialect.queries.selectFrom('keys').selectAll().orderBy('id')
    return (await this.#read(tenant === undefined ? all : all.where('tenant', '=', tenant))).map(keyOf)
  }

  async key(id: string): Promise<KeyRecord | null> {
    const [row] = await this.#read(this.#dialect.queries.selectFrom('keys').selectAll().where('id', '=', id))
    return row === undefined ? null : keyOf(row)
  }

  async grants(tenant?: string): Promise<readonly GrantRecord[]> {
    const all = this.#dialect.queries.selectFrom('grants').selectAll().orderBy('id')
    return (await this.#read(tenant === undefined ? all : all.where('tenant', '=', tenant))).map(grantOf)
  }

  async routing(tenant: string): Promise<RoutingRecord | null> {
    const [row] = await this.#read(this.#dialect.queries.selectFrom('tenant_routing').selectAll().where('tenant', '=', tenant))
    return row === undefined ? null : routingOf(row)
  }

  async expiredGrants({ from_ms, to_ms, after, limit }: ExpiredGrantsQuery): Promise<ExpiredGrantsSlice> {
    const params = [after?.expires_at ?? from_ms, after?.id ?? '', to_ms, limit]
    const [rows = []] = await this.#executor.read([{ sql: expiredGrants(this.#dialect), params }])
    const last = rows.length < limit ? undefined : rows.at(-1)
    return {
      grants: rows.filter((row) => row['has_rest'] !== 0n).map(grantOf),
      last: last === undefined ? null : { expires_at: numberOf(last, 'expires_at'), id: textOf(last, 'id') },
    }
  }

  async load(
    onKeys: (keys: readonly KeyRecord[]) => void,
    onRouting?: (routing: readonly RoutingRecord[]) => void,
  ): Promise<LoadedRecords> {
    const sql = this.#dialect.queries
    const [seqs, tenants, projects, grants] = await this.#executor.read([
      statementOf(sql.selectFrom('changes').select('seq').orderBy('seq', 'desc').limit(1)),
      statementOf(sql.selectFrom('tenants').selectAll().orderBy('id')),
      statementOf(sql.selectFrom('projects').selectAll().orderBy('id')),
      statementOf(sql.selectFrom('grants').selectAll().orderBy('id')),
    ])
    await this.#everyKey(onKeys)
    if (onRouting !== undefined) await this.#everyRouting(onRouting)
    const [last] = seqs ?? []
    return {
      seq: last === undefined ? 0 : numberOf(last, 'seq'),
      tenants: (tenants ?? []).map(tenantOf),
      projects: (projects ?? []).map(projectOf),
      grants: (grants ?? []).map(grantOf),
    }
  }

  /** The reader's thread reads a page while this one decodes the page before. */
  async #everyKey(onKeys: (keys: readonly KeyRecord[]) => void): Promise<void> {
    const decode = keyPageDecoder()
    let page = await this.#keyPage('')
    while (page !== null) {
      const next = this.#keyPage(page.last)
      // Its failure is this method's, unless decoding fails before it is waited for.
      next.catch(() => {})
      onKeys(decode(page.keys))
      page = await next
    }
  }

  async #keyPage(after: string): Promise<{ readonly last: string; readonly keys: string } | null> {
    const [rows = []] = await this.#executor.read([{ sql: keyPage(this.#dialect), params: [after, KEY_PAGE_ROWS] }])
    const [row] = rows
    return row === undefined || row['last'] === null ? null : { last: textOf(row, 'last'), keys: textOf(row, 'keys') }
  }

  async #everyRouting(onRouting: (routing: readonly RoutingRecord[]) => void): Promise<void> {
    const sql = this.#dialect.queries
    for (let after: string | undefined = ''; after !== undefined;) {
      const page = sql.selectFrom('tenant_routing').selectAll().where('tenant', '>', after).orderBy('tenant').limit(ROUTING_PAGE_ROWS)
      const routing: readonly RoutingRecord[] = (await this.#read(page)).map(routingOf)
      if (routing.length > 0) onRouting(routing)
      after = routing.at(-1)?.tenant
    }
  }

  async changesAfter(seq: number, limit: number): Promise<readonly NumberedChange[]> {
    const rows = await this.#read(
      this.#dialect.queries.selectFrom('changes').selectAll().where('seq', '>', seq).orderBy('seq').limit(limit),
    )
    const known = new Map<string, RoutingRecord>()
    const changes: NumberedChange[] = []
    for (const row of rows) changes.push({ seq: numberOf(row, 'seq'), change: await this.#changeOf(row, known) })
    return changes
  }

  /** @param known what was read for earlier rows, by tenant */
  async #changeOf(row: SqlRow, known: Map<string, RoutingRecord>): Promise<RecordChange | null> {
    const kind = textOf(row, 'kind')
    const body = textOf(row, 'body')
    if (kind !== 'routing') return changeOf(kind, body)
    const tenant = routedTenant(body)
    const record = known.get(tenant) ?? (await this.routing(tenant))
    if (record === null) return null
    known.set(tenant, record)
    return { kind, record }
  }

  async providerKeys(): Promise<readonly ProviderKeyRecord[]> {
    return (await this.#read(this.#dialect.queries.selectFrom('provider_keys').selectAll().orderBy('id'))).map(providerKeyOf)
  }

  async putPriceVersions(versions: readonly PriceVersionRecord[]): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#putMissing(versions)
      } catch (error) {
        // Another process has stored some of them meanwhile, and so none of this batch: they are to be compared now.
        if (!(error instanceof UniqueViolation) || attempt >= PUT_ATTEMPTS) throw error
      }
    }
  }

  async #putMissing(versions: readonly PriceVersionRecord[]): Promise<void> {
    const known = new Map((await this.priceVersions()).map((version) => [version.id, version.body]))
    const missing = new Map<string, PriceVersionRecord>()
    for (const version of versions) {
      const body = known.get(version.id) ?? missing.get(version.id)?.body
      if (body === undefined) missing.set(version.id, version)
      else if (body !== version.body) throw new PriceVersionConflict(version.id)
    }
    // No "on conflict": should another writer have stored the id meanwhile, the primary key refuses the whole batch.
    const sql = this.#dialect.queries
    const inserts = [...missing.values()].map((version) => statementOf(sql.insertInto('price_versions').values(version)))
    if (inserts.length > 0) await this.#executor.write(inserts)
  }

  async priceVersions(): Promise<readonly PriceVersionRecord[]> {
    return (await this.#read(this.#dialect.queries.selectFrom('price_versions').selectAll().orderBy('id'))).map(priceVersionOf)
  }

  async #read(query: Compilable): Promise<readonly SqlRow[]> {
    const [rows] = await this.#executor.read([statementOf(query)])
    return rows ?? []
  }
}

/** What one tenant says of routing may be some megabytes. */
const ROUTING_PAGE_ROWS = 20
/** Some milliseconds of decoding, which is what other work may have to wait. */
const KEY_PAGE_ROWS = 2000
/** One text for a page: rows would be copied between threads value by value, which takes several times as long. */
function keyPage({ jsonList, jsonGroup }: SqlDialect): string {
  return (
    `SELECT max(id) AS last, ${jsonGroup(jsonList(KEY_COLUMNS))} AS keys ` +
    'FROM (SELECT * FROM keys WHERE id > ? ORDER BY id LIMIT ?) AS page'
  )
}

/** What is left of a grant is a credit balance, which is negative. */
function expiredGrants({ balance_of_grant }: SqlDialect): string {
  return (
    'SELECT g.*, CASE WHEN EXISTS (SELECT 1 FROM ledger_balances AS b ' +
    "WHERE b.code IN ('wallet_liability', 'prepaid_grant', 'contract_commitment') " +
    `AND b.owner = g.tenant AND b.ref = g.id AND b.unit = g.unit AND b.amount < 0 AND ${balance_of_grant}) THEN 1 ELSE 0 END AS has_rest ` +
    'FROM grants AS g WHERE (expires_at, id) > (?, ?) AND expires_at <= ? ORDER BY expires_at, id LIMIT ?'
  )
}

/** Price versions are put by every process that starts. */
const PUT_ATTEMPTS = 5

function upsert(change: RecordChange, sql: Kysely<Tables>): SqlStatement {
  switch (change.kind) {
    case 'tenant': {
      const { id, ...rest } = tenantColumns(change.record)
      return statementOf(
        sql
          .insertInto('tenants')
          .values({ id, ...rest })
          .onConflict((known) => known.column('id').doUpdateSet(rest)),
      )
    }
    case 'project': {
      const { id, ...rest } = projectColumns(change.record)
      return statementOf(
        sql
          .insertInto('projects')
          .values({ id, ...rest })
          .onConflict((known) => known.column('id').doUpdateSet(rest)),
      )
    }
    case 'key': {
      const { id, ...rest } = keyColumns(change.record)
      return statementOf(
        sql
          .insertInto('keys')
          .values({ id, ...rest })
          .onConflict((known) => known.column('id').doUpdateSet(rest)),
      )
    }
    case 'provider_key': {
      const { id, ...rest } = change.record
      return statementOf(
        sql
          .insertInto('provider_keys')
          .values({ id, ...rest })
          .onConflict((known) => known.column('id').doUpdateSet(rest)),
      )
    }
    case 'grant': {
      const { id, ...rest } = grantColumns(change.record)
      return statementOf(
        sql
          .insertInto('grants')
          .values({ id, ...rest })
          .onConflict((known) => known.column('id').doUpdateSet(rest)),
      )
    }
    case 'routing': {
      const { tenant, ...rest } = routingColumns(change.record)
      return statementOf(
        sql
          .insertInto('tenant_routing')
          .values({ tenant, ...rest })
          .onConflict((known) => known.column('tenant').doUpdateSet(rest)),
      )
    }
  }
}

function statementOf(query: Compilable): SqlStatement {
  const compiled = query.compile()
  return { sql: compiled.sql, params: compiled.parameters.map(parameterOf) }
}

function parameterOf(value: unknown): string | number | bigint | null {
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'bigint') return value
  throw new TypeError(`a ${typeof value} is no SQL value`)
}
