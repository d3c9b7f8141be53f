import { dayOf } from '../../base/clock.ts'
import { madeAt } from '../../base/ids.ts'
import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import type { AuditFacts, UsageMark } from '../books.ts'
import type {
  BooksMark,
  BucketBatch,
  BucketEpoch,
  EventKey,
  LockedBucket,
  OutboxQuery,
  OutboxRow,
  OutboxSlice,
  PostedBatch,
  SharedLedger,
} from '../cluster-ports.ts'
import type { NodeBeat, NodeState } from '../nodes.ts'
import type {
  EventPage,
  EventQuery,
  GrantTerms,
  LedgerEntry,
  LedgerTransaction,
  PostResult,
  TransactionPage,
  TransactionQuery,
  UsagePage,
  UsageQuery,
} from '../ports.ts'
import { numberOf, textOf } from '../sql/executor.ts'
import { SqlLedger } from '../sql/ledger.ts'
import { DAY_MS } from '../sql/rollup-batch.ts'
import { bigints, texts } from './arrays.ts'
import { readAuditFacts } from './audit.ts'
import { Buckets, LockTaken, underLock } from './buckets.ts'
import type { Database } from './database.ts'
import { POSTGRES } from './dialect.ts'
import { lockKey, turnLock } from './locks.ts'
import { beat, readNodes } from './nodes.ts'
import { Outbox } from './outbox.ts'
import type { Partitions } from './partitions.ts'
import { Poster } from './post.ts'
import type { Retention } from './retention.ts'
import type { Rollups } from './rollups.ts'
import { transact } from './transact.ts'
import { upkeep } from './upkeep.ts'

/** Connections for work of one kind each, so that none has to wait for another's. */
export interface Databases {
  /** Records, transactions, reads of some milliseconds. */
  readonly short: Database
  /** Postings. */
  readonly posting: Database
  /** Searches, which callers can make take seconds. */
  readonly searching: Database
  /** Audits, reports over all tenants, upkeep. */
  readonly long: Database
  /** Turns that are held while somebody works, who may need any of the others meanwhile. */
  readonly turns: Database
  /** Work that nothing may be posted to a bucket beside. */
  readonly buckets: Database
}

export interface LedgerParts {
  readonly databases: Databases
  readonly schema: string
  readonly partitions: Partitions
  readonly rollups: Rollups
  readonly retention: Retention
  /** Has everything posted that usage logs have closed by now. */
  readonly forward: () => Promise<PostResult>
}

/** The ledger that processes share. */
export class PostgresLedger implements SharedLedger {
  readonly #parts: LedgerParts
  readonly #reads: SqlLedger
  readonly #poster: Poster
  readonly #buckets: Buckets
  readonly #outbox: Outbox

