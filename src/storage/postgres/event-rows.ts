/** Rows of events: written, and looked up by their keys. */
import type { UsageEvent } from '../../money/event.ts'
import type { EventKey } from '../cluster-ports.ts'
import { numberOf, type SqlRow, textOf } from '../sql/executor.ts'
import { bigints, texts } from './arrays.ts'
import type { PostedSecond } from './charges.ts'
import type { Parameter, Session } from './session.ts'

/** An event, its JSON, and the epoch in which limits have charged it. */
export interface EventBody {
  readonly event: UsageEvent
  readonly body: string
  readonly charged: number | null
}

type TextColumn = (one: EventBody) => string | null
type IntegerColumn = (event: UsageEvent, charged: number | null) => number | bigint | null

const TEXTS: Readonly<Record<string, TextColumn>> = {
  day: ({ event }) => event.day,
  id: ({ event }) => event.id,
  tenant: ({ event }) => event.tenant,
  project: ({ event }) => event.project,
  key: ({ event }) => event.key,
  model: ({ event }) => event.model,
  endpoint: ({ event }) => event.endpoint,
  provider: ({ event }) => event.provider,
  status: ({ event }) => event.status,
  usage_source: ({ event }) => event.usage_source,
  node: ({ event }) => event.node,
  end_user: ({ event }) => event.end_user,
  body: ({ body }) => body,
}
const INTEGERS: Readonly<Record<string, IntegerColumn>> = {
  revision: ({ revision }) => revision,
  admitted_at: ({ admitted_at }) => admitted_at,
  input: ({ tokens }) => tokens.input,
  cached_input: ({ tokens }) => tokens.cached_input,
  cache_write: ({ tokens }) => tokens.cache_write,
  output: ({ tokens }) => tokens.output,
  reasoning: ({ tokens }) => tokens.reasoning,
  amount_nano: ({ amount_nano }) => amount_nano,
  cost_nano: ({ cost_nano }) => cost_nano,
  overrun_nano: ({ overrun_nano }) => overrun_nano,
  seq: ({ seq }) => seq,
  charged: (_, charged) => charged,
}
const COLUMNS = [...Object.keys(TEXTS), ...Object.keys(INTEGERS)]
const ARRAYS = COLUMNS.map((name, index) => `$${index + 1}::${name in TEXTS ? 'text' : 'bigint'}[]`)

const INSERT =
  `INSERT INTO events (${COLUMNS.join(', ')}) SELECT * FROM unnest(${ARRAYS.join(', ')}) ` +
  'ON CONFLICT DO NOTHING RETURNING day, id, revision'

/** What names a row of an event. */
export function keyText({ day, id, revision }: EventKey): string {
  return `${day} ${revision} ${id}`
}

function chargedOf(row: SqlRow): number | null {
  return row['charged'] === null ? null : numberOf(row, 'charged')
}

function keyOf(row: SqlRow): EventKey {
  return { day: textOf(row, 'day'), id: textOf(row, 'id'), revision: numberOf(row, 'revision') }
}

/** Writes those whose place nobody has. @returns the keys of those that it wrote */
export async function insertEvents(session: Session, events: readonly EventBody[]): Promise<ReadonlySet<string>> {
  if (events.length === 0) return new Set()
  const values = [
    ...Object.values(TEXTS).map((column) => texts(events.map(column))),
    ...Object.values(INTEGERS).map((column) => bigints(events.map(({ event, charged }) => column(event, charged)))),
  ]
  const { rows, count } = await session.prepared(INSERT, values)
  if (count === events.length) return new Set(events.map(({ event }) => keyText(event)))
  return new Set(rows.map((row) => keyText(keyOf(row))))
}

/** Who has a place: the node, its number of the event, and the epoch in which limits have charged it. */
export interface Place {
  readonly node: string
  readonly seq: number
  readonly charged: number | null
}

/** Days are given apart too, so that a plan is made for their partitions alone. */
function keyColumns(keys: readonly EventKey[]): readonly Parameter[] {
  const days = texts([...new Set(keys.map(({ day }) => day))])
  return [days, texts(keys.map(({ day }) => day)), texts(keys.map(({ id }) => id)), bigints(keys.map(({ revision }) => revision))]
}

const KEYS = 'unnest($2::text[], $3::text[], $4::bigint[]) AS k (day, id, revision)'
const THERE = 'e.day = ANY ($1::text[]) AND e.day = k.day AND e.id = k.id AND e.revision = k.revision'
const PLACES = `SELECT e.day, e.id, e.revision, e.node, e.seq, e.charged FROM ${KEYS} JOIN events AS e ON ${THERE}`
const BODIES = `SELECT e.day, e.id, e.revision, e.body FROM ${KEYS} JOIN events AS e ON ${THERE}`
const SUPERSEDE = `UPDATE events AS e SET superseded = 1 FROM ${KEYS} WHERE ${THERE} RETURNING e.day, e.id, e.revision, e.body`

