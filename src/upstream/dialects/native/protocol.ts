type Fields = Readonly<Record<string, unknown>>

/** What one event of another protocol says, in OpenAI's form. */
export interface NativeStep {
  /** Chunks: `id`, `created` and `choices` as far as they are known, the rest is added. */
  readonly chunks: readonly Fields[]
  /** A report in any form that `readUsage` reads, cumulative, or null. */
  readonly usage: Fields | null
  /** The upstream said that it is done. */
  readonly done: boolean
}

/** Reads one streamed answer of another protocol, event by event. */
export interface NativeReader {
  read(value: Fields, event: string | null): NativeStep
}

/** A protocol that is no OpenAI's, as far as its answers go. Errors are told apart before: a reader sees none. */
export interface NativeProtocol {
  /** Whether this JSON value is one of its events or answers. */
  recognises(value: Fields): boolean
  reader(): NativeReader
  /** A whole answer as OpenAI's `chat.completion`; null if it is none. */
  whole(value: Fields): Fields | null
}

export const NOTHING_SAID: NativeStep = { chunks: [], usage: null, done: false }
