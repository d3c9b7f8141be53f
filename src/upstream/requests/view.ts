type Fields = Readonly<Record<string, unknown>>

/** What of a request's body the adaptation to a target depends on. The body itself stays bytes. */
export interface RequestView {
  /** Top-level members by name: numbers, texts and small objects as they are, large ones as `true`. */
  readonly given: Fields
  readonly stream: boolean
  readonly usage_asked: boolean
  readonly stream_options: Fields | null
  readonly n: number
  /** The caller's own cap of output tokens, or null. */
  readonly max_tokens: number | null
  /** Which names of the cap the caller gave; the older name if none. */
  readonly max_tokens_fields: readonly string[]
  readonly history: HistoryView
}

/** What earlier assistant turns carry. */
export interface HistoryView {
  /** Reasoning under any name. */
  readonly reasoning: boolean
  /** Tool calls without `reasoning_content` beside them. */
  readonly calls_without_reasoning: boolean
}

export const NO_HISTORY: HistoryView = { reasoning: false, calls_without_reasoning: false }

/** What adaptation knows of the target. */
export interface TargetView {
  readonly upstream_model: string
  /** The model's limit of output tokens, or null. */
  readonly max_output_tokens: number | null
  /** A cap below the caller's, because the hold pays for no more; or null. */
  readonly capped_tokens: number | null
}

/** A body for a target, and what of the caller's wishes was changed: `name=value` each, for a response header. */
export interface AdaptedBody {
  readonly body: Buffer
  readonly adjusted: readonly string[]
}
