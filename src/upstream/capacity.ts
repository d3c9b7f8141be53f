import type { ProcessShare } from '../storage/nodes.ts'

/** What an endpoint, or one of a provider's keys, takes of us at a time, all processes together. Null: no limit is known. */
export interface Capacity {
  readonly concurrency: number | null
  readonly requests_per_minute: number | null
  readonly tokens_per_minute: number | null
}

/** What of each limit is left for this process; null where there is none. */
export type CapacityLeft = Capacity

/**
 * This process's part of a limit. The parts add up to the limit exactly, but where there are more processes than it has units:
 * then each has 1, because one with nothing could never serve.
 */
export function shareOf(limit: number, { processes, rank }: ProcessShare): number {
  return Math.max(1, Math.floor(limit / processes) + (rank < limit % processes ? 1 : 0))
}

/** A second more than a minute: whatever minute is looked at lies within. */
const SLOTS = 61
const SLOT_MS = 1000

/** What was counted in the last minute, by seconds. Never less than the truth, and at most a second's worth more. */
export class MinuteWindow {
  readonly #slots: number[] = Array.from({ length: SLOTS }, () => 0)
  #newest = 0
  #sum = 0

  sum(now_ms: number): number {
    this.#advance(now_ms)
    return this.#sum
  }

  /** Counts `amount` at an instant, which may be past. What corrects a second that is over downwards changes nothing any more. */
  add(amount: number, at_ms: number, now_ms: number): void {
    this.#advance(now_ms)
    const slot = Math.floor(at_ms / SLOT_MS)
    if (slot > this.#newest - SLOTS && slot <= this.#newest) this.#addTo(slot, amount)
    else if (amount > 0) this.#addTo(this.#newest, amount)
  }

  /** Milliseconds until `amount` of what counts now has left; 0 if nothing has to. */
  leavesIn_ms(amount: number, now_ms: number): number {
    this.#advance(now_ms)
    let left = amount
    for (let slot = this.#newest - SLOTS + 1; left > 0 && slot <= this.#newest; slot += 1) {
      left -= this.#slots[slot % SLOTS] ?? 0
      if (left <= 0) return (slot + SLOTS) * SLOT_MS - now_ms
    }
    return left > 0 ? SLOTS * SLOT_MS : 0
  }

  #addTo(slot: number, amount: number): void {
    const at = slot % SLOTS
    this.#slots[at] = (this.#slots[at] ?? 0) + amount
    this.#sum += amount
  }

  #advance(now_ms: number): void {
    const slot = Math.floor(now_ms / SLOT_MS)
    if (slot <= this.#newest) return
    for (let gone = Math.max(this.#newest + 1, slot - SLOTS + 1); gone <= slot; gone += 1) {
      const at = gone % SLOTS
      this.#sum -= this.#slots[at] ?? 0
      this.#slots[at] = 0
    }
    this.#newest = slot
  }
}

/** What this process uses of one capacity. */
export class CapacityMeter {
  #in_flight = 0
  readonly #requests = new MinuteWindow()
  readonly #tokens = new MinuteWindow()

  get in_flight(): number {
    return this.#in_flight
  }

  /** Is there room for a request of so many tokens? One that is larger than the limit has room when nothing else counts: the upstream decides. */
  hasRoom(capacity: Capacity, share: ProcessShare, tokens: number, now_ms: number): boolean {
    const { concurrency, requests_per_minute, tokens_per_minute } = capacity
    if (concurrency !== null && this.#in_flight >= shareOf(concurrency, share)) return false
    if (requests_per_minute !== null && this.#requests.sum(now_ms) >= shareOf(requests_per_minute, share)) return false
    if (tokens_per_minute === null) return true
    const used = this.#tokens.sum(now_ms)
    return used <= 0 || used + tokens <= shareOf(tokens_per_minute, share)
  }

  /** Milliseconds until there is room by the time alone; null where a running request has to end first. */
  roomIn_ms(capacity: Capacity, share: ProcessShare, tokens: number, now_ms: number): number | null {
    const { concurrency, requests_per_minute, tokens_per_minute } = capacity
    if (concurrency !== null && this.#in_flight >= shareOf(concurrency, share)) return null
    let wait_ms = 0
    if (requests_per_minute !== null) {
      const beyond = this.#requests.sum(now_ms) + 1 - shareOf(requests_per_minute, share)
      if (beyond > 0) wait_ms = this.#requests.leavesIn_ms(beyond, now_ms)
    }
    if (tokens_per_minute !== null) {
      const used = this.#tokens.sum(now_ms)
      const beyond = Math.min(used, used + tokens - shareOf(tokens_per_minute, share))
      if (beyond > 0) wait_ms = Math.max(wait_ms, this.#tokens.leavesIn_ms(beyond, now_ms))
    }
    return wait_ms
  }

  take(tokens: number, now_ms: number): void {
    this.#in_flight += 1
    this.#requests.add(1, now_ms, now_ms)
    this.#tokens.add(tokens, now_ms, now_ms)
  }

  /**
   * A request has left.
   *
   * @param sent false if nothing was sent, so that nothing of it counts
   * @param tokens what it used in the end; null leaves what was expected
   */
  leave(taken: { readonly tokens: number; readonly at_ms: number }, sent: boolean, tokens: number | null, now_ms: number): void {
    this.#in_flight -= 1
    if (!sent) this.#requests.add(-1, taken.at_ms, now_ms)
    const used = sent ? (tokens ?? taken.tokens) : 0
    if (used !== taken.tokens) this.#tokens.add(used - taken.tokens, taken.at_ms, now_ms)
  }

  left(capacity: Capacity, share: ProcessShare, now_ms: number): CapacityLeft {
    const { concurrency, requests_per_minute, tokens_per_minute } = capacity
    const rest = (limit: number | null, used: number): number | null => (limit === null ? null : Math.max(0, shareOf(limit, share) - used))
    return {
      concurrency: rest(concurrency, this.#in_flight),
      requests_per_minute: rest(requests_per_minute, this.#requests.sum(now_ms)),
      tokens_per_minute: rest(tokens_per_minute, this.#tokens.sum(now_ms)),
    }
  }
}
