import { assert } from '../../base/assert.ts'
import { type AccountBooks, type BooksMark, BUCKETS, type BucketEpoch, LedgerUnavailable, type LockedBucket } from '../cluster-ports.ts'
import type { GrantUnit } from '../../money/grant.ts'
import { bigOf, numberOf, type SqlRow, textOf } from '../sql/executor.ts'
import { grantOf } from '../sql/tables.ts'
import { bigints } from './arrays.ts'
import { type Database, inSnapshot } from './database.ts'
import { bucketLock, lockKey } from './locks.ts'
import { plainTerms, termsOf } from '../grants.ts'
import type { Poster } from './post.ts'
import type { Session } from './session.ts'

/** Epochs of buckets, and work that nothing else may post beside. */
export class Buckets {
  readonly #database: Database
  readonly #locks: Database
  readonly #poster: Poster
  readonly #schema: string

  /** @param locks connections that may wait, and be idle, while somebody works */
  constructor(database: Database, locks: Database, poster: Poster, schema: string) {
    this.#database = database
    this.#locks = locks
    this.#poster = poster
    this.#schema = schema
  }

  async epochs(): Promise<readonly BucketEpoch[]> {
    const [rows = []] = await this.#database.read([{ sql: 'SELECT bucket, epoch, state FROM bucket_epochs ORDER BY bucket', params: [] }])
    return rows.map((row) => ({
      bucket: numberOf(row, 'bucket'),
      epoch: numberOf(row, 'epoch'),
      state: textOf(row, 'state') as BucketEpoch['state'],
    }))
  }

  async begin(buckets: readonly number[], above: number): Promise<number> {
    const wanted = checked(buckets)
    return await this.#database.transaction(async (session) => {
      const keys = wanted.map((bucket) => lockKey(this.#schema, bucketLock(bucket)))
      await session.run('SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS l (key)', [bigints(keys)])
      await session.run("UPDATE meta SET value = $1::bigint::text WHERE name = 'epoch_number' AND value::bigint < $1::bigint", [above])
      const [row] = (await session.run("SELECT next_number('epoch_number') AS epoch")).rows
      assert(row !== undefined, 'an epoch got no number')
      const epoch = numberOf(row, 'epoch')
      const sql = "UPDATE bucket_epochs SET epoch = $1, state = 'closed' WHERE bucket = ANY ($2::bigint[])"
      await session.run(sql, [epoch, bigints(wanted)])
      return epoch
    })
  }

  async open(buckets: readonly number[], epoch: number): Promise<boolean> {
    const wanted = checked(buckets)
    try {
      await this.#database.transaction(async (session) => {
        const sql = "UPDATE bucket_epochs SET state = 'open' WHERE epoch = $1 AND bucket = ANY ($2::bigint[])"
        if ((await session.run(sql, [epoch, bigints(wanted)])).count !== wanted.length) throw new OtherEpoch()
      })
      return true
    } catch (error) {
      if (error instanceof OtherEpoch) return false
      throw error
    }
  }

  async mark(): Promise<BooksMark> {
    const [rows = []] = await this.#database.read([{ sql: READ_MARK, params: [] }])
    const [row = {}] = rows
    return { server: textOf(row, 'server'), mark: row['mark'] === null ? null : textOf(row, 'mark') }
  }

  async setMark(mark: string, current: string | null): Promise<void> {
    await this.#database.transaction((session) => session.run(SET_MARK, [mark, current]))
  }

  async withBucket<Result>(bucket: number, work: (bucket: LockedBucket) => Promise<Result>): Promise<Result> {
    checked([bucket])
    return await underLock(this.#locks, lockKey(this.#schema, bucketLock(bucket)), 'wait', async (session) => {
      // One connection does one thing at a time.
      const turns = new Turns()
      return await work({
        post: (batch) => {
          assert(batch.bucket === bucket, 'a batch of another bucket under this lock')
          return turns.take(() => this.#poster.postOn(session, batch))
        },
        books: () => turns.take(() => inSnapshot(session, () => readBooks(session, bucket))),
      })
    })
  }
}

/** A server that was promoted, or restored up to a moment, writes another timeline: the first eight digits of its log's file names. */
const READ_MARK = `SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) AS server, (SELECT value FROM meta WHERE name = 'books_mark') AS mark`
const SET_MARK =
  "INSERT INTO meta (name, value) VALUES ('books_mark', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE meta.value = $2"

class OtherEpoch extends Error {}