  constructor(parts: LedgerParts) {
    const { databases, partitions, schema, forward } = parts
    const { short, posting, searching, long, buckets } = databases
    this.#parts = parts
    this.#reads = new SqlLedger(
      short,
      { post: forward, transact: (transaction) => transact(transaction, short) },
      long,
      searching,
      POSTGRES,
    )
    this.#poster = new Poster(posting, partitions, schema)
    this.#buckets = new Buckets(short, buckets, this.#poster, schema)
    this.#outbox = new Outbox(short)
  }

  post(): Promise<PostResult> {
    return this.#reads.post()
  }

  transact(transaction: LedgerTransaction): Promise<'posted' | 'duplicate'> {
    return this.#reads.transact(transaction)
  }

  transaction(id: string): Promise<LedgerTransaction | null> {
    return this.#reads.transaction(id)
  }

  transactions(query: TransactionQuery): Promise<TransactionPage> {
    return this.#reads.transactions(query)
  }

  balances(): Promise<readonly LedgerEntry[]> {
    return this.#reads.balances()
  }

  /** An id says when it was made, which is its event's day or, where clocks differ, one beside it; any other is looked for everywhere. */
  async event(id: string): Promise<UsageEvent | null> {
    const made_ms = madeAt(id)
    const days = made_ms === null ? [] : [-1, 0, 1].map((days_off) => dayOf(Math.max(0, made_ms + days_off * DAY_MS)))
    const near = days.length === 0 ? null : await this.#eventWhere(`id = ? AND day IN (${days.map(() => '?').join(', ')})`, [id, ...days])
    return near ?? (await this.#eventWhere('id = ?', [id]))
  }

  events(query: EventQuery): Promise<EventPage> {
    return this.#reads.events(query)
  }

  usage(query: UsageQuery): Promise<UsagePage> {
    return this.#reads.usage(query)
  }

  archivedDays(range: { readonly from_ms?: number; readonly to_ms?: number }): Promise<readonly string[]> {
    return this.#reads.archivedDays(range)
  }

  auditFacts(mark?: UsageMark): Promise<AuditFacts> {
    return readAuditFacts(this.#parts.databases.long, mark)
  }

  postBatches(batches: readonly BucketBatch[]): Promise<readonly PostedBatch[]> {
    return this.#poster.post(batches)
  }

  async known(keys: readonly EventKey[]): Promise<ReadonlyArray<{ readonly node: string; readonly seq: number } | null>> {
    const days = [...new Set(keys.map(({ day }) => day))]
    const columns = [texts(keys.map(({ day }) => day)), texts(keys.map(({ id }) => id)), bigints(keys.map(({ revision }) => revision))]
    const { rows } = await this.#parts.databases.short.use((session) => session.run(KNOWN, [...columns, texts(days)]))
    return rows.map((row) => (row['node'] === null ? null : { node: textOf(row, 'node'), seq: numberOf(row, 'seq') }))
  }

  outbox(limit: number, tenant?: string): Promise<readonly OutboxRow[]> {
    return this.#outbox.waiting(limit, tenant)
  }

  outboxSlice(query: OutboxQuery): Promise<OutboxSlice> {
    return this.#outbox.slice(query)
  }

  outboxWaiting(most: number): Promise<number> {
    return this.#outbox.count(most)
  }

  delivered(tenant: string, seq: number): Promise<void> {
    return this.#outbox.delivered(tenant, seq)
  }

  outboxBetween(tenant: string, after: number, last: number): Promise<readonly OutboxRow[]> {
    return this.#outbox.between(tenant, after, last)
  }

  tell(terms: GrantTerms, delta: bigint): Promise<void> {
    return this.#outbox.tell(terms, delta)
  }

  async keptSecret(name: string, made: string): Promise<string> {
    const [, rows] = await this.#parts.databases.short.write([
      { sql: 'INSERT INTO kept_secrets (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING', params: [name, made] },
      { sql: 'SELECT value FROM kept_secrets WHERE name = ?', params: [name] },
    ])
    const [row] = rows ?? []
    return row === undefined ? made : textOf(row, 'value')
  }

  epochs(): Promise<readonly BucketEpoch[]> {
    return this.#buckets.epochs()
  }

  beginEpoch(buckets: readonly number[], above = 0): Promise<number> {
    return this.#buckets.begin(buckets, above)
  }

  openEpoch(buckets: readonly number[], epoch: number): Promise<boolean> {
    return this.#buckets.open(buckets, epoch)
  }

  mark(): Promise<BooksMark> {
    return this.#buckets.mark()
  }

  setMark(mark: string, current: string | null): Promise<void> {
    return this.#buckets.setMark(mark, current)
  }

  withBucket<Result>(bucket: number, work: (bucket: LockedBucket) => Promise<Result>): Promise<Result> {
    return this.#buckets.withBucket(bucket, work)
  }

  inTurn<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
    return underLock(this.#parts.databases.turns, this.#turn(name), 'wait', work)
  }

  async ifAlone<Result>(name: string, work: () => Promise<Result>): Promise<Result | null> {
    const key = this.#turn(name)
    try {
      return await underLock(this.#parts.databases.turns, key, 'try', work)
    } catch (error) {
      if (error instanceof LockTaken && error.key === key) return null
      throw error
    }
  }

  beat(of: NodeBeat): Promise<void> {
    return beat(of, this.#parts.databases.short)
  }

  nodes(): Promise<readonly NodeState[]> {
    return readNodes(this.#parts.databases.short)
  }

  upkeep(now_ms: number): Promise<boolean> {
    const { partitions, rollups, retention, databases, schema } = this.#parts
    return upkeep(now_ms, { partitions, rollups, retention, outbox: this.#outbox, locks: databases.turns, schema })
  }

  #turn(name: string): bigint {
    return lockKey(this.#parts.schema, turnLock(name))
  }

  async #eventWhere(where: string, params: readonly string[]): Promise<UsageEvent | null> {
    const sql = `SELECT body FROM events WHERE ${where} ORDER BY revision DESC LIMIT 1`
    const [rows] = await this.#parts.databases.short.read([{ sql, params }])
    const row = rows?.[0]
    return row === undefined ? null : decodeEvent(textOf(row, 'body'))
  }
}

const KEYS = 'unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS k (day, id, revision, place)'
/** In the order of the keys. */
const KNOWN =
  `SELECT COALESCE(e.node, l.node) AS node, COALESCE(e.seq, l.seq) AS seq FROM ${KEYS} ` +
  'LEFT JOIN events AS e ON e.day = ANY ($4::text[]) AND e.day = k.day AND e.id = k.id AND e.revision = k.revision ' +
  'LEFT JOIN late_events AS l ON l.day = k.day AND l.id = k.id AND l.revision = k.revision ORDER BY k.place'
