import type { ProcessShare } from '../storage/nodes.ts'
import { type Capacity, type CapacityLeft, CapacityMeter } from './capacity.ts'

/** What of an endpoint decides how much goes there at a time. */
export interface Placed {
  readonly id: string
  /** Null: there is always room. */
  readonly capacity: Capacity | null
}

/** A request's place at a target, from before it is sent until its answer has ended. */
export interface Place<Target extends Placed = Placed> {
  readonly target: Target
  /** Tokens that it counts until it is known what it used. */
  readonly tokens: number
  readonly at_ms: number
  /** False once it was given back. */
  taken: boolean
  /** Whether a request was sent with it. */
  sent: boolean
}

/** What this process has at every endpoint with a capacity. Endpoints without one are never looked up. */
export class PlaceBoard {
  readonly #share: () => ProcessShare
  readonly #meters = new Map<string, CapacityMeter>()

  /** @param share this process's part of every limit, asked whenever it is needed */
  constructor(share: () => ProcessShare) {
    this.#share = share
  }

  /** A place at the target, or null when it has no room now. Give it back with {@link leave}, whatever becomes of the request. */
  take<Target extends Placed>(target: Target, tokens: number, now_ms: number): Place<Target> | null {
    const { capacity } = target
    if (capacity !== null) {
      const meter = this.#meterOf(target.id)
      if (!meter.hasRoom(capacity, this.#share(), tokens, now_ms)) return null
      meter.take(tokens, now_ms)
    }
    return { target, tokens, at_ms: now_ms, taken: true, sent: false }
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
    if (place.target.capacity === null) return false
    this.#meterOf(place.target.id).leave(place, place.sent, tokens, now_ms)
    return true
  }

  /** Milliseconds until the target has room by the time alone; null where a running request has to end first. */
  roomIn_ms({ id, capacity }: Placed, tokens: number, now_ms: number): number | null {
    return capacity === null ? 0 : this.#meterOf(id).roomIn_ms(capacity, this.#share(), tokens, now_ms)
  }

  /** What is left of a target's capacity for this process. */
  left({ id, capacity }: Placed, now_ms: number): CapacityLeft | null {
    return capacity === null ? null : this.#meterOf(id).left(capacity, this.#share(), now_ms)
  }

  /** Forgets what is not in the catalogue any more, but for what still runs. Call when the catalogue was swapped. */
  prune(known: ReadonlySet<string>): void {
    for (const [id, meter] of this.#meters) if (!known.has(id) && meter.in_flight === 0) this.#meters.delete(id)
  }

  #meterOf(id: string): CapacityMeter {
    const known = this.#meters.get(id)
    if (known !== undefined) return known
    const meter = new CapacityMeter()
    this.#meters.set(id, meter)
    return meter
  }
}
