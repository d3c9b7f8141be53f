import type { GrantUnit } from '../../money/grant.ts'
import { bucketOf, type OutboxQuery, type OutboxRow, type OutboxSlice } from '../cluster-ports.ts'
import { plainTerms, termsOf } from '../grants.ts'
import type { GrantTerms } from '../ports.ts'
import { bigOf, numberOf, type SqlRow, textOf } from '../sql/executor.ts'
import { grantOf } from '../sql/tables.ts'
import { bigints, texts } from './arrays.ts'
import type { OutboxDelta } from './charges.ts'
import type { Database } from './database.ts'
import { NOW_MS } from './entries.ts'
import type { Session } from './session.ts'

/** What was delivered can be looked at for so long. */
const DELIVERED_KEPT_MS = 3_600_000
const DELETE_SLICE = 5000

/** The row of a tenant's number stays locked until the transaction ends: its numbers have no gap, and come in the order of commits. */
const TAKE_NUMBERS =
  'INSERT INTO outbox_numbers (tenant, bucket, last_seq) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) ' +
  'ON CONFLICT (tenant) DO UPDATE SET last_seq = outbox_numbers.last_seq + excluded.last_seq RETURNING tenant, last_seq'
const PUT =
  'INSERT INTO outbox (tenant, seq, grant_id, unit, delta, terms) ' +
  'SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[])'

/** Puts rows into the outbox inside the caller's transaction. @param deltas tenants in order */
export async function putOutbox(
  session: Session,
  deltas: ReadonlyArray<OutboxDelta & { readonly terms?: GrantTerms }>,
): Promise<readonly string[]> {
  const counts = new Map<string, number>()
  for (const { tenant } of deltas) counts.set(tenant, (counts.get(tenant) ?? 0) + 1)
  const tenants = [...counts.keys()]
  if (tenants.length === 0) return []
  const { rows } = await session.prepared(TAKE_NUMBERS, [texts(tenants), bigints(tenants.map(bucketOf)), bigints([...counts.values()])])
  const next = new Map(rows.map((row) => [textOf(row, 'tenant'), numberOf(row, 'last_seq') - (counts.get(textOf(row, 'tenant')) ?? 0)]))
  const seqs = deltas.map(({ tenant }) => {
    const seq = (next.get(tenant) ?? 0) + 1
    next.set(tenant, seq)
    return seq
  })
  await session.prepared(PUT, [
    texts(deltas.map(({ tenant }) => tenant)),
    bigints(seqs),
    texts(deltas.map(({ grant }) => grant)),
    texts(deltas.map(({ unit }) => unit)),
    bigints(deltas.map(({ delta }) => delta)),
    texts(deltas.map(({ terms }) => (terms === undefined ? null : JSON.stringify(terms)))),
  ])
  return tenants
}

const WAITING = (tenant: boolean): string =>
  'SELECT o.tenant AS of_tenant, o.seq, o.grant_id, o.unit AS of_unit, o.delta, o.terms, g.* FROM (' +
  `SELECT * FROM outbox WHERE delivered_at IS NULL${tenant ? ' AND tenant = $2' : ''} ORDER BY tenant, seq LIMIT $1) AS o ` +
  'LEFT JOIN grants AS g ON g.id = o.grant_id AND g.tenant = o.tenant ORDER BY o.tenant, o.seq'

/** From one tenant that waits to the next, whatever lies between: as many steps as tenants, not as rows. */
const SLICE =
  'WITH RECURSIVE waiting (tenant) AS (' +
  '(SELECT tenant FROM outbox WHERE delivered_at IS NULL AND tenant > $1 ORDER BY tenant LIMIT 1) UNION ALL ' +
  'SELECT (SELECT o.tenant FROM outbox AS o WHERE o.delivered_at IS NULL AND o.tenant > w.tenant ORDER BY o.tenant LIMIT 1) ' +
  'FROM waiting AS w WHERE w.tenant IS NOT NULL), ' +
  'chosen AS (SELECT tenant FROM waiting WHERE tenant IS NOT NULL AND NOT bucket_of(tenant) = ANY ($2::bigint[]) LIMIT $3) ' +
  'SELECT o.tenant AS of_tenant, o.seq, o.grant_id, o.unit AS of_unit, o.delta, o.terms, g.* FROM chosen CROSS JOIN LATERAL (' +
  'SELECT * FROM outbox WHERE tenant = chosen.tenant AND delivered_at IS NULL ORDER BY seq LIMIT $4) AS o ' +
  'LEFT JOIN grants AS g ON g.id = o.grant_id AND g.tenant = o.tenant ORDER BY o.tenant, o.seq'

