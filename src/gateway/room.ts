import { WeirError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import type { Endpoint, GatewayLimits } from '../config/model.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { TenantRecord } from '../storage/records.ts'
import { FairQueue, type Flow } from '../upstream/fair-queue.ts'
import { type FailureKind, UpstreamFailure } from '../upstream/failure.ts'
import type { KeyPhase } from '../upstream/key-pool.ts'
import { type KeyChance, type KeyVerdict, type Place, PlaceBoard } from '../upstream/places.ts'
import type { CapacityLeft } from '../upstream/capacity.ts'
import type { ProcessShare } from '../storage/nodes.ts'
import type { Call } from './call.ts'
import type { Route } from './route.ts'

/** How often a queue is looked at besides whenever a request ends: room can come with the time, or with another number of processes. */
const LOOK_MOST_MS = 250
const LOOK_LEAST_MS = 5
/** What a caller is told to wait where nobody knows better. */
const RETRY_AFTER_MS = 1000

/** A request that asks for room. */
export interface Asking {
  readonly call: Call
  readonly tenant: Pick<TenantRecord, 'id' | 'priority' | 'queue_weight'>
  /** Catalogue model, for the error's words. */
  readonly model: string
  readonly targets: readonly Endpoint[]
  readonly tokens: number
  readonly chance: KeyChance
  readonly limits: Pick<GatewayLimits, 'queue_timeout_ms' | 'max_queued_requests' | 'max_queued_per_tenant'>
  /** Longest wait, when less than the limits say. */
  readonly most_ms: number
}

interface Waiter {
  readonly asking: Asking
  readonly flow: Flow
  readonly served: (place: Place<Endpoint>) => void
  standing: boolean
}

/** Those who wait for one endpoint, or for the endpoints that share a pool of keys. */
interface Lane {
  readonly queue: FairQueue<Waiter>
  timer: NodeJS.Timeout | null
}

/**
 * A place for a request that is not admitted yet, waited for if need be. Before its hold, so that nothing is promised, counted or
 * journalled for somebody who waits, and being turned away costs nothing but the wait. Its client cannot be told anything meanwhile,
 * since the status of the answer is not known: the wait is at most the silence that clients are left in anyway.
 *
 * @throws as {@link Room.wait}
 */
export function placeFor(
  call: Call,
  tenant: Asking['tenant'],
  { model, targets, chance }: Pick<Route, 'model' | 'targets' | 'chance'>,
  tokens: number,
  room: Room,
  limits: Asking['limits'] & Pick<GatewayLimits, 'keepalive_after_ms'>,
): Promise<Place<Endpoint>> {
  return room.wait({ call, tenant, model: model.id, targets, tokens, chance, limits, most_ms: limits.keepalive_after_ms })
}

type RoomMetrics = Pick<Metrics, 'queued'>

/**
 * Room at the upstreams: who may go now, and in which order the others wait. Each endpoint with a capacity has a fair queue across
 * tenants, and so have those that share a pool of keys; a request waits in those of all its targets and takes the first place that becomes its own. Whoever comes while others wait
 * for an endpoint waits behind them.
 */
export class Room {
  readonly #board: PlaceBoard
  readonly #clock: Clock
  readonly #metrics: RoomMetrics
  readonly #lanes = new Map<string, Lane>()
  readonly #byTenant = new Map<string, number>()
  #size = 0

  /** @param share this process's part of every capacity */
  constructor(share: () => ProcessShare, random: () => number, clock: Clock, metrics: RoomMetrics) {
    this.#board = new PlaceBoard(share, random)
    this.#clock = clock
    this.#metrics = metrics
  }

  /** Requests that wait. */
  get waiting(): number {
    return this.#size
  }

  /** A place at the target now, or null. Nobody who waits is passed. */
  take(target: Endpoint, tokens: number, chance: KeyChance): Place<Endpoint> | null {
    if (this.#lanes.size > 0 && this.#lanes.has(laneOf(target))) return null
    return this.#board.take(target, tokens, this.#clock.now_ms(), chance)
  }

  /** The first of the targets that has room now, or null. */
  takeFirst(targets: readonly Endpoint[], tokens: number, chance: KeyChance): Place<Endpoint> | null {
    for (const target of targets) {
      const place = this.take(target, tokens, chance)
      if (place !== null) return place
    }
    return null
  }

  /**
   * Waits until one of the targets has room for this request.
   *
   * @throws WeirError `no_upstream_available` when too many wait, when the time is up, or at once when waiting cannot help
   * @throws UpstreamFailure when the client has left, or the request was stopped
   */
  async wait(asking: Asking): Promise<Place<Endpoint>> {
    const { call, limits, most_ms } = asking
    const wait_ms = Math.min(limits.queue_timeout_ms, most_ms) - call.notes.queued_ms
    this.#refuseHopeless(asking, wait_ms)
    const started_ms = this.#clock.monotonic_ms()
    try {
      const place = await this.#stand(asking, wait_ms)
      this.#metrics.queued('served', this.#clock.monotonic_ms() - started_ms)
      return place
    } catch (error) {
      this.#metrics.queued(error instanceof WeirError ? 'timed_out' : 'left', this.#clock.monotonic_ms() - started_ms)
      throw error
    } finally {
      call.notes.queued_ms += Math.round(this.#clock.monotonic_ms() - started_ms)
    }
  }

  /** Gives a place back, once, and lets the next one go. `tokens` as in {@link PlaceBoard.leave}. */
  leave(place: Place<Endpoint>, tokens: number | null): void {
    if (this.#board.leave(place, tokens, this.#clock.now_ms())) this.#serve(laneOf(place.target))
  }

  /** The provider has taken the key of a place. */
  answered(place: Place<Endpoint>): void {
    if (place.key !== null) this.#board.answered(place, this.#clock.now_ms())
  }

  /** A try with a place has failed: what that says of its key. */
  failed(place: Place<Endpoint>, kind: FailureKind, retry_after_ms: number | null): KeyVerdict {
    return this.#board.failed(place, kind, this.#clock.now_ms(), retry_after_ms)
  }

  /** As {@link PlaceBoard.keyIn_ms}. */
  keyIn_ms(target: Endpoint): number {
    return this.#board.keyIn_ms(target, this.#clock.now_ms())
  }

  /** As {@link PlaceBoard.keyState}. */
  keyState(id: string): ReturnType<PlaceBoard['keyState']> {
    return this.#board.keyState(id, this.#clock.now_ms())
  }

  /** How this process sees every key of the endpoints' pools. */
  keyStates(endpoints: Iterable<Endpoint>): readonly { readonly key: string; readonly state: KeyPhase }[] {
    const ids = new Set([...endpoints].flatMap(({ key_pool }) => key_pool?.keys.map(({ id }) => id) ?? []))
    return [...ids].map((key) => ({ key, state: this.keyState(key).phase }))
  }

  /** What is left for this process of an endpoint's capacity; null where it has none. */
  left(endpoint: Endpoint): CapacityLeft | null {
    return this.#board.left(endpoint, this.#clock.now_ms())
  }

  /** As {@link PlaceBoard.adopt}. Call when the catalogue was swapped. */
  adopt(endpoints: Iterable<Endpoint>): void {
    this.#board.adopt(endpoints)
    for (const lane of this.#lanes.keys()) this.#serve(lane)
  }

  #refuseHopeless(asking: Asking, wait_ms: number): void {
    const { tenant, targets, tokens, limits } = asking
    const full = this.#size >= limits.max_queued_requests || (this.#byTenant.get(tenant.id) ?? 0) >= limits.max_queued_per_tenant
    const now_ms = this.#clock.now_ms()
    const room_ms = targets.map((target) => this.#board.roomIn_ms(target, tokens, now_ms))
    const soonest_ms = room_ms.some((ms) => ms === null) ? null : Math.min(...room_ms.map((ms) => ms ?? 0))
    const too_late = wait_ms <= 0 || (soonest_ms !== null && soonest_ms > wait_ms)
    if (!full && !too_late) return
    this.#metrics.queued(full ? 'full' : 'hopeless', 0)
    throw this.#noRoom(asking, Math.max(RETRY_AFTER_MS, soonest_ms ?? 0))
  }

  #noRoom({ model }: Asking, retry_after_ms: number): WeirError {
    return new WeirError('no_upstream_available', { values: { model }, retry_after_ms, instead: true })
  }

  #stand(asking: Asking, wait_ms: number): Promise<Place<Endpoint>> {
    const { call, tenant } = asking
    const { promise, resolve, reject } = Promise.withResolvers<Place<Endpoint>>()
    const flow: Flow = { tenant: tenant.id, priority: tenant.priority, weight: tenant.queue_weight }
    const end = (): void => {
      clearTimeout(timer)
      call.signal.removeEventListener('abort', stopped)
      this.#remove(waiter)
    }
    const waiter: Waiter = {
      asking,
      flow,
      standing: true,
      served: (place) => {
        end()
        resolve(place)
      },
    }
    const give = (error: Error): void => {
      end()
      reject(error)
    }
    const stopped = (): void => give(new UpstreamFailure(call.stopped_by ?? 'client_gone', { unsent: true }))
    const timer = setTimeout(() => give(this.#noRoom(asking, RETRY_AFTER_MS)), wait_ms)
    call.signal.addEventListener('abort', stopped, { once: true })
    this.#add(waiter)
    // Nothing was asked of an upstream yet, so there is nothing to be read to its end: whoever leaves gives the place in the queue up.
    call.reply.whenGone(() => give(new UpstreamFailure('client_gone', { unsent: true })))
    if (call.signal.aborted) stopped()
    else for (const lane of lanesOf(asking)) this.#serve(lane)
    return promise
  }

  #add(waiter: Waiter): void {
    const { tenant } = waiter.flow
    for (const id of lanesOf(waiter.asking)) {
      const lane = this.#lanes.get(id) ?? { queue: new FairQueue<Waiter>(), timer: null }
      lane.queue.add(waiter, waiter.flow)
      this.#lanes.set(id, lane)
    }
    this.#size += 1
    this.#byTenant.set(tenant, (this.#byTenant.get(tenant) ?? 0) + 1)
  }

  /** Takes it out of every queue that it stands in. */
  #remove(waiter: Waiter): void {
    if (!waiter.standing) return
    waiter.standing = false
    for (const id of lanesOf(waiter.asking)) {
      const lane = this.#lanes.get(id)
      if (lane === undefined) continue
      lane.queue.remove(waiter, waiter.flow)
      if (lane.queue.size === 0) this.#close(id, lane)
    }
    this.#size -= 1
    const left = (this.#byTenant.get(waiter.flow.tenant) ?? 1) - 1
    if (left === 0) this.#byTenant.delete(waiter.flow.tenant)
    else this.#byTenant.set(waiter.flow.tenant, left)
  }

  #close(id: string, lane: Lane): void {
    if (lane.timer !== null) clearTimeout(lane.timer)
    this.#lanes.delete(id)
  }

  /** Gives out what room there is. The first in turn is waited for: were smaller ones let past it, a large one might never go. */
  #serve(id: string): void {
    const now_ms = this.#clock.now_ms()
    for (;;) {
      const lane = this.#lanes.get(id)
      if (lane === undefined) return
      const full = new Map<string, Waiter>()
      let place: Place<Endpoint> | null = null
      const waiter = lane.queue.serve((candidate) => {
        place = this.#takeFor(candidate, id, full, now_ms)
        return place !== null
      })
      if (waiter === null || place === null) return this.#lookLater(id, lane, full, now_ms)
      waiter.served(place)
    }
  }

  /** @param full targets that had no room for somebody before, who is waited for */
  #takeFor(waiter: Waiter, lane: string, full: Map<string, Waiter>, now_ms: number): Place<Endpoint> | null {
    for (const target of waiter.asking.targets) {
      if (laneOf(target) !== lane || full.has(target.id)) continue
      const place = this.#board.take(target, waiter.asking.tokens, now_ms, waiter.asking.chance)
      if (place !== null) return place
      full.set(target.id, waiter)
    }
    return null
  }

  #lookLater(id: string, lane: Lane, full: ReadonlyMap<string, Waiter>, now_ms: number): void {
    if (lane.timer !== null) clearTimeout(lane.timer)
    let wait_ms = LOOK_MOST_MS
    for (const [target_id, { asking }] of full) {
      const target = asking.targets.find((one) => one.id === target_id)
      const room_ms = target === undefined ? null : this.#board.roomIn_ms(target, asking.tokens, now_ms)
      if (room_ms !== null) wait_ms = Math.min(wait_ms, room_ms)
    }
    lane.timer = setTimeout(() => this.#serve(id), Math.max(LOOK_LEAST_MS, wait_ms))
  }
}

function laneOf({ id, key_pool }: Endpoint): string {
  return key_pool === null ? id : `keys of ${key_pool.id}`
}

function lanesOf({ targets }: Asking): ReadonlySet<string> {
  return new Set(targets.map(laneOf))
}
