import { systemClock } from '../../src/base/clock.ts'
import { encodeEvent } from '../../src/money/event-json.ts'
import type { UsageEvent } from '../../src/money/event.ts'
import { bucketOf, type ChargedEvent, type PostState, type SharedLedger } from '../../src/storage/cluster-ports.ts'
import { openPostgres, type PostgresBooks, type PostgresOptions } from '../../src/storage/postgres/open.ts'
import { atEnd } from './cleanup.ts'
import type { PostgresServer } from './postgres-server.ts'
import { closingEvent } from './storage.ts'

let schemas = 0

/** Opens books in a schema, a new one unless it is named; closed when the current test ends (or the file's last one). */
export async function openBooks(
  server: PostgresServer,
  options: Partial<PostgresOptions> = {},
): Promise<PostgresBooks & { readonly schema: string }> {
  schemas += 1
  const schema = options.schema ?? `shared_${schemas}`
  const books = await openPostgres({ url: await server.url(), clock: systemClock(), ...options, schema })
  let closed = false
  const close = async (): Promise<void> => {
    if (closed) return
    closed = true
    await books.close()
  }
  atEnd(close)
  return { ...books, close, schema }
}

/** An event that a journal has numbered. */
export function numbered(id: string, seq: number, overrides: Partial<UsageEvent> = {}): UsageEvent {
  return { ...closingEvent(id, overrides), node: 'n-1', seq, ...overrides }
}

export function charged(event: UsageEvent, epoch: number | null, rest: Pick<ChargedEvent, 'void'> = {}): ChargedEvent {
  return { body: encodeEvent(event), charged: epoch, ...rest }
}

let sources = 0

/** Posts events of one bucket under a source of their own. @returns their states */
export async function postEvents(
  ledger: Pick<SharedLedger, 'postBatches'>,
  events: readonly ChargedEvent[],
  tenant = 'acme',
): Promise<readonly PostState[]> {
  sources += 1
  const [posted] = await ledger.postBatches([{ bucket: bucketOf(tenant), source: `s${sources}`, events }])
  return posted?.states ?? []
}

/** Begins and opens an epoch of a tenant's bucket. */
export async function openEpochOf(ledger: SharedLedger, tenant = 'acme'): Promise<number> {
  const epoch = await ledger.beginEpoch([bucketOf(tenant)])
  await ledger.openEpoch([bucketOf(tenant)], epoch)
  return epoch
}

/** The outbox as lines `tenant seq grant delta`. */
export async function outboxOf(ledger: SharedLedger, tenant?: string): Promise<readonly string[]> {
  const rows = await ledger.outbox(1000, tenant)
  return rows.map(({ tenant: of, seq, grant, delta }) => `${of} ${seq} ${grant.id} ${delta}`)
}

/** What an audit finds wrong, by name; empty if nothing. */
export async function wrongFactsOf(ledger: Pick<SharedLedger, 'auditFacts'>): Promise<Record<string, unknown>> {
  const { events: _, amount_nano: __, balances: ___, ...lists } = await ledger.auditFacts()
  return Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0))
}
