import type { Clock } from '../base/clock.ts'
import { type Loop, startLoop } from '../base/loop.ts'
import type { Changes } from '../storage/ports.ts'
import type { Records } from '../storage/records.ts'
import type { KeyTable } from './keys.ts'

const LOOK_EVERY_MS = 1000
/** The version that processes share is a hint: this often the database itself is asked. */
const ASK_DATABASE_EVERY = 5
/** What was not confirmed for so long is not served with any more. */
const TRUST_MS = 10_000

export interface FollowerDeps {
  readonly keys: KeyTable
  readonly records: Records
  readonly changes: Changes
  readonly clock: Clock
  readonly on_trouble: (error: unknown) => void
}

/**
 * Keeps a process's keys and tenants current where others change them: at once on a message, and by looking once a second, since
 * messages can be lost. Knows when it was last certain.
 */
export class RecordsFollower {
  readonly #deps: FollowerDeps
  #confirmed_ms: number
  #looks = 0
  #asking: Promise<void> | null = null
  #loop: Loop | null = null
  #unsubscribe: (() => void) | null = null

  /** To be made when the table has just been read. */
  constructor(deps: FollowerDeps) {
    this.#deps = deps
    this.#confirmed_ms = deps.clock.monotonic_ms()
  }

  start(): void {
    const { changes, on_trouble } = this.#deps
    this.#loop ??= startLoop({ every_ms: LOOK_EVERY_MS, work: () => this.#look(), on_trouble })
    this.#unsubscribe ??= changes.subscribe(() => void this.#follow().catch(on_trouble))
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.()
    await this.#loop?.stop()
    await this.#asking
  }

  /** Whether what is known was the newest there is at some moment of the last 10 s. */
  get fresh(): boolean {
    return this.age_ms <= TRUST_MS
  }

  /** How long ago what is known was the newest there is. */
  get age_ms(): number {
    return this.#deps.clock.monotonic_ms() - this.#confirmed_ms
  }

  async #look(): Promise<void> {
    const { changes, keys, clock, on_trouble } = this.#deps
    const asked_ms = clock.monotonic_ms()
    const version = await changes.version().catch(on_trouble)
    if (typeof version !== 'number' || version > keys.seq) return await this.#follow()
    this.#confirmed_ms = asked_ms
    // Beside it: a database that answers nothing must not keep what Redis confirms from being trusted.
    if (this.#looks++ % ASK_DATABASE_EVERY === 0) this.#asking ??= this.#askDatabase()
  }

  async #askDatabase(): Promise<void> {
    await this.#follow().catch(this.#deps.on_trouble)
    this.#asking = null
  }

  async #follow(): Promise<void> {
    const { keys, records, clock } = this.#deps
    const asked_ms = clock.monotonic_ms()
    await keys.follow(records)
    this.#confirmed_ms = Math.max(this.#confirmed_ms, asked_ms)
  }
}
