import type { HoldReceipt } from '../../money/event.ts'
import type { LimitRule, SettleRequest } from '../ports.ts'
import type { Share } from './counters.ts'

const LIFE_MS = 15 * 60_000
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
}

/** Closed holds, remembered 15 minutes within written bounds (SEMANTICS 14). Times are Unix ms. */
export class Tombstones {
  readonly #settled = new Map<string, Stone>()
  readonly #swept = new Map<string, SweptHold & { readonly until_ms: number }>()

  addSettled(receipt: HoldReceipt, now_ms: number): void {
    this.#add(receipt.id, receipt, now_ms)
  }

  /** A settled hold that another process admitted: only its id is known. */
  addForeign(id: string, now_ms: number): void {
    this.#add(id, undefined, now_ms)
  }

  addSwept(charged: SettleRequest, hold: Omit<SweptHold, 'charged'>, now_ms: number): void {
    evict(this.#swept, MAX_SWEPT, now_ms)
    this.#swept.set(charged.id, { receipt: hold.receipt, shares: hold.shares, charged, until_ms: now_ms + LIFE_MS })
  }

  /** The sweep's charge was replaced: from here on it is settled like any other. */
  replaced(id: string, receipt: HoldReceipt, now_ms: number): void {
    this.#swept.delete(id)
    this.#add(id, receipt, now_ms)
  }

  swept(id: string, now_ms: number): SweptHold | undefined {
    const stone = this.#swept.get(id)
    return stone !== undefined && stone.until_ms > now_ms ? stone : undefined
  }

  has(id: string, now_ms: number): boolean {
    return (this.#settled.get(id)?.until_ms ?? 0) > now_ms
  }

  /** The receipt of a closed hold: the same id always means the same hold. */
  receipt(id: string, now_ms: number): HoldReceipt | undefined {
    return this.has(id, now_ms) ? this.#settled.get(id)?.receipt : this.swept(id, now_ms)?.receipt
  }

  #add(id: string, receipt: HoldReceipt | undefined, now_ms: number): void {
    evict(this.#settled, MAX_SETTLED, now_ms)
    this.#settled.set(id, { until_ms: now_ms + LIFE_MS, receipt })
  }
}

/** Removes the oldest: those past their time (two a call, so it keeps up), and one more where the bound is reached. */
function evict(stones: Map<string, { readonly until_ms: number }>, most: number, now_ms: number): void {
  let looked = 0
  for (const [id, stone] of stones) {
    if (stone.until_ms > now_ms && stones.size < most) return
    stones.delete(id)
    looked += 1
    if (looked >= 2) return
  }
}
