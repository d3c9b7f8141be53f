/** A server that has not answered for so long was away: nobody could renew leases there. */
const AWAY_MS = 15_000
/** Leases that ended meanwhile get so long to be renewed. */
const GRACE_MS = 10_000

/** Which buckets may be swept: those whose server is back after a time without it are left alone for a while, whatever the others do. */
export class SweepGrace {
  readonly #answered_ms = new Map<number, number>()
  readonly #swept_from_ms = new Map<number, number>()
  readonly #began_ms: number

  /** @param now_ms monotonic, as everywhere here */
  constructor(now_ms: number) {
    this.#began_ms = now_ms
  }

  /** Buckets have been asked. @returns those of them that may be swept now */
  sweepable(answered: Iterable<number>, now_ms: number): readonly number[] {
    const sweepable: number[] = []
    for (const bucket of answered) {
      if (now_ms - (this.#answered_ms.get(bucket) ?? this.#began_ms) > AWAY_MS) this.#swept_from_ms.set(bucket, now_ms + GRACE_MS)
      this.#answered_ms.set(bucket, now_ms)
      if (now_ms >= (this.#swept_from_ms.get(bucket) ?? 0)) sweepable.push(bucket)
    }
    return sweepable
  }
}