function checked(buckets: readonly number[]): readonly number[] {
  const sorted = [...new Set(buckets)].toSorted((a, b) => a - b)
  assert(
    sorted.every((bucket) => Number.isInteger(bucket) && bucket >= 0 && bucket < BUCKETS),
    'no such bucket',
  )
  return sorted
}

/** One after the other, whatever became of the one before. */
class Turns {
  #last: Promise<unknown> = Promise.resolve()

  take<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(work, work)
    this.#last = turn
    return turn
  }
}

/** Nobody else's work is under way, but somebody's would have been waited for. */
export class LockTaken extends Error {
  override name = 'LockTaken'
  readonly key: bigint
  constructor(key: bigint) {
    super('another process has this lock')
    this.key = key
  }
}

/**
 * Runs `work` while its connection holds a lock.
 * @throws LedgerUnavailable if it does not get the lock in time, or lost it while it worked
 * @throws LockTaken at once, with `try`, if another has it
 */
export async function underLock<Result>(
  database: Database,
  key: bigint,
  how: 'wait' | 'try',
  work: (session: Session) => Promise<Result>,
): Promise<Result> {
  return await database.use(async (session) => {
    if (how === 'wait') await session.run('SELECT pg_advisory_lock($1)', [key])
    else if ((await session.run('SELECT pg_try_advisory_lock($1) AS locked', [key])).rows[0]?.['locked'] !== 1n) throw new LockTaken(key)
    let result: Result
    try {
      result = await work(session)
    } catch (error) {
      // What went wrong counts; a connection that does not unlock is closed, which frees its locks.
      await unlock(session, key).catch((other: unknown) => session.fail(other instanceof Error ? other : new Error(String(other))))
      throw error
    }
    await unlock(session, key)
    return result
  })
}

/** A connection that broke has lost its locks: others may have worked at the same time. */
async function unlock(session: Session, key: bigint): Promise<void> {
  const { rows } = await session.run('SELECT pg_advisory_unlock($1) AS unlocked', [key])
  if (rows[0]?.['unlocked'] !== 1n) throw new LedgerUnavailable('a lock was lost while it was needed')
}

const GRANT_CODES = "('wallet_liability', 'prepaid_grant', 'contract_commitment')"

/** What is left of each grant: its record's, or without one that of its accounts. */
const LEFT =
  'SELECT g.*, b.owner AS of_tenant, b.ref AS of_grant, b.unit AS of_unit, COALESCE(b.left_of, 0) AS left_of ' +
  'FROM (SELECT * FROM grants WHERE bucket = $1) AS g FULL JOIN (' +
  `SELECT owner, ref, unit, -SUM(amount) AS left_of FROM ledger_balances WHERE bucket = $1 AND code IN ${GRANT_CODES} ` +
  'GROUP BY owner, ref, unit) AS b ON b.owner = g.tenant AND b.ref = g.id AND b.unit = g.unit WHERE g.id IS NOT NULL OR b.left_of <> 0'
const CREDIT =
  "SELECT owner AS tenant, amount FROM ledger_balances WHERE bucket = $1 AND code = 'receivable' AND ref = '' AND unit = 'nano_cny'"
const NUMBERS = 'SELECT tenant, last_seq FROM outbox_numbers WHERE bucket = $1'

/** Every tenant of the bucket that has a grant, a balance or a number in the outbox, as of one moment. */
async function readBooks(session: Session, bucket: number): Promise<readonly AccountBooks[]> {
  const left = (await session.run(LEFT, [bucket])).rows.map(leftOf)
  const credit = new Map((await session.run(CREDIT, [bucket])).rows.map((row) => [textOf(row, 'tenant'), bigOf(row, 'amount')]))
  const numbers = new Map((await session.run(NUMBERS, [bucket])).rows.map((row) => [textOf(row, 'tenant'), numberOf(row, 'last_seq')]))
  const grants = Map.groupBy(left, ({ terms }) => terms.tenant)
  const tenants = new Set([...grants.keys(), ...credit.keys(), ...numbers.keys()])
  return [...tenants].toSorted().map((tenant) => ({
    tenant,
    applied_seq: numbers.get(tenant) ?? 0,
    grants: grants.get(tenant) ?? [],
    credit_used_nano: credit.get(tenant) ?? 0n,
  }))
}

function leftOf(row: SqlRow): AccountBooks['grants'][number] {
  const balance = bigOf(row, 'left_of')
  if (row['id'] !== null) return { terms: termsOf(grantOf(row)), balance }
  return { terms: plainTerms(textOf(row, 'of_grant'), textOf(row, 'of_tenant'), textOf(row, 'of_unit') as GrantUnit), balance }
}
