/**
 * Kinds of upstream failure. The kind, not the status, decides what happens next.
 * `retry`: may another target be tried (before the first data event has reached the client)?
 * `reached`: did, or may, the upstream have worked for us? If not, no usage event exists.
 * `breaks`: does it count against the target's breaker?
 */
interface FailureRow {
  readonly retry: boolean
  readonly reached: boolean
  readonly breaks: boolean
  readonly code:
    | 'upstream_error'
    | 'upstream_timeout'
    | 'content_filtered'
    | 'invalid_request'
    | 'context_length_exceeded'
    | 'client_closed_request'
    | 'no_upstream_available'
    | 'shutting_down'
}

export const FAILURES = {
  dial_failed: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  connect_timeout: { retry: true, reached: false, breaks: true, code: 'upstream_timeout' },
  tls_failed: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  saturated: { retry: true, reached: false, breaks: false, code: 'no_upstream_available' },
  rate: { retry: true, reached: false, breaks: false, code: 'upstream_error' },
  quota: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  balance: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  auth: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  overload: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  server: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  model_missing: { retry: true, reached: false, breaks: true, code: 'upstream_error' },
  content: { retry: false, reached: false, breaks: false, code: 'content_filtered' },
  invalid: { retry: false, reached: false, breaks: false, code: 'invalid_request' },
  /** This target cannot do what was asked, and was not asked: another may. */
  unsupported: { retry: true, reached: false, breaks: false, code: 'invalid_request' },
  context_length: { retry: false, reached: false, breaks: false, code: 'context_length_exceeded' },
  reset: { retry: true, reached: true, breaks: true, code: 'upstream_error' },
  headers_timeout: { retry: true, reached: true, breaks: true, code: 'upstream_timeout' },
  first_event_timeout: { retry: true, reached: true, breaks: true, code: 'upstream_timeout' },
  silence_timeout: { retry: true, reached: true, breaks: true, code: 'upstream_timeout' },
  deadline: { retry: false, reached: true, breaks: false, code: 'upstream_timeout' },
  malformed: { retry: true, reached: true, breaks: true, code: 'upstream_error' },
  truncated: { retry: true, reached: true, breaks: true, code: 'upstream_error' },
  client_gone: { retry: false, reached: true, breaks: false, code: 'client_closed_request' },
  shutting_down: { retry: false, reached: true, breaks: false, code: 'shutting_down' },
} as const satisfies Record<string, FailureRow>

export type FailureKind = keyof typeof FAILURES

export interface FailureDetails {
  /** HTTP status of the upstream, when it answered. */
  readonly status?: number
  /** From `Retry-After`, in ms. */
  readonly retry_after_ms?: number
  /** The provider's own words, already limited in length; shown to the caller only for `invalid`, `content` and `context_length`. */
  readonly provider_message?: string
  readonly provider_code?: string
  /** The request had not left when it was stopped: nobody has worked for us. */
  readonly unsent?: boolean
  readonly cause?: unknown
}

/** One failed try at one target. Thrown inside `forward`, never shown to a caller as it is. */
export class UpstreamFailure extends Error {
  override name = 'UpstreamFailure'
  readonly kind: FailureKind
  readonly details: FailureDetails
  constructor(kind: FailureKind, details: FailureDetails = {}) {
    super(`upstream ${kind}${details.status === undefined ? '' : ` (${details.status})`}`, { cause: details.cause })
    this.kind = kind
    this.details = details
  }
}
