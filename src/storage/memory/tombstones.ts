import type { HoldReceipt } from '../../money/event.ts'
import type { LimitRule, SettleRequest } from '../ports.ts'
import { LATE_SETTLE_MS, type Share } from './counters.ts'

/** Most settled holds remembered. A settle of one that was forgotten is still recognised, by the time it was admitted. */
const MAX_SETTLED = 65_536
/** Most swept holds remembered; a settle later than that is not charged here (its event still is, in the ledger). */
const MAX_SWEPT = 65_536

/** A swept hold and what the sweep charged, so that a late settle can replace it. */
export interface SweptHold {
  readonly receipt: HoldReceipt
  readonly charged: SettleRequest
  readonly shares: ReadonlyArray<{ readonly rule: LimitRule; readonly share: Share }>
}
interface Stone {
  readonly until_ms: number
  readonly receipt: HoldReceipt | undefined
  /** A later charge has taken the first one's place: no other may. */
  readonly replaced: boolean
}

/** Closed holds, remembered 15 minutes within written bounds (SEMANTICS 14). Times are Unix ms. */
export class Tombstones {
  readonly #settled = new Expiring<Stone>(MAX_SETTLED)
  readonly #swept = new Expiring<SweptHold & { readonly until_ms: number }>(MAX_SWEPT)

  addSettled(receipt: HoldReceipt, now_ms: number): void {
    this.#add(receipt.id, receipt, now_ms)
  }

  /** A settled hold that another process admitted: only its id is known. */
  addForeign(id: string, now_ms: number): void {
    this.#add(id, undefined, now_ms)
  }

  addSwept(charged: SettleRequest, hold: Omit<SweptHold, 'charged'>, now_ms: number): void {
    this.#swept.set(charged.id, { receipt: hold.receipt, shares: hold.shares, charged, until_ms: now_ms + LATE_SETTLE_MS }, now_ms)
  }

  /** The sweep's charge was replaced: from here on it is settled like any other. */
  replaced(id: string, receipt: HoldReceipt, now_ms: number): void {
    this.#swept.delete(id)
    this.#add(id, receipt, now_ms, true)
  }

  /** @returns whether the charge of a settled hold may be replaced: true once */
  replace(id: string, now_ms: number): boolean {
    const stone = this.#settled.get(id, now_ms)
    if (stone === undefined || stone.replaced) return false
    this.#add(id, stone.receipt, now_ms, true)
    return true
  }

  swept(id: string, now_ms: number): SweptHold | undefined {
    return this.#swept.get(id, now_ms)
  }

  has(id: string, now_ms: number): boolean {
    return this.#settled.get(id, now_ms) !== undefined
  }

  /** The receipt of a closed hold: the same id always means the same hold. */
  receipt(id: string, now_ms: number): HoldReceipt | undefined {
    return (this.#settled.get(id, now_ms) ?? this.#swept.get(id, now_ms))?.receipt
  }

  #add(id: string, receipt: HoldReceipt | undefined, now_ms: number, replaced = false): void {
    this.#settled.set(id, { until_ms: now_ms + LATE_SETTLE_MS, receipt, replaced }, now_ms)
  }
}

/**
 * A map that forgets its oldest entries: those past their time, and one more where its bound is reached. Ids wait in a list
 * beside it, because walking a Map from its start passes over everything that was deleted there.
 */
class Expiring<Entry extends { readonly until_ms: number }> {
  readonly #entries = new Map<string, Entry>()
  readonly #most: number
  #ids: string[] = []
  #oldest = 0

  constructor(most: number) {
    this.#most = most
  }

  get(id: string, now_ms: number): Entry | undefined {
    const entry = this.#entries.get(id)
    return entry !== undefined && entry.until_ms > now_ms ? entry : undefined
  }

  set(id: string, entry: Entry, now_ms: number): void {
    this.#evict(now_ms)
    this.#entries.set(id, entry)
    this.#ids.push(id)
  }

  delete(id: string): void {
    this.#entries.delete(id)
  }

  /** At most two a call, which keeps up with one new entry a call. */
  #evict(now_ms: number): void {
    for (let looked = 0; looked < 2; looked += 1) {
      const id = this.#ids[this.#oldest]
      const full = this.#ids.length - this.#oldest >= this.#most
      if (id === undefined || (this.get(id, now_ms) !== undefined && !full)) break
      this.#entries.delete(id)
      this.#oldest += 1
    }
    // Forgotten ids are dropped together, so that each costs nothing much.
    if (this.#oldest < this.#most) return
    this.#ids = this.#ids.slice(this.#oldest)
    this.#oldest = 0
  }
}
