import { decodeEvent } from '../../money/event-json.ts'
import type { UsageEvent } from '../../money/event.ts'
import type { PaymentPart } from '../../money/grant.ts'
import { checkBalanced, entriesOf, EntrySums } from '../accounts.ts'
import { bucketOf, type BucketBatch, type EventKey, type PostedBatch } from '../cluster-ports.ts'
import type { GrantRecord } from '../records.ts'
import { numberOf, textOf } from '../sql/executor.ts'
import { RollupBatch } from '../sql/rollup-batch.ts'
import { bigints, texts } from './arrays.ts'
import { type Change, chargedSince, firstPosted, firstSuperseded, OutboxSums, secondPosted, secondSuperseded } from './charges.ts'
import { BEGIN, type Database, inTransaction, repeated } from './database.ts'
import { addBalances, insertEntries, insertTransaction } from './entries.ts'
import { bodiesOf, insertEvents, keepSeconds, keyText, noLongerEarly, placesOf, postedSeconds, recharge, supersede } from './event-rows.ts'
import { PartitionMissing } from './errors.ts'
import { archivedAlready, chargedElsewhere, keepLate, keepSuperseded } from './events-elsewhere.ts'
import { bucketLock, CLOSING, lockKey } from './locks.ts'
import { putOutbox } from './outbox.ts'
import type { Partitions } from './partitions.ts'
import { type Batch, batchesOf, isSame, type Item, States } from './postings.ts'
import { writeRollups } from './rollups.ts'
import type { Session } from './session.ts'

/** Most transactions that one source is posted in: each time after the first with events that were not there before. */
const MAX_TIMES = 1000

/** Posts events: the ledger's only way in for usage. */
export class Poster {
  readonly #database: Database
  readonly #partitions: Partitions
  readonly #schema: string

  constructor(database: Database, partitions: Partitions, schema: string) {
    this.#database = database
    this.#partitions = partitions
    this.#schema = schema
  }

  /** See `SharedLedger.postBatches`. */
  async post(given: readonly BucketBatch[]): Promise<readonly PostedBatch[]> {
    const batches = batchesOf(given)
    if (batches.length === 0) return []
    const posted = await this.#withPartitions(batches, () => this.#database.transaction((session) => this.#post(session, batches)))
    return given.map(({ bucket }) => posted[batches.findIndex((batch) => batch.bucket === bucket)] ?? NOTHING)
  }

