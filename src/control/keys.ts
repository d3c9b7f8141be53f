import * as z from 'zod'
import { hashKey, newKeySecret, uuidv7 } from '../base/ids.ts'
import type { KeyRecord } from '../storage/records.ts'
import type { ControlDeps } from './deps.ts'
import { AdminProblem, DisplayName, isoOf, limitView, LimitList, parse } from './problem.ts'
import { announce, keyOrThrow, projectOrThrow, shown, tenantOrThrow } from './find.ts'

const DAY_MS = 86_400_000
const PAGE_KEYS = 100
const MAX_PAGE_KEYS = 1000

const NewKey = z
  .strictObject({
    tenant: z.string(),
    project: z.string().default('default'),
    name: DisplayName.default('key'),
    models: z
      .array(z.string().min(1).max(256))
      .min(1, 'name at least one model, or leave it out to allow all')
      .max(1000)
      .nullable()
      .default(null),
    zones: z
      .array(z.enum(['private', 'domestic', 'overseas']))
      .min(1)
      .nullable()
      .default(null),
    expires_at: z.iso.datetime({ offset: true }).optional(),
    expires_in_days: z.number().int().min(1).max(36_500).optional(),
    limits: LimitList.default([]),
  })
  .refine((key) => key.expires_at === undefined || key.expires_in_days === undefined, 'give expires_at or expires_in_days, not both')

/** A key record for a new secret. */
export interface FreshKey {
  readonly record: KeyRecord
  readonly secret: string
}

/** Makes a secret and its record. The record holds the hash alone. */
export function makeKey(
  given: Omit<KeyRecord, 'id' | 'hash' | 'last4' | 'scopes' | 'revoked_at' | 'created_at'>,
  { clock, random }: Pick<ControlDeps, 'clock' | 'random'>,
): FreshKey {
  const secret = newKeySecret(random)
  const now_ms = clock.now_ms()
  const id = `key_${uuidv7(now_ms, random).replaceAll('-', '')}`
  const record: KeyRecord = {
    ...given,
    id,
    hash: hashKey(secret),
    last4: secret.slice(-4),
    scopes: [],
    revoked_at: null,
    created_at: now_ms,
  }
  return { record, secret }
}

/**
 * Creates a key. The answer is the only place where its secret ever appears.
 *
 * @throws AdminProblem `invalid_request`, `not_found` for tenant or project
 */
export async function createKey(body: unknown, deps: ControlDeps): Promise<object> {
  const { tenant, project: named, name, models, zones, limits, ...expiry } = parse(NewKey, body)
  await tenantOrThrow(tenant, deps)
  const project = await projectOrThrow(tenant, named, deps)
  checkModels(models ?? [], deps)
  const expires_at = expiryOf(expiry, deps.clock.now_ms())
  const { record, secret } = makeKey({ tenant, project: project.id, name, models, zones, limits, expires_at }, deps)
  await announce(await deps.records.put({ kind: 'key', record }), deps)
  return { ...keyView(record), secret }
}

function expiryOf(
  { expires_at, expires_in_days }: { expires_at?: string | undefined; expires_in_days?: number | undefined },
  now_ms: number,
): number | null {
  if (expires_in_days !== undefined) return now_ms + expires_in_days * DAY_MS
  if (expires_at === undefined) return null
  const at_ms = Date.parse(expires_at)
  if (at_ms <= now_ms) throw new AdminProblem('invalid_request', 'expires_at: lies in the past', 'expires_at')
  return at_ms
}

const KeyChange = z
  .strictObject({
    name: DisplayName,
    models: z.array(z.string().min(1).max(256)).min(1, 'name at least one model, or null to allow all').max(1000).nullable(),
    zones: z
      .array(z.enum(['private', 'domestic', 'overseas']))
      .min(1)
      .nullable(),
    expires_at: z.iso.datetime({ offset: true }).nullable(),
  })
  .partial()

/**
 * Changes the named fields of a key. Limits are changed one by one (`/admin/v1/limits`), a revocation cannot be taken back.
 *
 * @throws AdminProblem `invalid_request`, `not_found`
 */
export async function changeKey(id: string, body: unknown, deps: ControlDeps): Promise<object> {
  const { expires_at, ...changes } = parse(KeyChange, body)
  checkModels(changes.models ?? [], deps)
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
  const expiry = expires_at === undefined ? {} : { expires_at: expires_at === null ? null : Date.parse(expires_at) }
  return await keyInTurn(id, deps, async (known) => {
    const record: KeyRecord = { ...known, ...given, ...expiry }
    await announce(await deps.records.put({ kind: 'key', record }), deps)
    return keyView(record)
  })
}

/** Reads a key and works on it in its tenant's turn, so that of two changes at once neither undoes the other. */
async function keyInTurn(id: string, deps: ControlDeps, work: (known: KeyRecord) => Promise<object>): Promise<object> {
  const { tenant } = await keyOrThrow(id, deps)
  return await deps.turns.run(tenant, async () => work(await keyOrThrow(id, deps)))
}

function checkModels(models: readonly string[], deps: Pick<ControlDeps, 'knowsModel'>): void {
  const unknown = models.filter((model) => !deps.knowsModel(model))
  if (unknown.length > 0)
    throw new AdminProblem('invalid_request', `models: the catalogue has no ${unknown.map(shown).join(', ')}`, 'models')
}

/**
 * Revokes a key: every admission after this resolves is refused. Revoking again changes nothing.
 *
 * @throws AdminProblem `not_found`
 */
export async function revokeKey(id: string, deps: ControlDeps): Promise<object> {
  return await keyInTurn(id, deps, async (known) => {
    const record: KeyRecord = { ...known, revoked_at: known.revoked_at ?? deps.clock.now_ms() }
    // Written again even if revoked: an earlier call may have failed between these steps.
    const seq = await deps.records.put({ kind: 'key', record })
    await deps.limits.block('key', id, true)
    await announce(seq, deps)
    return keyView(record)
  })
}

const KeyQuery = z.strictObject({
  tenant: z.string().optional(),
  project: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(MAX_PAGE_KEYS).default(PAGE_KEYS),
  cursor: z.string().max(128).optional(),
})

/** A page of keys in order of creation, without hashes. @throws AdminProblem `invalid_request`, `not_found` */
export async function listKeys(query: unknown, deps: ControlDeps): Promise<object> {
  const { tenant, project, limit, cursor } = parse(KeyQuery, query)
  if (tenant !== undefined) await tenantOrThrow(tenant, deps)
  const wanted = project === undefined || tenant === undefined ? project : (await projectOrThrow(tenant, project, deps)).id
  const all = (await deps.records.keys(tenant)).filter(
    (key) => (wanted === undefined || key.project === wanted) && (cursor === undefined || key.id > cursor),
  )
  const page = all.toSorted((a, b) => (a.id < b.id ? -1 : 1)).slice(0, limit)
  return { object: 'list', data: page.map(keyView), next_cursor: all.length > limit ? (page.at(-1)?.id ?? null) : null }
}

function keyView({ hash: _, scopes: __, limits, expires_at, revoked_at, created_at, ...key }: KeyRecord): object {
  return {
    object: 'key',
    ...key,
    limits: limits.map(limitView),
    expires_at: isoOf(expires_at),
    revoked_at: isoOf(revoked_at),
    created_at: isoOf(created_at),
  }
}