/** Who has the places of these keys; nobody where a key is missing. */
export async function placesOf(session: Session, keys: readonly EventKey[]): Promise<ReadonlyMap<string, Place>> {
  if (keys.length === 0) return new Map()
  const { rows } = await session.run(PLACES, keyColumns(keys))
  return new Map(
    rows.map((row) => [keyText(keyOf(row)), { node: textOf(row, 'node'), seq: numberOf(row, 'seq'), charged: chargedOf(row) }]),
  )
}

/** Bodies of events that are there, by key. */
export async function bodiesOf(session: Session, keys: readonly EventKey[]): Promise<ReadonlyMap<string, string>> {
  return await bodies(session, BODIES, keys)
}

/** Marks revisions that a later one stands for. @returns their bodies, by key; those that are not there are left out */
export async function supersede(session: Session, keys: readonly EventKey[]): Promise<ReadonlyMap<string, string>> {
  return await bodies(session, SUPERSEDE, keys)
}

async function bodies(session: Session, sql: string, keys: readonly EventKey[]): Promise<ReadonlyMap<string, string>> {
  if (keys.length === 0) return new Map()
  const { rows } = await session.run(sql, keyColumns(keys))
  return new Map(rows.map((row) => [keyText(keyOf(row)), textOf(row, 'body')]))
}

const SECOND_COLUMNS = 's.day, s.id, s.charged, s.early'
const IDS = 'unnest($1::text[], $2::text[]) AS k (day, id)'
/** There are hardly ever any, so that nothing is looked up for each first revision. */
const EARLY = `SELECT ${SECOND_COLUMNS} FROM (SELECT * FROM second_revisions WHERE early) AS s JOIN ${IDS} ON s.day = k.day AND s.id = k.id`
const SECONDS = `SELECT ${SECOND_COLUMNS} FROM ${IDS} JOIN second_revisions AS s ON s.day = k.day AND s.id = k.id`

/**
 * How second revisions were posted, by day and id.
 * @param which `early` are those that are there without their first ones
 */
export async function postedSeconds(
  session: Session,
  keys: readonly EventKey[],
  which: 'early' | 'all',
): Promise<ReadonlyMap<string, PostedSecond>> {
  if (keys.length === 0) return new Map()
  const { rows } = await session.prepared(which === 'early' ? EARLY : SECONDS, [
    texts(keys.map(({ day }) => day)),
    texts(keys.map(({ id }) => id)),
  ])
  return new Map(
    rows.map((row) => {
      return [`${textOf(row, 'day')} ${textOf(row, 'id')}`, { charged: chargedOf(row), early: row['early'] === 1n }]
    }),
  )
}

const KEEP_SECONDS =
  'INSERT INTO second_revisions (day, id, charged, early) ' +
  'SELECT day, id, charged, early = 1 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) ' +
  'AS k (day, id, charged, early) ON CONFLICT DO NOTHING'

export async function keepSeconds(session: Session, seconds: ReadonlyArray<EventKey & PostedSecond>): Promise<void> {
  if (seconds.length === 0) return
  await session.prepared(KEEP_SECONDS, [
    texts(seconds.map(({ day }) => day)),
    texts(seconds.map(({ id }) => id)),
    bigints(seconds.map(({ charged }) => charged)),
    bigints(seconds.map(({ early }) => (early ? 1 : 0))),
  ])
}

const RECHARGE =
  'UPDATE events AS e SET charged = k.charged FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) ' +
  'AS k (day, id, revision, charged) WHERE e.day = ANY ($1::text[]) AND e.day = k.day AND e.id = k.id AND e.revision = k.revision'
const RECHARGE_SECONDS =
  'UPDATE second_revisions AS s SET charged = k.charged FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (day, id, charged) ' +
  'WHERE s.day = k.day AND s.id = k.id'

/** Limits have charged these in another epoch than was known. */
export async function recharge(session: Session, events: readonly (EventKey & { readonly charged: number | null })[]): Promise<void> {
  if (events.length === 0) return
  await session.run(RECHARGE, [...keyColumns(events), bigints(events.map(({ charged }) => charged))])
  const seconds = events.filter(({ revision }) => revision > 1)
  if (seconds.length === 0) return
  await session.run(RECHARGE_SECONDS, [
    texts(seconds.map(({ day }) => day)),
    texts(seconds.map(({ id }) => id)),
    bigints(seconds.map(({ charged }) => charged)),
  ])
}

/** Their first revisions have come. */
export async function noLongerEarly(session: Session, keys: readonly EventKey[]): Promise<void> {
  if (keys.length === 0) return
  const sql = `UPDATE second_revisions AS s SET early = false FROM ${IDS} WHERE s.day = k.day AND s.id = k.id`
  await session.prepared(sql, [texts(keys.map(({ day }) => day)), texts(keys.map(({ id }) => id))])
}
