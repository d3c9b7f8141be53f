import * as z from 'zod'
import { nanoFromCny } from '../money/amount.ts'
import { weightMicroOf, type GrantUnit } from '../money/grant.ts'
import { givingEntries } from '../storage/accounts.ts'
import { givingId, viewGrant } from '../storage/grants.ts'
import type { LedgerTransaction } from '../storage/ports.ts'
import type { GrantRecord, TenantRecord } from '../storage/records.ts'
import { applyTransaction } from './apply.ts'
import type { ControlDeps } from './deps.ts'
import { announce, shown, tenantOrThrow } from './find.ts'
import { Instant, instantOf } from './instants.ts'
import { AdminProblem, isoOf, parse, TransactionName } from './problem.ts'

type GrantKind = Exclude<GrantRecord['kind'], 'wallet'>

/** What burns first: what was given for nothing and what expires with its month, then what was bought, then what is owed, then the wallet (100). */
const PRIORITIES: Readonly<Record<GrantKind, number>> = { promo: 10, subscription: 20, pack: 40, contract: 60 }
const UNITS = { cny: 'nano_cny', tokens: 'tokens', requests: 'requests' } as const satisfies Record<string, GrantUnit>
const MAX_MODELS = 1000
const PAGE_GRANTS = 100
const MAX_PAGE_GRANTS = 1000

const Priority = z.number().int().min(0).max(1_000_000)
const ModelName = z.string().min(1).max(256)
/** A weight in its shortest form, so that the same weight is the same text. */
const Weight = z.string('write a weight as a string, such as "0.5"').transform((text, context) => {
  try {
    const micro = String(weightMicroOf(text)).padStart(7, '0')
    const decimals = micro.slice(-6).replace(/0+$/, '')
    return micro.slice(0, -6) + (decimals === '' ? '' : `.${decimals}`)
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'not a weight' })
    return z.NEVER
  }
})

const NewGrant = z
  .strictObject({
    id: TransactionName,
    kind: z.enum(['subscription', 'pack', 'contract', 'promo']),
    unit: z.enum(['cny', 'tokens', 'requests']),
    amount: z.union([z.string().max(40), z.number().int()], 'write CNY as a string ("100"), a count as digits'),
    priority: Priority.optional(),
    expires_at: Instant.nullable().default(null),
    models: z.array(ModelName).min(1, 'name at least one model, or leave it out to pay for all').max(MAX_MODELS).nullable().default(null),
    weights: z.record(ModelName, Weight).nullable().default(null),
    note: z.string().trim().max(500).default(''),
  })
  .refine(({ unit, weights }) => weights === null || unit === 'tokens', { path: ['weights'], error: 'only a grant of tokens has weights' })
  .refine(({ unit, amount }) => unit !== 'cny' || typeof amount === 'string', { path: ['amount'], error: 'write CNY as a string' })

const GrantChange = z.strictObject({ priority: Priority.optional(), expires_at: Instant.nullable().optional() })

/**
 * Gives a tenant something that pays for requests, once per `id`: `{id, kind, unit, amount, priority?, expires_at?, models?, weights?, note?}`.
 * A date in `expires_at` is included whole, in the tenant's time zone.
 *
 * @returns the grant; `state` is `posted`, or `duplicate` when the same grant had been given before (nothing has changed)
 * @throws AdminProblem `invalid_request`, `not_found`, `conflict` when the tenant has another grant of this id
 */
export async function createGrant(tenant: string, body: unknown, deps: ControlDeps): Promise<{ readonly state: 'posted' | 'duplicate' }> {
  const given = parse(NewGrant, body)
  const owner = await tenantOrThrow(tenant, deps)
  const wanted = recordOf(given, owner, deps)
  return await deps.turns.run(tenant, async () => {
    const known = await find(wanted.id, tenant, deps)
    if (known !== undefined) refuseOther(known, wanted)
    else if (wanted.expires_at !== null && wanted.expires_at <= deps.clock.now_ms()) throw inThePast()
    else await announce(await deps.records.put({ kind: 'grant', record: wanted }), deps)
    const record = known ?? wanted
    // Also for a grant that is known: an earlier call may have ended between record and ledger.
    const state = await applyTransaction(givingOf(record, given.note, deps.clock.now_ms()), deps)
    return { ...(await shownGrant(record, deps)), state }
  })
}

/**
 * Changes the priority or the expiry of a grant; its amount changes by giving another, or by a reversal.
 *
 * @throws AdminProblem `invalid_request`, `not_found`, `conflict` when it has expired or is a wallet
 */
export async function changeGrant(tenant: string, named: string, body: unknown, deps: ControlDeps): Promise<object> {
  const { priority, expires_at } = parse(GrantChange, body)
  const { time_zone } = await tenantOrThrow(tenant, deps)
  return await deps.turns.run(tenant, async () => {
    const known = await grantOrThrow(tenant, named, deps)
    const now_ms = deps.clock.now_ms()
    if (known.kind === 'wallet') throw new AdminProblem('conflict', 'a wallet has no expiry, and pays after every other grant')
    if (known.expires_at !== null && known.expires_at <= now_ms)
      throw new AdminProblem('conflict', `grant ${known.id} expired at ${isoOf(known.expires_at)}: give a new one`)
    const expiry = expires_at === undefined ? known.expires_at : expiryOf(expires_at, time_zone)
    if (expiry !== null && expiry <= now_ms) throw inThePast()
    const record: GrantRecord = { ...known, priority: priority ?? known.priority, expires_at: expiry }
    const seq = await deps.records.put({ kind: 'grant', record })
    await deps.credits.changeTerms(record)
    await announce(seq, deps)
    return await shownGrant(record, deps)
  })
}

const GrantQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_GRANTS).default(PAGE_GRANTS),
  cursor: z.string().max(256).optional(),
})

/** A page of a tenant's grants by id, its wallet among them. @throws AdminProblem `invalid_request`, `not_found` */
export async function listGrants(tenant: string, query: unknown, deps: ControlDeps): Promise<object> {
  const { limit, cursor } = parse(GrantQuery, query)
  await tenantOrThrow(tenant, deps)
  const all = (await deps.records.grants(tenant)).filter(({ id }) => cursor === undefined || id > cursor)
  const page = all.toSorted((a, b) => (a.id < b.id ? -1 : 1)).slice(0, limit)
  const data: object[] = []
  for (const record of page) data.push(await shownGrant(record, deps))
  return { object: 'list', data, next_cursor: all.length > limit ? (page.at(-1)?.id ?? null) : null }
}

/** One grant. @throws AdminProblem `not_found` */
export async function showGrant(tenant: string, named: string, deps: ControlDeps): Promise<object> {
  await tenantOrThrow(tenant, deps)
  return await shownGrant(await grantOrThrow(tenant, named, deps), deps)
}

/** The full id of a tenant's grant, as events and the ledger name it: ids of two tenants never meet. */
function grantId(tenant: string, id: string): string {
  return `${tenant}/${id}`
}

function recordOf(given: z.output<typeof NewGrant>, { id: tenant, time_zone }: TenantRecord, deps: ControlDeps): GrantRecord {
  const { id, kind, unit, models, weights } = given
  const modelOf = (name: string, param: string): string => {
    const model = deps.modelOf(name)
    if (model === null) throw new AdminProblem('invalid_request', `${param}: the catalogue has no ${shown(name)}`, param)
    return model
  }
  return {
    id: grantId(tenant, id),
    tenant,
    kind,
    unit: UNITS[unit],
    amount: amountOf(given),
    priority: given.priority ?? PRIORITIES[kind],
    models: models === null ? null : [...new Set(models.map((name) => modelOf(name, 'models')))].toSorted(),
    weights:
      weights === null
        ? null
        : Object.fromEntries(
            Object.entries(weights)
              .map(([name, weight]) => [modelOf(name, 'weights'), weight] as const)
              .toSorted(([a], [b]) => (a < b ? -1 : 1)),
          ),
    expires_at: expiryOf(given.expires_at, time_zone),
    created_at: deps.clock.now_ms(),
  }
}

function amountOf({ unit, amount }: Pick<z.output<typeof NewGrant>, 'unit' | 'amount'>): bigint {
  const text = String(amount)
  if (unit !== 'cny' && !/^-?\d{1,15}$/.test(text)) throw wrongAmount(`${unit} are a whole number of at most 15 digits`)
  try {
    const value = unit === 'cny' ? nanoFromCny(text) : BigInt(text)
    if (value > 0n) return value
  } catch (error) {
    if (error instanceof RangeError) throw wrongAmount(error.message)
    throw error
  }
  throw wrongAmount('must be above zero')
}

function wrongAmount(why: string): AdminProblem {
  return new AdminProblem('invalid_request', `amount: ${why}`, 'amount')
}

function expiryOf(text: string | null, time_zone: string): number | null {
  return text === null ? null : instantOf(text, time_zone, 'end_ms')
}

function inThePast(): AdminProblem {
  return new AdminProblem('invalid_request', 'expires_at: lies in the past', 'expires_at')
}

function refuseOther(known: GrantRecord, wanted: GrantRecord): void {
  const terms = ['kind', 'unit', 'amount', 'priority', 'models', 'weights', 'expires_at'] as const
  const differing = terms.filter((name) => JSON.stringify(known[name], digits) !== JSON.stringify(wanted[name], digits))
  if (differing.length === 0) return
  throw new AdminProblem('conflict', `grant ${known.id} exists already with another ${differing.join(', ')}; nothing has changed`, 'id')
}

function digits(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value
}

function givingOf(record: GrantRecord, note: string, at: number): LedgerTransaction {
  return { id: givingId(record.id), at, kind: 'grant', note, entries: givingEntries(record, record.amount) }
}

async function find(id: string, tenant: string, { records }: ControlDeps): Promise<GrantRecord | undefined> {
  return (await records.grants(tenant)).find((grant) => grant.id === id)
}

/** By the full id, or the part behind the tenant. */
async function grantOrThrow(tenant: string, named: string, deps: ControlDeps): Promise<GrantRecord> {
  const known = (await find(named, tenant, deps)) ?? (await find(grantId(tenant, named), tenant, deps))
  if (known === undefined) throw new AdminProblem('not_found', `tenant ${tenant} has no grant ${shown(named)}`, 'grant')
  return known
}

async function shownGrant(record: GrantRecord, { limits, ledger, clock }: ControlDeps): Promise<object> {
  const view = await viewGrant(record, await limits.balance(record.tenant), ledger, clock.now_ms())
  return { object: 'grant', tenant: record.tenant, ...view, created_at: isoOf(record.created_at) }
}
