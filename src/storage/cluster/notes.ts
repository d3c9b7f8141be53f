import type { Journal } from '../journal/client.ts'
import type { ChargeNote } from '../journal/protocol.ts'

const FLUSH_MS = 100
/** Most notes that wait to be written; what is beyond is asked again by the forwarder, as after a crash. */
const MAX_WAITING = 100_000

/**
 * What is known of charges, on its way into the journal: many notes to a commit, none of them waited for. A crash loses those of the
 * last moment; then limits are asked again.
 */
export class ChargeNotes {
  readonly #journal: Journal
  readonly #on_trouble: (error: Error) => void
  #waiting: ChargeNote[] = []
  #timer: NodeJS.Timeout | null = null
  #writing: Promise<void> = Promise.resolve()

  constructor(journal: Journal, on_trouble: (error: Error) => void) {
    this.#journal = journal
    this.#on_trouble = on_trouble
  }

  add(note: ChargeNote): void {
    if (this.#waiting.length >= MAX_WAITING) return
    this.#waiting.push(note)
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS)
  }

  /** Resolves when every note given before is written, or has been given up. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    const notes = this.#waiting
    this.#waiting = []
    if (notes.length > 0) {
      this.#writing = this.#writing
        .then(() => this.#journal.ask<'note'>({ what: 'note', notes }))
        .then(
          () => undefined,
          (error: unknown) => this.#on_trouble(error instanceof Error ? error : new Error(String(error))),
        )
    }
    return this.#writing
  }
}
