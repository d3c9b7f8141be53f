/** Work that is done again and again, one run at a time. */
export interface Loop {
  /** Has the next run begin now, or right after the one that is at it; resolves when it has ended. @throws what it throws */
  now(): Promise<void>
  /** Ends it, and waits for the run that is at it. */
  stop(): Promise<void>
}

export interface LoopOptions {
  /** Pause between the end of one run and the beginning of the next. */
  readonly every_ms: number
  /** @returns true where there is more to do at once */
  readonly work: () => Promise<boolean | void>
  /** Hears what a run throws, unless somebody waits for it. The next one comes all the same. */
  readonly on_trouble: (error: unknown) => void
}

/** Starts a loop; its first run begins at once. */
export function startLoop({ every_ms, work, on_trouble }: LoopOptions): Loop {
  let timer: NodeJS.Timeout | null = null
  let running: Promise<boolean> | null = null
  let stopped = false

  const run = (): Promise<boolean> => {
    if (timer !== null) clearTimeout(timer)
    timer = null
    running = work().then((more) => more === true)
    return running
  }
  const plan = (more: boolean): void => {
    running = null
    if (!stopped) timer = setTimeout(again, more ? 0 : every_ms)
  }
  const again = (): void => {
    run().then(plan, (error: unknown) => {
      on_trouble(error)
      plan(false)
    })
  }
  again()
  return {
    now: async () => {
      // A run that is at it may have looked already.
      await running?.catch(() => false)
      if (stopped) return
      if (running !== null) return void (await running)
      const mine = run()
      try {
        plan(await mine)
      } catch (error) {
        plan(false)
        throw error
      }
    },
    stop: async () => {
      stopped = true
      if (timer !== null) clearTimeout(timer)
      await running?.catch(() => false)
    },
  }
}
