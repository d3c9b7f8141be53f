import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 10

export interface WaitOptions {
  /** Written limit of the wait. */
  readonly timeout_ms: number
  /** What is waited for, as it completes the sentence "gave up waiting for …". */
  readonly what: string
}

/**
 * Polls `condition` until it gives something truthy and resolves with that. A condition that throws counts as not yet
 * true; its last error becomes the cause. @throws Error after `timeout_ms`, naming `what`.
 */
export async function waitFor<T>(condition: () => T | Promise<T>, options: WaitOptions): Promise<NonNullable<T>> {
  const give_up_at = performance.now() + options.timeout_ms
  for (;;) {
    const seen = await attempt(condition)
    if (seen.value) return seen.value
    if (performance.now() >= give_up_at) {
      throw new Error(`gave up waiting for ${options.what} after ${options.timeout_ms} ms`, { cause: seen.error })
    }
    await sleep(POLL_MS)
  }
}

async function attempt<T>(condition: () => T | Promise<T>): Promise<{ value?: T; error?: unknown }> {
  try {
    return { value: await condition() }
  } catch (error) {
    return { error }
  }
}
