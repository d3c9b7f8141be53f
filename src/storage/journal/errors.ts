/**
 * A row is not durable, or an answer from storage did not come. `timeout`: no commit within the limit, so the row may still
 * be written later. `io`: the database refused, nothing was written. `overloaded`: too much waits. `crashed`, `closed`: the
 * thread has ended.
 */
export class JournalUnavailable extends Error {
  override name = 'JournalUnavailable'
  readonly reason: 'timeout' | 'io' | 'overloaded' | 'crashed' | 'closed'
  constructor(reason: JournalUnavailable['reason'], message: string, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }
}
