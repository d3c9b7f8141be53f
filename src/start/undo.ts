import type { Logger } from '../observe/log.ts'

/** How to end what was started, to be done from the last to the first. */
export class Undo {
  readonly #steps: (() => unknown)[] = []

  add(step: () => unknown): void {
    this.#steps.push(step)
  }

  /** Ends everything. What cannot be ended keeps nothing else from it. */
  async run(logger: Logger): Promise<void> {
    for (const step of this.#steps.splice(0).toReversed()) {
      try {
        await step()
      } catch (error) {
        logger.error({ err: error }, 'ending a part of the gateway failed')
      }
    }
  }
}