const COUNT = 'SELECT COUNT(*) AS waiting FROM (SELECT 1 FROM outbox WHERE delivered_at IS NULL LIMIT $1) AS w'

const BETWEEN =
  'SELECT o.tenant AS of_tenant, o.seq, o.grant_id, o.unit AS of_unit, o.delta, o.terms, g.* FROM outbox AS o ' +
  'LEFT JOIN grants AS g ON g.id = o.grant_id AND g.tenant = o.tenant WHERE o.tenant = $1 AND o.seq > $2 AND o.seq <= $3 ORDER BY o.seq'

/** Rows for limits. Their terms are those that the grant has now, so that none of them can bring back older ones. */
export class Outbox {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async waiting(limit: number, tenant?: string): Promise<readonly OutboxRow[]> {
    const values = tenant === undefined ? [limit] : [limit, tenant]
    const { rows } = await this.#database.use((session) => session.run(WAITING(tenant !== undefined), values))
    return rows.map(rowOf)
  }

  async slice({ after, without, tenants, rows_each }: OutboxQuery): Promise<OutboxSlice> {
    const values = [after, bigints(without), tenants, rows_each]
    const rows = (await this.#database.use((session) => session.run(SLICE, values))).rows.map(rowOf)
    const seen = new Set(rows.map(({ tenant }) => tenant)).size
    return { rows, last: seen < tenants ? null : (rows.at(-1)?.tenant ?? null) }
  }

  async count(most: number): Promise<number> {
    const { rows } = await this.#database.use((session) => session.run(COUNT, [most]))
    return Number(bigOf(rows[0] ?? {}, 'waiting'))
  }

  async delivered(tenant: string, seq: number): Promise<void> {
    const sql = `UPDATE outbox SET delivered_at = ${NOW_MS} WHERE tenant = $1 AND seq <= $2 AND delivered_at IS NULL`
    await this.#database.transaction((session) => session.run(sql, [tenant, seq]))
  }

  async tell(terms: GrantTerms, delta: bigint): Promise<void> {
    const { tenant, id, unit } = terms
    await this.#database.transaction((session) => putOutbox(session, [{ tenant, grant: id, unit, delta, terms }]))
  }

  /** Rows of a tenant's numbers from `after` up to and with `last`, delivered or not. */
  async between(tenant: string, after: number, last: number): Promise<readonly OutboxRow[]> {
    const { rows } = await this.#database.use((session) => session.run(BETWEEN, [tenant, after, last]))
    return rows.map(rowOf)
  }

  /** Deletes some of what was delivered long ago. @returns whether there is more */
  async deleteSome(now_ms: number): Promise<boolean> {
    const sql =
      'DELETE FROM outbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM outbox WHERE delivered_at < $1 ' +
      `ORDER BY delivered_at LIMIT ${DELETE_SLICE}))`
    const { count } = await this.#database.transaction((session) => session.run(sql, [now_ms - DELIVERED_KEPT_MS]))
    return count === DELETE_SLICE
  }
}

function rowOf(row: SqlRow): OutboxRow {
  const tenant = textOf(row, 'of_tenant')
  const [grant, unit] = [textOf(row, 'grant_id'), textOf(row, 'of_unit') as GrantUnit]
  const given = row['terms'] === null ? plainTerms(grant, tenant, unit) : (JSON.parse(textOf(row, 'terms')) as GrantTerms)
  return { tenant, seq: numberOf(row, 'seq'), grant: row['id'] === null ? given : termsOf(grantOf(row)), delta: bigOf(row, 'delta') }
}