  /** The same on a connection that has the bucket's lock. */
  async postOn(session: Session, given: BucketBatch): Promise<PostedBatch> {
    const batches = batchesOf([given])
    const post = () => repeated(() => inTransaction(session, BEGIN, () => this.#post(session, batches)))
    const [posted] = await this.#withPartitions(batches, post)
    return posted ?? NOTHING
  }

  /** Once more where a partition that was there has been taken away. */
  async #withPartitions<Result>(batches: readonly Batch[], post: () => Promise<Result>): Promise<Result> {
    await this.#partitions.ensure(daysOf(batches))
    try {
      return await post()
    } catch (error) {
      if (!(error instanceof PartitionMissing)) throw error
      this.#partitions.forget()
      await this.#partitions.ensure(daysOf(batches))
      return await post()
    }
  }

  async #post(session: Session, batches: readonly Batch[]): Promise<readonly PostedBatch[]> {
    const locks = batches.map(({ bucket }) => lockKey(this.#schema, bucketLock(bucket)))
    await session.prepared(LOCK, [bigints(locks), lockKey(this.#schema, CLOSING)])
    const context = await readContext(session, batches)
    return await new Posting(session, batches, context).run()
  }
}

const NOTHING: PostedBatch = { states: [], outbox_tenants: [] }

function daysOf(batches: readonly Batch[]): ReadonlySet<string> {
  return new Set(batches.flatMap(({ items }) => items.filter((item) => !item.void).map(({ event }) => event.day)))
}

/** Row by row, so that locks are taken in the order given. */
const LOCK = 'SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS l (key) UNION ALL SELECT pg_advisory_xact_lock_shared($2)'

/** What a posting depends on, read once it has its locks. */
interface Context {
  /** By bucket. */
  readonly epochs: ReadonlyMap<number, number>
  /** Of the days that are posted to. */
  readonly archived: ReadonlySet<string>
  readonly floor_ms: number
  /** Whether any second revision is there without its first one. */
  readonly early: boolean
}

const CONTEXT =
  "SELECT 'epoch' AS what, bucket::text AS name, epoch AS value FROM bucket_epochs WHERE bucket = ANY ($1::bigint[]) " +
  "UNION ALL SELECT 'archived', day, 0 FROM archives WHERE day = ANY ($2::text[]) " +
  "UNION ALL SELECT 'floor', '', value::bigint FROM meta WHERE name = 'usage_floor' " +
  "UNION ALL SELECT 'early', '', 0 WHERE EXISTS (SELECT 1 FROM second_revisions WHERE early)"

async function readContext(session: Session, batches: readonly Batch[]): Promise<Context> {
  const days = new Set(batches.flatMap(({ items }) => items.map(({ event }) => event.day)))
  const { rows } = await session.prepared(CONTEXT, [bigints(batches.map(({ bucket }) => bucket)), texts([...days])])
  const of = (what: string) => rows.filter((row) => row['what'] === what)
  return {
    epochs: new Map(of('epoch').map((row) => [Number(textOf(row, 'name')), numberOf(row, 'value')])),
    archived: new Set(of('archived').map((row) => textOf(row, 'name'))),
    floor_ms: of('floor').reduce((floor, row) => Math.max(floor, numberOf(row, 'value')), 0),
    early: of('early').length > 0,
  }
}

const firstOf = ({ day, id }: EventKey): EventKey => ({ day, id, revision: 1 })
const requestOf = ({ day, id }: EventKey): string => `${day} ${id}`

/** One posting, under the locks of its buckets: what becomes of each event, and what follows from those that are new. */
class Posting {
  readonly #session: Session
  readonly #batches: readonly Batch[]
  readonly #context: Context
  readonly #states = new States()
  readonly #sums: ReadonlyMap<number, EntrySums>
  readonly #rollups = new RollupBatch()
  readonly #outbox = new OutboxSums()

  constructor(session: Session, batches: readonly Batch[], context: Context) {
    this.#session = session
    this.#batches = batches
    this.#context = context
    this.#sums = new Map(batches.map(({ bucket }) => [bucket, new EntrySums()]))
  }

  async run(): Promise<readonly PostedBatch[]> {
    const items = this.#batches.flatMap((batch) => batch.items)
    const { archived, floor_ms } = this.#context
    const [late, open] = [items.filter((item) => this.#isLate(item)), items.filter((item) => !item.void && !archived.has(item.event.day))]
    const posted = await this.#insert(open)
    await this.#account(posted)
    await this.#keepLate(late)
    await this.#refuse(this.#states.open(items))
    await writeRollups(this.#session, this.#rollups, floor_ms, bucketOf)
    await this.#book(posted)
    const outbox_tenants = await putOutbox(this.#session, this.#outbox.deltas())
    return this.#batches.map((batch) => ({
      states: batch.items.map((item) => this.#states.of(item)),
      outbox_tenants: outbox_tenants.filter((tenant) => bucketOf(tenant) === batch.bucket),
    }))
  }

  #isLate({ void: is_void, event }: Item): boolean {
    return !is_void && this.#context.archived.has(event.day)
  }

  /** Takes the places of those that are new; of several with one key the first. */
  async #insert(items: readonly Item[]): Promise<readonly Item[]> {
    const first = new Map<string, Item>()
    for (const item of items) if (!first.has(item.key)) first.set(item.key, item)
    const inserted = await insertEvents(this.#session, [...first.values()])
    const posted = [...first.values()].filter(({ key }) => inserted.has(key))
    this.#states.set(posted, 'posted')
    return posted
  }

  /** Entries, sums of usage and outbox of events that are new in the ledger. */
  async #account(posted: readonly Item[]): Promise<void> {
    const [firsts, seconds] = [posted.filter(({ event }) => event.revision === 1), posted.filter(({ event }) => event.revision === 2)]
    const early = await postedSeconds(this.#session, this.#context.early ? firsts.map(({ event }) => event) : [], 'early')
    const overtaken = firsts.filter(({ event }) => early.has(requestOf(event)))
    const replaced = await supersede(
      this.#session,
      [...overtaken, ...seconds].map(({ event }) => firstOf(event)),
    )
    await noLongerEarly(
      this.#session,
      overtaken.map(({ event }) => event),
    )
    const reversed = seconds
      .map(({ event }) => replaced.get(keyText(firstOf(event))))
      .map((body) => (body === undefined ? null : decodeEvent(body)))
    const kindOf = await this.#kindsOf([...posted.map(({ event }) => event), ...reversed.filter((event) => event !== null)])
    for (const item of firsts) {
      const second = early.get(requestOf(item.event)) ?? null
      if (second === null) this.#count(item, item.event, 1, kindOf)
      this.#tell(item, firstPosted(item.event.parts, item.charged, this.#epochOf(item), second))
    }
    await this.#accountSeconds(seconds, reversed, kindOf)
  }

  async #accountSeconds(seconds: readonly Item[], reversed: readonly (UsageEvent | null)[], kindOf: KindOf): Promise<void> {
    const epochOf = (item: Item): number => this.#epochOf(item)
    const charged_here = seconds.filter((item) => item.charged === epochOf(item))
    const others = await chargedElsewhere(
      this.#session,
      charged_here.map((item) => ({ ...firstOf(item.event), epoch: epochOf(item) })),
    )
    for (const [index, item] of seconds.entries()) {
      const first = reversed[index] ?? null
      this.#count(item, item.event, 1, kindOf)
      if (first !== null) this.#count(item, first, -1, kindOf)
      const other = others.get(keyText(firstOf(item.event))) ?? null
      this.#tell(item, secondPosted(item.event.parts, item.charged, epochOf(item), first?.parts ?? null, other))
    }
    const kept = seconds.map((item, index) => {
      const { day, id, revision } = item.event
      return { day, id, revision, charged: item.charged, early: (reversed[index] ?? null) === null }
    })
    await keepSeconds(this.#session, kept)
  }

  #count({ bucket }: Item, event: UsageEvent, sign: 1 | -1, kindOf: KindOf): void {
    this.#sums.get(bucket)?.add(entriesOf(event, kindOf), sign === 1 ? 1n : -1n)
    this.#rollups.add(event, sign)
  }

  #tell({ event }: Item, changes: readonly Change[]): void {
    this.#outbox.add(event.tenant, changes)
  }

  #epochOf({ bucket }: Item): number {
    return this.#context.epochs.get(bucket) ?? 0
  }

  /** Those whose place is taken: by themselves, or by another, which leaves only their numbers. */
  async #refuse(items: readonly Item[]): Promise<void> {
    if (items.length === 0) return
    const places = await placesOf(
      this.#session,
      items.map(({ event }) => event),
    )
    const known = items.filter((item) => isSame(item, places.get(item.key)))
    this.#states.set(known, 'known')
    await this.#recharge(known.filter((item) => this.#isChargedNow(item) && places.get(item.key)?.charged !== item.charged))
    await this.#supersede(this.#states.open(items))
  }

  async #supersede(superseded: readonly Item[]): Promise<void> {
    this.#states.set(superseded, 'superseded')
    const fresh = await keepSuperseded(this.#session, superseded)
    const charged = fresh.filter((item) => this.#isChargedNow(item))
    if (charged.length === 0) return
    const firsts = await bodiesOf(
      this.#session,
      charged.map(({ event }) => firstOf(event)),
    )
    const seconds = await postedSeconds(
      this.#session,
      charged.map(({ event }) => event),
      'all',
    )
    for (const item of charged) {
      const [{ parts }, epoch] = [item.event, this.#epochOf(item)]
      const body = firsts.get(keyText(firstOf(item.event)))
      const first = body === undefined ? null : decodeEvent(body).parts
      const second = seconds.get(requestOf(item.event)) ?? null
      this.#tell(
        item,
        item.event.revision === 1
          ? firstSuperseded(parts, item.charged, epoch, first ?? [], second)
          : secondSuperseded(parts, item.charged, epoch, first),
      )
    }
  }

  /** Those that were posted before their settle arrived where it was sent: limits have charged them as well. */
  async #recharge(items: readonly Item[]): Promise<void> {
    const once = [...new Map(items.map((item) => [item.key, item])).values()]
    if (once.length === 0) return
    await recharge(
      this.#session,
      once.map(({ event: { day, id, revision }, charged }) => ({ day, id, revision, charged })),
    )
    const seconds = once.filter(({ event }) => event.revision === 2)
    const replaced = await this.#replacedBy(seconds)
    for (const item of once) this.#tell(item, chargedSince(item.event.parts, replaced.get(item.key) ?? null))
  }

  /** What limits have replaced by second revisions in this epoch, by key: the first one in the ledger, or one that is superseded. */
  async #replacedBy(seconds: readonly Item[]): Promise<ReadonlyMap<string, readonly PaymentPart[]>> {
    const firsts = await bodiesOf(
      this.#session,
      seconds.map(({ event }) => firstOf(event)),
    )
    const others = await chargedElsewhere(
      this.#session,
      seconds.map((item) => ({ ...firstOf(item.event), epoch: this.#epochOf(item) })),
    )
    return new Map(
      seconds.flatMap((item) => {
        const first = keyText(firstOf(item.event))
        const body = firsts.get(first)
        const parts = body === undefined ? undefined : (others.get(first) ?? decodeEvent(body).parts)
        return parts === undefined ? [] : [[item.key, parts] as const]
      }),
    )
  }

  #isChargedNow(item: Item): boolean {
    return !item.void && item.charged === this.#epochOf(item)
  }

  /** Those whose day's file is written: in it already, or kept apart. What limits charged for them they get back. */
  async #keepLate(items: readonly Item[]): Promise<void> {
    if (items.length === 0) return
    this.#states.set(await archivedAlready(this.#session, items), 'known')
    const { apart, fresh } = await keepLate(this.#session, this.#states.open(items))
    this.#states.set(apart, 'late')
    for (const item of fresh) {
      if (item.event.revision === 1 && item.charged === this.#epochOf(item)) this.#tell(item, [{ parts: item.event.parts, sign: 1n }])
    }
  }

  /** One balanced transaction per batch. */
  async #book(posted: readonly Item[]): Promise<void> {
    const transactions: { id: string; bucket: number; entries: ReturnType<EntrySums['entries']> }[] = []
    for (const { bucket, source } of this.#batches) {
      const entries = this.#sums.get(bucket)?.entries() ?? []
      if (entries.length === 0) continue
      const events = posted.filter((item) => item.bucket === bucket).length
      const id = await this.#openTransaction(source, `${events} events`)
      checkBalanced(id, entries)
      transactions.push({ id, bucket, entries })
    }
    await insertEntries(this.#session, transactions)
    await addBalances(
      this.#session,
      transactions.flatMap(({ bucket, entries }) => entries.map((entry) => ({ bucket, ...entry }))),
    )
  }

  async #openTransaction(source: string, note: string): Promise<string> {
    for (let time = 1; time <= MAX_TIMES; time += 1) {
      const id = time === 1 ? `usage-${source}` : `usage-${source}~${time}`
      if (await insertTransaction(this.#session, { id, at: null, kind: 'usage', note, number: null, digest: null })) return id
    }
    throw new Error(`the source of a batch has been posted ${MAX_TIMES} times, each time with other events`)
  }

  /** Read anew each time: another process may have changed a record. */
  async #kindsOf(events: readonly UsageEvent[]): Promise<KindOf> {
    const ids = new Set(events.flatMap(({ parts }) => parts.map(({ grant }: PaymentPart) => grant)))
    const { rows } = await this.#session.prepared('SELECT id, kind FROM grants WHERE id = ANY ($1::text[])', [texts([...ids])])
    const kinds = new Map(rows.map((row) => [textOf(row, 'id'), textOf(row, 'kind') as GrantRecord['kind']]))
    return (grant) => kinds.get(grant)
  }
}

type KindOf = (grant: string) => GrantRecord['kind'] | undefined
