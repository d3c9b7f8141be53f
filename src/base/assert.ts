/** A broken invariant of our own, never a user's mistake. */
export class InvariantError extends Error {
  override name = 'InvariantError'
}

/** Throws {@link InvariantError} unless `condition` holds. Assertions stay on in production. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message)
}

/** For the end of an exhaustive switch: compiles only if every case was handled. */
export function unreachable(value: never): never {
  throw new InvariantError(`unreachable: ${String(value)}`)
}
