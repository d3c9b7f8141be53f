import type { Clock } from '../base/clock.ts'

/** What a command may touch of the world around it. */
export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly clock: Clock
  /** Standard output: results, and the one place where a key's secret goes. */
  readonly out: (text: string) => void
  /** Standard error: what went wrong. */
  readonly err: (text: string) => void
}

/** A command line that cannot be understood: exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError'
}

/** A command that was understood and could not be done: exit code 1. */
export class CommandFailed extends Error {
  override name = 'CommandFailed'
}

/** Nothing could be asked at all: no server, no storage. */
export class Unreachable extends CommandFailed {
  override name = 'Unreachable'
}
