import type { Clock } from '../base/clock.ts'
import type { Logger } from '../observe/log.ts'

/** Work that goes on failing is told of this often. */
const TELL_EVERY_MS = 30_000

/**
 * Failures of work that is tried again. Each is counted; the log has the first at once, and of work that goes on failing one every 30 s,
 * with how many there were.
 */
export class Troubles {
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #counts = new Map<string, number>()
  readonly #told = new Map<string, { readonly at_ms: number; readonly count: number }>()

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock
    this.#logger = logger
  }

  /** How often each kind of work has failed, by what it was doing. */
  get counts(): ReadonlyMap<string, number> {
    return this.#counts
  }

  /** Hears failures of work. @param doing names it, in few words that are always the same */
  of(doing: string): (error: unknown) => void {
    if (!this.#counts.has(doing)) this.#counts.set(doing, 0)
    return (error) => this.#hear(doing, error)
  }

  #hear(doing: string, error: unknown): void {
    const count = (this.#counts.get(doing) ?? 0) + 1
    this.#counts.set(doing, count)
    const [now_ms, told] = [this.#clock.monotonic_ms(), this.#told.get(doing)]
    if (told !== undefined && now_ms - told.at_ms < TELL_EVERY_MS) return
    this.#told.set(doing, { at_ms: now_ms, count })
    const failures = count - (told?.count ?? 0)
    this.#logger.error({ err: error, failures }, `${doing} failed; trying again`)
  }
}
