import * as z from 'zod'
import { rewrapSecret, SealBroken, sealSecret } from '../base/envelope.ts'
import { boundTo, isReference, type ProviderKeyRecord } from '../storage/records.ts'
import { originsOf } from '../config/origins.ts'
import { PROVIDERS } from '../upstream/providers/registry.ts'
import type { ControlDeps } from './deps.ts'
import { announce, shown } from './find.ts'
import { AdminProblem, isoOf, parse } from './problem.ts'

/** Changes of provider keys take their turns, since each reads before it writes. */
const TURN = 'provider keys'
/** Most keys that are kept, removed ones among them. */
const MAX_KEYS = 1000
/** A secret that is shorter shows nothing of itself. */
const SHOWN_FROM_CHARACTERS = 12

const Limit = z.int().min(1).max(1_000_000_000_000).nullable()
const Fields = {
  secret: z.string().regex(/^[\x21-\x7e]{1,4096}$/, 'write the key as visible ASCII characters, or a reference: ${NAME} or ${file:/path}'),
  weight: z.int().min(1).max(1_000_000),
  concurrency: Limit,
  requests_per_minute: Limit,
  tokens_per_minute: Limit,
  status: z.enum(['active', 'disabled']),
}
const NewKey = z.strictObject({
  provider: z.string().max(64),
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'use letters, digits, ".", "_" or "-", beginning with a letter or digit'),
  secret: Fields.secret,
  weight: Fields.weight.default(1),
  concurrency: Fields.concurrency.default(null),
  requests_per_minute: Fields.requests_per_minute.default(null),
  tokens_per_minute: Fields.tokens_per_minute.default(null),
  status: Fields.status.default('active'),
})
const KeyChange = z.strictObject(Fields).partial()

/**
 * Keeps a provider's key. Its secret is sealed under the master key, and never given out again.
 *
 * @throws AdminProblem `invalid_request`, also when the name is taken, or there is no master key and the secret is no reference
 */
export async function createProviderKey(body: unknown, deps: ControlDeps): Promise<object> {
  const { secret, ...given } = parse(NewKey, body)
  const facts = PROVIDERS.get(given.provider)
  if (facts === undefined) throw new AdminProblem('invalid_request', `there is no provider ${shown(given.provider)}`, 'provider')
  const catalogue = deps.configuration()?.catalogue
  if (facts.base_url === null && catalogue !== undefined && originsOf(catalogue, given.provider).size > 1) {
    const why = `endpoints of ${given.provider} are at several addresses; give each its api_key in catalogue.yaml, so that no key goes to another's`
    throw new AdminProblem('invalid_request', why, 'provider')
  }
  return await deps.turns.run(TURN, async () => {
    const all = await deps.records.providerKeys()
    const id = `${given.provider}/${given.name}`
    const known = all.find((key) => key.id === id)
    if (known !== undefined && known.status !== 'removed') throw new AdminProblem('invalid_request', `there is a key ${id} already`, 'name')
    if (known === undefined && all.length >= MAX_KEYS) throw new AdminProblem('invalid_request', `there are ${MAX_KEYS} keys already`)
    const now_ms = deps.clock.now_ms()
    const record: ProviderKeyRecord = { id, ...given, ...kept(secret, given, deps), created_at: now_ms, changed_at: now_ms }
    return await store(record, deps)
  })
}

/** Changes the named fields of a key; a new secret takes the place of the old one. @throws AdminProblem `invalid_request`, `not_found` */
export async function changeProviderKey(provider: string, name: string, body: unknown, deps: ControlDeps): Promise<object> {
  const { secret, ...changes } = parse(KeyChange, body)
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
  return await deps.turns.run(TURN, async () => {
    const known = await keyOrThrow(provider, name, deps)
    const renewed = secret === undefined ? {} : kept(secret, known, deps)
    return await store({ ...known, ...given, ...renewed, changed_at: deps.clock.now_ms() }, deps)
  })
}

