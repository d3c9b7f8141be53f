import type { ProcessShare } from '../storage/nodes.ts'
import { type Capacity, type CapacityLeft, CapacityMeter } from './capacity.ts'
import type { FailureKind } from './failure.ts'
import {
  afterAnswer,
  afterFailedTry,
  afterTaking,
  drawKey,
  drawSteadily,
  freshKey,
  KEY_RULES,
  type KeyPhase,
  type KeyPool,
  type KeyState,
  phaseOf,
  type ProviderKey,
  refusesKey,
} from './key-pool.ts'

/** What of an endpoint decides how much goes there at a time. */
export interface Placed {
  readonly id: string
  /** Null: there is always room. */
  readonly capacity: Capacity | null
  /** Null where there is one key, or none. */
  readonly key_pool: KeyPool | null
}

/** A request's place at a target, from before it is sent until its answer has ended. */
export interface Place<Target extends Placed = Placed> {
  readonly target: Target
  /** The key to be used, of a target with a pool. */
  readonly key: ProviderKey | null
  /** Tokens that it counts until it is known what it used. */
  readonly tokens: number
  readonly at_ms: number
  /** False once it was given back. */
  taken: boolean
  /** Whether a request was sent with it. */
  sent: boolean
}

/** Chances by which a conversation draws the same key each time; null where any will do. */
export type KeyChance = ((id: string) => number) | null

/** What a key's failed try means. `another`: the target may be tried with another key; `none_left`: every key is left alone for a while. */
export type KeyVerdict = 'no_key' | 'key_is_fine' | 'another' | 'none_left'

/** What this process has at every endpoint with a capacity, and knows of every key of a pool. Other endpoints are never looked up. */
export class PlaceBoard {
  readonly #share: () => ProcessShare
  readonly #random: () => number
  readonly #endpoints = new Map<string, CapacityMeter>()
  readonly #keys = new Map<string, CapacityMeter>()
  /** Keys that are as new take no room. */
  readonly #states = new Map<string, KeyState>()
  /** The keys of the catalogue in force; null before it is known. */
  #known: ReadonlyMap<string, ProviderKey> | null = null

  /**
   * @param share this process's part of every limit, asked whenever it is needed
   * @param random a number in [0, 1)
   */
  constructor(share: () => ProcessShare, random: () => number) {
    this.#share = share
    this.#random = random
  }

