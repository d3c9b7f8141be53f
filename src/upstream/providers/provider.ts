import type { DialectName } from '../dialects/names.ts'
import type { FailureKind } from '../failure.ts'

/** How one provider spells an error. First match wins. */
export interface ErrorRule {
  readonly status?: number
  /** Matches the provider's `code` or `type` (case-insensitive, whole). */
  readonly code?: string | number
  /** Matches a part of the provider's message (case-insensitive). */
  readonly message?: string
  readonly kind: FailureKind
}

/**
 * How an endpoint's `api_key` becomes a request's credentials.
 * `jwt_zhipu`, `jwt_iss`: a key `id.secret` signs a short-lived token, a key without a dot is sent as it is.
 * `tc3` (Tencent Cloud), `bce` (Baidu Cloud): a key `id.secret` (or `id:secret`) signs every request (or a span of time).
 */
export type AuthScheme = 'bearer' | 'optional_bearer' | 'x_api_key' | 'jwt_zhipu' | 'jwt_iss' | 'tc3' | 'bce' | 'none'

/** Another protocol of the same provider, at an address of its own. `{model}` in a path stands for the upstream's model id. */
export interface NativeAddress {
  readonly dialect: Exclude<DialectName, 'openai'>
  /** Null where the base URL must be configured. */
  readonly base_url: string | null
  readonly path: string
  readonly auth: AuthScheme
}

/** A number that a provider takes, both ends included. */
export interface NumberRange {
  readonly min: number
  readonly max: number
  /** The one value with thinking switched off, where it is another one. */
  readonly without_thinking?: number
}

/** How thinking is controlled. */
export interface ThinkingControl {
  /**
   * `thinking_type` `{"thinking":{"type":"enabled"}}`, `thinking_enabled` `{"thinking":{"enabled":true}}`, `enable_thinking`
   * `{"enable_thinking":true}`, `template_…` the same inside `chat_template_kwargs`; null: there is no switch.
   */
  readonly switch: 'thinking_type' | 'thinking_enabled' | 'enable_thinking' | 'template_enable_thinking' | 'template_thinking' | null
  /** The word for "on" with `thinking_type`, where it is not `enabled`. */
  readonly on?: 'adaptive'
  /** `thinking.type: auto` is understood. */
  readonly auto?: boolean
  /** Thinking cannot be switched off. */
  readonly always?: boolean
  /** What `reasoning_effort` takes, weakest first; none: it takes nothing. */
  readonly efforts: readonly string[]
  /** Range of `thinking_budget`; null: it takes none. */
  readonly budget: NumberRange | null
}

/** What a provider wants of a chat request beyond OpenAI's form. All of it is data: `requests/adapt.ts` carries it out. */
export interface RequestRules {
  /** Under which name the cap of output tokens goes; `either` passes the caller's. */
  readonly output_cap: 'max_tokens' | 'max_completion_tokens' | 'either'
  /** Most output tokens that the host takes, below the model's own limit. */
  readonly max_output_tokens: number | null
  /** Numbers outside are clamped to the range. */
  readonly ranges: Readonly<Record<string, NumberRange>>
  /** Members that the provider refuses: left out. */
  readonly refused: readonly string[]
  /** Most choices; more are not asked for but refused, since fewer would be another answer. */
  readonly max_choices: number | null
  /** Null: what the caller says of thinking passes as it is. */
  readonly thinking: ThinkingControl | null
  /**
   * Reasoning in earlier turns: `as_is`; `remove` where it is refused; `tool_calls` where turns with tool calls must have
   * `reasoning_content`; `details` where it must come back as `reasoning_details`.
   */
  readonly history: 'as_is' | 'remove' | 'tool_calls' | 'details'
  /** Members set unless the caller sets them. */
  readonly defaults: Readonly<Record<string, unknown>>
  /** The model only streams: an answer that is not to be streamed is put together here. */
  readonly streams_only: boolean
}

/** Rules of an OpenAI-compatible server of which nothing in particular is known. */
export const PLAIN_RULES: RequestRules = {
  output_cap: 'max_tokens',
  max_output_tokens: null,
  ranges: {},
  refused: [],
  max_choices: null,
  thinking: null,
  history: 'as_is',
  defaults: {},
  streams_only: false,
}

/** Rules of some models, by the provider's model id. Later variants win, member by member. */
export interface RuleVariant {
  readonly models: RegExp
  readonly rules: Partial<RequestRules>
}

/** Things that are told as the text of an answer and are none. */
export interface TextQuirks {
  /** A text that begins with this is an error. */
  readonly error_begins: string
  /** The whole answer comes once more, before the chunk that ends it. */
  readonly repeats_answer: boolean
}

/** One file of facts per provider. Facts only: no code decides by provider name anywhere else. */
export interface ProviderFacts {
  readonly id: string
  readonly company: string
  /** The legal persons that it files its services as, as the regulator's list spells them; empty where none is known. */
  readonly entities: readonly string[]
  /** Default base URL, without a trailing slash; null for self-hosted ones, whose base URL must be configured. */
  readonly base_url: string | null
  /** Names under which it is hosted abroad: endpoints there are overseas unless they say otherwise. */
  readonly overseas_hosts?: readonly string[]
  /** Environment variable conventionally holding the key, for messages; null when none is needed. */
  readonly key_variable: string | null
  readonly auth: AuthScheme
  readonly paths: {
    readonly chat: string
    readonly embeddings: string | null
    readonly models: string | null
  }
  /** `POST …/rerank` in Cohere's and Jina's form; `base_url` where it is at another address than chat. */
  readonly rerank: { readonly base_url: string | null; readonly path: string } | null
  /** The protocol that chat is spoken in unless an endpoint says another; OpenAI's where nothing is said. */
  readonly speaks?: NativeAddress['dialect']
  /** Its other protocols, each spoken where an endpoint asks for it (`dialect:`). */
  readonly natives: readonly NativeAddress[]
  /** Where usage is found in a stream. For documentation and the sandbox; the dialect accepts all. */
  readonly usage_place: 'own_chunk' | 'finish_chunk' | 'choice' | 'absent'
  /** Streams end in `[DONE]` and have no finish reason. */
  readonly done_is_finish: boolean
  /** What its streams put among an answer's text; absent where they do not. */
  readonly text_quirks?: TextQuirks
  readonly timeouts: { readonly headers_timeout_ms: number; readonly first_event_timeout_ms: number; readonly silence_timeout_ms: number }
  readonly errors: readonly ErrorRule[]
  readonly rules: RequestRules
  readonly variants: readonly RuleVariant[]
  /** Most inputs of one embeddings request, by model; the first that matches holds. */
  readonly embeddings_batches: readonly { readonly models: RegExp; readonly inputs: number }[]
  /** What users should know, told by the docs; what is carried out is in `rules`. */
  readonly parameters: readonly { readonly name: string; readonly note: string }[]
  readonly source: string
  readonly as_of: string
}

/** A queued request of a reasoning model is silent for minutes. */
export const PATIENT = { headers_timeout_ms: 600_000, first_event_timeout_ms: 600_000, silence_timeout_ms: 300_000 } as const
