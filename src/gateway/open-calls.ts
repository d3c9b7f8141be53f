import { WeirError } from '../base/errors.ts'

/** The open requests of this process: counted, in all and per tenant, against the node's written limits, and stopped together at the end of a drain. */
export class OpenCalls {
  readonly #byTenant = new Map<string, number>()
  readonly #stops = new Set<() => void>()
  #total = 0

  get total(): number {
    return this.#total
  }

  /**
   * Takes a place for one request of a tenant; the returned function gives it back, once.
   *
   * @param stop ends the request, for {@link stopAll}
   * @throws WeirError `overloaded` when the node is full, `concurrency_exceeded` when the tenant has its share of it
   */
  enter(tenant: string, max_open: number, tenant_share_percent: number, stop?: () => void): () => void {
    if (this.#total >= max_open) throw new WeirError('overloaded', { retry_after_ms: 1000 })
    const held = this.#byTenant.get(tenant) ?? 0
    const share = Math.max(1, Math.floor((max_open * tenant_share_percent) / 100))
    if (held >= share) {
      throw new WeirError('concurrency_exceeded', {
        values: { limit: 'tenant share of this node', limit_zh: '租户在本节点上的并发数', held, available: share },
        retry_after_ms: 1000,
      })
    }
    this.#total += 1
    if (stop !== undefined) this.#stops.add(stop)
    this.#byTenant.set(tenant, held + 1)
    let entered = true
    return () => {
      if (!entered) return
      entered = false
      if (stop !== undefined) this.#stops.delete(stop)
      this.#leave(tenant)
    }
  }

  /** Stops every request that can be stopped; each still ends by itself, with its event. */
  stopAll(): void {
    for (const stop of [...this.#stops]) stop()
  }

  #leave(tenant: string): void {
    this.#total -= 1
    const left = (this.#byTenant.get(tenant) ?? 1) - 1
    if (left === 0) this.#byTenant.delete(tenant)
    else this.#byTenant.set(tenant, left)
  }
}