  /** A place at the target, or null when it has no room now. Give it back with {@link leave}, whatever becomes of the request. */
  take<Target extends Placed>(target: Target, tokens: number, now_ms: number, chance: KeyChance = null): Place<Target> | null {
    const { id, capacity, key_pool } = target
    if (capacity !== null && !meterOf(id, this.#endpoints).hasRoom(capacity, this.#share(), tokens, now_ms)) return null
    const key = key_pool === null ? null : this.#takeKey(key_pool, tokens, now_ms, chance)
    if (key_pool !== null && key === null) return null
    if (capacity !== null) meterOf(id, this.#endpoints).take(tokens, now_ms)
    return { target, key, tokens, at_ms: now_ms, taken: true, sent: false }
  }

  /**
   * Gives a place back, once.
   *
   * @param tokens what the request used; null where that is not known, so that what was expected counts
   * @returns whether others may have room now
   */
  leave(place: Place, tokens: number | null, now_ms: number): boolean {
    if (!place.taken) return false
    place.taken = false
    const { target, key, sent } = place
    if (target.capacity !== null) meterOf(target.id, this.#endpoints).leave(place, sent, tokens, now_ms)
    if (key === null) return target.capacity !== null
    if (key.capacity !== null) meterOf(key.id, this.#keys).leave(place, sent, tokens, now_ms)
    if (!sent) this.#keep(key.id, { ...this.#stateOf(key.id), probe_until_ms: 0 })
    return true
  }

  /** The key of a place was taken by its provider. */
  answered({ key }: Place, now_ms: number): void {
    if (key !== null && this.#states.has(key.id)) this.#keep(key.id, afterAnswer(this.#stateOf(key.id), now_ms))
  }

  /** A try with a place has failed. */
  failed({ key, target }: Place, kind: FailureKind, now_ms: number, retry_after_ms: number | null): KeyVerdict {
    if (key === null) return 'no_key'
    this.#keep(key.id, afterFailedTry(this.#stateOf(key.id), kind, now_ms, retry_after_ms))
    if (!refusesKey(kind)) return 'key_is_fine'
    return this.keyIn_ms(target, now_ms) === 0 ? 'another' : 'none_left'
  }

  /** Milliseconds until some key of the target may be tried; 0 if one may now, also where there is no pool. */
  keyIn_ms({ key_pool }: Pick<Placed, 'key_pool'>, now_ms: number): number {
    if (key_pool === null) return 0
    const waits = this.#current(key_pool).map(({ id }) => this.#stateOf(id).until_ms - now_ms)
    return Math.max(0, Math.min(KEY_RULES.account_cooldown_cap_ms, ...waits))
  }

  /** Milliseconds until the target has room by the time alone; null where a running request has to end first. */
  roomIn_ms({ id, capacity, key_pool }: Placed, tokens: number, now_ms: number): number | null {
    const own_ms = capacity === null ? 0 : meterOf(id, this.#endpoints).roomIn_ms(capacity, this.#share(), tokens, now_ms)
    if (own_ms === null || key_pool === null) return own_ms
    const waits = this.#current(key_pool).map((key) => this.#keyRoomIn_ms(key, tokens, now_ms))
    const known = waits.filter((wait_ms) => wait_ms !== null)
    return known.length < waits.length ? null : Math.max(own_ms, Math.min(KEY_RULES.account_cooldown_cap_ms, ...known))
  }

  /** What is left of a target's capacity for this process. */
  left({ id, capacity }: Placed, now_ms: number): CapacityLeft | null {
    return capacity === null ? null : meterOf(id, this.#endpoints).left(capacity, this.#share(), now_ms)
  }

  /** How a key is, and until when it is left alone (0: it is not). */
  keyState(id: string, now_ms: number): { readonly phase: KeyPhase; readonly until_ms: number } {
    const state = this.#stateOf(id)
    const phase = phaseOf(state, now_ms)
    return { phase, until_ms: phase === 'cooling' ? state.until_ms : 0 }
  }

  /**
   * Takes over the catalogue in force. What is not in it any more is forgotten, but for what still runs. Keys that are not in it are used
   * by no later try, and those that are with their present secret, whatever pool a request has been given.
   */
  adopt(targets: Iterable<Placed>): void {
    const endpoints = new Set<string>()
    const keys = new Map<string, ProviderKey>()
    for (const { id, key_pool } of targets) {
      endpoints.add(id)
      for (const key of key_pool?.keys ?? []) keys.set(key.id, key)
    }
    for (const [id, { secret }] of keys) if (this.#known?.get(id)?.secret !== secret) this.#states.delete(id)
    this.#known = keys
    prune(this.#endpoints, endpoints)
    prune(this.#keys, keys)
    for (const id of this.#states.keys()) if (!keys.has(id)) this.#states.delete(id)
  }

  #takeKey(pool: KeyPool, tokens: number, now_ms: number, chance: KeyChance): ProviderKey | null {
    const usable = this.#current(pool).filter((key) => this.#isUsable(key, tokens, now_ms))
    const key = chance === null ? drawKey(usable, this.#random()) : drawSteadily(usable, chance)
    if (key === null) return null
    if (key.capacity !== null) meterOf(key.id, this.#keys).take(tokens, now_ms)
    if (this.#states.has(key.id)) this.#keep(key.id, afterTaking(this.#stateOf(key.id), now_ms))
    return key
  }

  #isUsable({ id, capacity }: ProviderKey, tokens: number, now_ms: number): boolean {
    const state = this.#states.get(id)
    if (state !== undefined && phaseOf(state, now_ms) !== 'ready') return false
    return capacity === null || meterOf(id, this.#keys).hasRoom(capacity, this.#share(), tokens, now_ms)
  }

  #keyRoomIn_ms({ id, capacity }: ProviderKey, tokens: number, now_ms: number): number | null {
    const state = this.#stateOf(id)
    const cooling_ms = Math.max(0, state.until_ms - now_ms)
    if (phaseOf(state, now_ms) === 'probing') return null
    if (capacity === null) return cooling_ms
    const room_ms = meterOf(id, this.#keys).roomIn_ms(capacity, this.#share(), tokens, now_ms)
    if (room_ms === null) return cooling_ms > 0 ? cooling_ms : null
    return Math.max(cooling_ms, room_ms)
  }

  /** The pool's keys as they are now. */
  #current({ keys }: KeyPool): readonly ProviderKey[] {
    const known = this.#known
    return known === null ? keys : keys.flatMap(({ id }) => known.get(id) ?? [])
  }

  #stateOf(id: string): KeyState {
    return this.#states.get(id) ?? freshKey
  }

  #keep(id: string, state: KeyState): void {
    if (state.refusals === 0) this.#states.delete(id)
    else this.#states.set(id, state)
  }
}

function meterOf(id: string, meters: Map<string, CapacityMeter>): CapacityMeter {
  const known = meters.get(id)
  if (known !== undefined) return known
  const meter = new CapacityMeter()
  meters.set(id, meter)
  return meter
}

function prune(meters: Map<string, CapacityMeter>, known: { has(id: string): boolean }): void {
  for (const [id, meter] of meters) if (!known.has(id) && meter.in_flight === 0) meters.delete(id)
}
