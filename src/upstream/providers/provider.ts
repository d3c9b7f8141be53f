import type { FailureKind } from '../failure.ts'

/** How one provider spells an error. First match wins. */
export interface ErrorRule {
  readonly status?: number
  /** Matches the provider's `code` or `type` (case-insensitive, whole). */
  readonly code?: string
  /** Matches a part of the provider's message (case-insensitive). */
  readonly message?: string
  readonly kind: FailureKind
}

/** One file of facts per provider. Facts only: no code decides by provider name anywhere else. */
export interface ProviderFacts {
  readonly id: string
  readonly company: string
  /** Default base URL, without a trailing slash; null for self-hosted ones, whose base URL must be configured. */
  readonly base_url: string | null
  /** Environment variable conventionally holding the key, for messages; null when none is needed. */
  readonly key_variable: string | null
  readonly dialect: 'openai'
  readonly auth: 'bearer' | 'optional_bearer' | 'none'
  readonly paths: { readonly chat: string; readonly embeddings: string | null; readonly models: string | null }
  /** Where usage is found in a stream. For documentation and the sandbox; the dialect accepts all. */
  readonly usage_place: 'own_chunk' | 'finish_chunk' | 'choice' | 'absent'
  readonly timeouts: { readonly headers_timeout_ms: number; readonly first_event_timeout_ms: number; readonly silence_timeout_ms: number }
  readonly errors: readonly ErrorRule[]
  /** Limits of parameters, refused locally never, told to users by `weir doctor` and the docs. */
  readonly parameters: readonly { readonly name: string; readonly note: string }[]
  readonly source: string
  readonly as_of: string
}
