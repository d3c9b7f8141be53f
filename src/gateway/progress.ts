import type { Endpoint } from '../config/model.ts'
import type { Attempt } from '../money/event.ts'
import type { Place } from '../upstream/places.ts'
import type { Observation } from '../upstream/dialects/dialect.ts'

/** How far one admitted request has come. Written by `forward` and `relay`, read by `settle` and the checkpoints. */
export interface Progress {
  /** Tries of models that have failed before this one are among them. */
  attempts: Attempt[]
  /** The target of the answer, or of the latest try. */
  target: Endpoint | null
  /** The place at the target in use or to be used next, or null. */
  place: Place<Endpoint> | null
  /** The latest try has failed for its key, and its target has another. */
  another_key: boolean
  /** An upstream answered 2xx, or may have worked without our learning of it: an event must exist. */
  reached: boolean
  /** A data event or a body went to the client: the prompt is billed. */
  delivered: boolean
  /** Milliseconds from ingress to the first data event, or null. */
  ttfe_ms: number | null
  /** What the answer in progress has shown so far. */
  observe: (() => Observation) | null
  /** What of the caller's wishes was changed for the target, for a response header; null for nothing. */
  adjusted: string | null
  /** The target that the headers describe which a keep-alive has committed; null until then. */
  committed_as: Endpoint | null
  /** The client left and the answer was read on without it, to its end. */
  drained: boolean
  /** Ids of this request's earlier events: of models that may have worked and did not answer. */
  readonly follows: readonly string[]
}

/** What earlier models of the same request have left behind: their tries, and ids of their events. */
export type Earlier = Pick<Progress, 'attempts' | 'follows'>
export const NOTHING_EARLIER: Earlier = Object.freeze({ attempts: [], follows: [] })

export function newProgress({ attempts, follows }: Earlier): Progress {
  return {
    ...{ attempts: [...attempts], follows, target: null, place: null, another_key: false, reached: false, delivered: false },
    ...{ ttfe_ms: null, observe: null, adjusted: null, committed_as: null, drained: false },
  }
}
