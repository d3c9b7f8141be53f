import type { ErrorCode } from '../base/errors.ts'

/** Why a request was refused, for `GET /v1/usage/{request_id}`. Holds no content. */
export interface Refusal {
  readonly id: string
  readonly tenant: string
  readonly at_ms: number
  readonly code: ErrorCode
  readonly message: string
  readonly model_asked: string | null
}

/** The latest refusals of this process, oldest forgotten first. A refusal leaves no event, so this is all there is. */
export class RecentRefusals {
  readonly #byId = new Map<string, Refusal>()
  readonly #capacity: number

  constructor(capacity = 10_000) {
    this.#capacity = capacity
  }

  add(refusal: Refusal): void {
    this.#byId.set(refusal.id, refusal)
    if (this.#byId.size <= this.#capacity) return
    const oldest = this.#byId.keys().next()
    if (!oldest.done) this.#byId.delete(oldest.value)
  }

  find(id: string): Refusal | null {
    return this.#byId.get(id) ?? null
  }
}
