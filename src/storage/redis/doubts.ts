import { LimitsUnavailable } from '../cluster-ports.ts'

/** Holds remembered; beyond it the oldest are left to the end of their leases. */
const MAX_DOUBTS = 10_000
const RETRY_MS = 250
const RELEASES_PER_TRY = 50

/** A hold that nobody uses, but that may be there: it was asked for without an answer, or its release has failed. */
export interface Doubt {
  readonly id: string
  readonly tenant: string
  /** Names of its counters, as `countersText` gives them. */
  readonly counters: string
}

/** Gives such holds back once the server answers again. */
export class Doubts {
  readonly #waiting = new Map<string, Doubt>()
  readonly #releasing = new Set<string>()
  readonly #release: (doubt: Doubt) => Promise<void>
  readonly #onError: (error: Error) => void
  #timer: NodeJS.Timeout | null = null
  #closed = false

  constructor(release: (doubt: Doubt) => Promise<void>, onError: (error: Error) => void) {
    this.#release = release
    this.#onError = onError
  }

  add(doubt: Doubt): void {
    if (this.#waiting.size >= MAX_DOUBTS) {
      const [oldest] = this.#waiting.keys()
      if (oldest !== undefined) this.#waiting.delete(oldest)
    }
    this.#waiting.set(doubt.id, doubt)
    this.#later()
  }

  /** The hold is asked for again: it is wanted after all. @throws LimitsUnavailable while it is being given back */
  reclaim(id: string): void {
    if (this.#releasing.has(id)) throw new LimitsUnavailable('unknown', `hold ${id} is being given back: its first admission had no answer`)
    this.#waiting.delete(id)
  }

  close(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
  }

  #later(): void {
    if (this.#timer !== null || this.#closed) return
    this.#timer = setTimeout(() => void this.#try(), RETRY_MS)
    this.#timer.unref()
  }

  async #try(): Promise<void> {
    const some = [...this.#waiting.values()].slice(0, RELEASES_PER_TRY)
    await Promise.all(some.map((doubt) => this.#giveBack(doubt)))
    this.#timer = null
    if (this.#waiting.size > 0) this.#later()
  }

  async #giveBack(doubt: Doubt): Promise<void> {
    this.#releasing.add(doubt.id)
    try {
      await this.#release(doubt)
      this.#waiting.delete(doubt.id)
    } catch (error) {
      this.#waiting.delete(doubt.id)
      // While the server is away it is asked again, after the others. Anything else asking would not change: the lease ends by itself.
      if (error instanceof LimitsUnavailable) this.#waiting.set(doubt.id, doubt)
      else this.#onError(error instanceof Error ? error : new Error(String(error)))
    } finally {
      this.#releasing.delete(doubt.id)
    }
  }
}