/** Takes a key away: no later try uses it, and its secret is forgotten. @throws AdminProblem `not_found` */
export async function removeProviderKey(provider: string, name: string, deps: ControlDeps): Promise<object> {
  return await deps.turns.run(TURN, async () => {
    const known = await keyOrThrow(provider, name, deps)
    return await store({ ...known, secret: '', last4: null, status: 'removed', changed_at: deps.clock.now_ms() }, deps)
  })
}

/** Every key with a name: those of the API, and those of the catalogue that this process serves with. Secrets are never among it. */
export async function listProviderKeys(deps: ControlDeps): Promise<object> {
  const records = (await deps.records.providerKeys()).filter(({ status }) => status !== 'removed')
  const states = new Map((deps.keyStates?.() ?? []).map(({ key, state }) => [key, state]))
  const own = records.map((record) => ({ ...viewOf(record), state: states.get(record.id) ?? null }))
  const ids = new Set(records.map(({ id }) => id))
  const others = [...states]
    .filter(([id]) => !ids.has(id))
    .map(([id, state]) => ({ object: 'provider_key', id, source: 'catalogue', state }))
  return { object: 'list', data: [...own, ...others] }
}

/**
 * Wraps every secret with the present master key that another one still wraps. Each key by itself, so that what was cut short is gone on
 * with by the next call.
 *
 * @throws AdminProblem `invalid_request` without a master key, or naming the first key that no master key at hand opens
 */
export async function rewrapProviderKeys(deps: ControlDeps): Promise<object> {
  const masters = deps.master_keys ?? null
  if (masters === null) throw new AdminProblem('invalid_request', 'there is no master key: set WEIR_MASTER_KEY_FILE')
  return await deps.turns.run(TURN, async () => {
    const sealed = (await deps.records.providerKeys()).filter(({ secret }) => secret !== '' && !isReference(secret))
    let rewrapped = 0
    for (const record of sealed) {
      const secret = openedOrThrow(record, () => rewrapSecret(record.secret, boundTo(record), masters, deps.random))
      if (secret === null) continue
      await announce(await deps.records.put({ kind: 'provider_key', record: { ...record, secret } }), deps)
      rewrapped += 1
    }
    return { object: 'rewrap', master_key: masters.current.id, keys: sealed.length, rewrapped }
  })
}

function openedOrThrow({ id }: ProviderKeyRecord, work: () => string | null): string | null {
  try {
    return work()
  } catch (error) {
    if (error instanceof SealBroken) throw new AdminProblem('invalid_request', `the secret of ${id} ${error.message}`)
    throw error
  }
}

function kept(
  secret: string,
  owner: Pick<ProviderKeyRecord, 'provider' | 'name'>,
  { master_keys = null, random }: ControlDeps,
): Pick<ProviderKeyRecord, 'secret' | 'last4'> {
  if (isReference(secret)) return { secret, last4: null }
  if (secret.startsWith('${')) throw new AdminProblem('invalid_request', 'secret: a reference is ${NAME} or ${file:/path}', 'secret')
  if (master_keys === null) {
    const why = 'there is no master key to seal a secret with: set WEIR_MASTER_KEY_FILE, or give a reference, ${NAME} or ${file:/path}'
    throw new AdminProblem('invalid_request', why, 'secret')
  }
  const last4 = secret.length < SHOWN_FROM_CHARACTERS ? null : secret.slice(-4)
  return { secret: sealSecret(secret, boundTo(owner), master_keys.current, random), last4 }
}

async function store(record: ProviderKeyRecord, deps: ControlDeps): Promise<object> {
  await announce(await deps.records.put({ kind: 'provider_key', record }), deps)
  return viewOf(record)
}

async function keyOrThrow(provider: string, name: string, { records }: ControlDeps): Promise<ProviderKeyRecord> {
  const id = `${provider}/${name}`
  const known = (await records.providerKeys()).find((key) => key.id === id)
  if (known === undefined || known.status === 'removed') throw new AdminProblem('not_found', `there is no key ${shown(id)}`)
  return known
}

function viewOf({ secret, created_at, changed_at, ...record }: ProviderKeyRecord): object {
  const reference = isReference(secret) ? secret : null
  return { object: 'provider_key', ...record, source: 'api', reference, created_at: isoOf(created_at), changed_at: isoOf(changed_at) }
}
