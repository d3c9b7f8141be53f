/** Events that have no row of their own in `events`: numbers of superseded ones, those of archived days, those that came too late. */
import type { PaymentPart } from '../../money/grant.ts'
import type { EventKey } from '../cluster-ports.ts'
import { numberOf, textOf } from '../sql/executor.ts'
import { bigints, texts } from './arrays.ts'
import { keyText } from './event-rows.ts'
import { isSame, type Item } from './postings.ts'
import type { Parameter, Session } from './session.ts'

function numberColumns(items: readonly Item[]): readonly Parameter[] {
  return [texts(items.map(({ event }) => event.node)), bigints(items.map(({ event }) => event.seq))]
}

function keyColumns(items: readonly Item[]): readonly Parameter[] {
  return [
    texts(items.map(({ event }) => event.day)),
    texts(items.map(({ event }) => event.id)),
    bigints(items.map(({ event }) => event.revision)),
  ]
}

const numberText = (node: string, seq: number): string => `${seq} ${node}`

const KEEP_SUPERSEDED =
  'INSERT INTO superseded_numbers (node, seq, day, id, revision, void, charged, parts) ' +
  'SELECT node, seq, day, id, revision, void = 1, charged, parts FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], ' +
  '$5::bigint[], $6::bigint[], $7::bigint[], $8::text[]) AS s (node, seq, day, id, revision, void, charged, parts) ' +
  'ON CONFLICT (node, seq) DO UPDATE SET charged = excluded.charged, parts = excluded.parts ' +
  'WHERE excluded.charged > COALESCE(superseded_numbers.charged, -1) RETURNING node, seq'

/** Records numbers, so that audits do not take them for lost. @returns the items that were not recorded before, or not as charged since */
export async function keepSuperseded(session: Session, items: readonly Item[]): Promise<readonly Item[]> {
  if (items.length === 0) return []
  const first = new Map<string, Item>()
  for (const item of items) first.set(numberText(item.event.node, item.event.seq), item)
  const once = [...first.values()]
  const is_charged = (item: Item): boolean => !item.void && item.charged !== null
  const { rows } = await session.run(KEEP_SUPERSEDED, [
    ...numberColumns(once),
    ...keyColumns(once),
    bigints(once.map((item) => (item.void ? 1 : 0))),
    bigints(once.map((item) => (is_charged(item) ? item.charged : null))),
    texts(once.map((item) => (is_charged(item) ? partsText(item.event.parts) : null))),
  ])
  const kept = new Set(rows.map((row) => numberText(textOf(row, 'node'), numberOf(row, 'seq'))))
  return once.filter(({ event }) => kept.has(numberText(event.node, event.seq)))
}

function partsText(parts: readonly PaymentPart[]): string {
  return JSON.stringify(parts.map(({ grant, unit, amount }) => ({ grant, unit, amount: amount.toString() })))
}

function partsFrom(text: string): readonly PaymentPart[] {
  const parts = JSON.parse(text) as readonly (Omit<PaymentPart, 'amount'> & { readonly amount: string })[]
  return parts.map((part) => ({ ...part, amount: BigInt(part.amount) }))
}

const CHARGED =
  'SELECT s.day, s.id, s.revision, s.parts FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS k (day, id, revision, epoch) ' +
  'JOIN superseded_numbers AS s ON s.day = k.day AND s.id = k.id AND s.revision = k.revision AND s.charged = k.epoch'

/** What superseded events were charged in an epoch, by key. */
export async function chargedElsewhere(
  session: Session,
  keys: ReadonlyArray<EventKey & { readonly epoch: number }>,
): Promise<ReadonlyMap<string, readonly PaymentPart[]>> {
  if (keys.length === 0) return new Map()
  const { rows } = await session.run(CHARGED, [
    texts(keys.map(({ day }) => day)),
    texts(keys.map(({ id }) => id)),
    bigints(keys.map(({ revision }) => revision)),
    bigints(keys.map(({ epoch }) => epoch)),
  ])
  return new Map(
    rows.map((row) => {
      const key = { day: textOf(row, 'day'), id: textOf(row, 'id'), revision: numberOf(row, 'revision') }
      return [keyText(key), partsFrom(textOf(row, 'parts'))]
    }),
  )
}

const IN_ARCHIVE =
  'SELECT k.day, k.node, k.seq FROM unnest($1::text[], $2::bigint[], $3::text[]) AS k (node, seq, day) WHERE EXISTS (' +
  'SELECT 1 FROM archive_numbers AS a WHERE a.day = k.day AND a.node = k.node AND k.seq BETWEEN a.first_seq AND a.last_seq)'

/** Those that are in the file of their day: delivered once more after it was written. */
export async function archivedAlready(session: Session, items: readonly Item[]): Promise<readonly Item[]> {
  const values = [...numberColumns(items), texts(items.map(({ event }) => event.day))]
  const { rows } = await session.run(IN_ARCHIVE, values)
  const found = new Set(rows.map((row) => numberText(textOf(row, 'node'), numberOf(row, 'seq'))))
  return items.filter(({ event }) => found.has(numberText(event.node, event.seq)))
}

const KEEP_LATE =
  'INSERT INTO late_events (day, id, revision, node, seq, at, body) ' +
  'SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::text[]) ON CONFLICT DO NOTHING'
const LATE_PLACES =
  'SELECT l.day, l.id, l.revision, l.node, l.seq FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (day, id, revision) ' +
  'JOIN late_events AS l ON l.day = k.day AND l.id = k.id AND l.revision = k.revision'

/**
 * Keeps events of archived days apart.
 * @returns those that are apart now, and of them those that were not; the rest has lost its place there to another
 */
export async function keepLate(
  session: Session,
  items: readonly Item[],
): Promise<{ readonly apart: readonly Item[]; readonly fresh: readonly Item[] }> {
  if (items.length === 0) return { apart: [], fresh: [] }
  const before = await latePlaces(session, items)
  await session.run(KEEP_LATE, [
    ...keyColumns(items),
    ...numberColumns(items),
    bigints(items.map(({ event }) => event.ended_at)),
    texts(items.map(({ body }) => body)),
  ])
  const after = await latePlaces(session, items)
  const apart = items.filter((item) => isSame(item, after.get(item.key)))
  const fresh = new Map(apart.filter((item) => !before.has(item.key)).map((item) => [item.key, item]))
  return { apart, fresh: [...fresh.values()] }
}

async function latePlaces(
  session: Session,
  items: readonly Item[],
): Promise<ReadonlyMap<string, { readonly node: string; readonly seq: number }>> {
  const { rows } = await session.run(LATE_PLACES, keyColumns(items))
  return new Map(
    rows.map((row) => {
      const key = { day: textOf(row, 'day'), id: textOf(row, 'id'), revision: numberOf(row, 'revision') }
      return [keyText(key), { node: textOf(row, 'node'), seq: numberOf(row, 'seq') }]
    }),
  )
}
