/** Which holds expire when, in buckets of one second, so that renewing and sweeping never look at other holds. */
export class Leases {
  readonly #buckets = new Map<number, Set<string>>()
  readonly #expires_at = new Map<string, number>()

  /** Starts or renews a lease. */
  set(id: string, expires_at: number): void {
    this.delete(id)
    this.#expires_at.set(id, expires_at)
    const second = secondOf(expires_at)
    const bucket = this.#buckets.get(second)
    if (bucket === undefined) this.#buckets.set(second, new Set([id]))
    else bucket.add(id)
  }

  delete(id: string): void {
    const expires_at = this.#expires_at.get(id)
    if (expires_at === undefined) return
    this.#expires_at.delete(id)
    const second = secondOf(expires_at)
    const bucket = this.#buckets.get(second)
    bucket?.delete(id)
    if (bucket?.size === 0) this.#buckets.delete(second)
  }

  /** Ids whose lease ended before `now_ms`; their leases are forgotten. Costs the number of seconds in use plus the ids found. */
  expired(now_ms: number): readonly string[] {
    const ids: string[] = []
    for (const [second, bucket] of this.#buckets) {
      if (second > secondOf(now_ms)) continue
      for (const id of bucket) if ((this.#expires_at.get(id) ?? 0) < now_ms) ids.push(id)
    }
    for (const id of ids) this.delete(id)
    return ids
  }
}

function secondOf(at_ms: number): number {
  return Math.floor(at_ms / 1000)
}
