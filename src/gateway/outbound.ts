import type { Endpoint } from '../config/model.ts'
import { rewriteMembers } from '../base/json-spans.ts'
import { credentialsOf } from '../upstream/providers/credentials.ts'
import { adaptChat } from '../upstream/requests/adapt.ts'
import { splitInputs } from '../upstream/requests/embeddings.ts'
import { nativeChat, nativeHeaders } from '../upstream/requests/native.ts'
import type { UpstreamRequest } from '../upstream/source.ts'
import type { RequestFacts } from './request.ts'

/** Where an endpoint's requests go; computed once per endpoint object, which lives as long as its snapshot. */
interface Address {
  readonly origin: string
  readonly host: string
  readonly prefix: string
}
const ADDRESSES = new WeakMap<Endpoint, Address>()

/** What a request is sent for, beside its body. */
export interface Outgoing {
  readonly facts: RequestFacts
  readonly target: Endpoint
  /** The model's limit of output tokens, or null. */
  readonly max_output_tokens: number | null
  /** The cap that the hold pays for, or null. */
  readonly capped_tokens: number | null
}

/** The bodies of one try: one, but for embeddings of more inputs than the target takes at once. */
export interface OutgoingBodies {
  readonly bodies: readonly Buffer[]
  /** The upstream is asked for a stream. */
  readonly stream: boolean
  /** What of the caller's wishes was changed, for a header; null for nothing. */
  readonly adjusted: string | null
}

/**
 * What is sent to a target: the client's body spliced, or translated for a target of another protocol.
 *
 * @throws UpstreamFailure `unsupported`
 */
export function outgoingBodies({ facts, target, max_output_tokens, capped_tokens }: Outgoing): OutgoingBodies {
  const { bytes } = facts.body
  const { upstream_model, rules, dialect } = target
  if (facts.protocol === 'embeddings') {
    return { bodies: splitInputs(bytes, upstream_model, facts.inputs, target.embeddings_batch), stream: false, adjusted: null }
  }
  if (facts.protocol === 'rerank') {
    const model = Buffer.from(JSON.stringify(upstream_model))
    return { bodies: [rewriteMembers(bytes, { model })], stream: false, adjusted: null }
  }
  const view = { upstream_model, max_output_tokens, capped_tokens }
  const { body, adjusted } = dialect === 'openai' ? adaptChat(bytes, facts, rules, view) : nativeChat(dialect, bytes, facts, rules, view)
  return {
    bodies: [body],
    stream: facts.stream || rules.streams_only,
    adjusted: adjusted.length === 0 ? null : adjusted.join(', '),
  }
}

/** What identifies a request to its upstream. */
export interface RequestIdentity {
  readonly id: string
  readonly attempt: number
  readonly user_agent: string
}

/** The HTTP request that carries one body to a target, with its key or one of its keys. A promise only where a token has to be signed. */
export function outboundRequest(
  {
    facts,
    target,
    api_key,
  }: Pick<Outgoing, 'target'> & { readonly facts: Pick<RequestFacts, 'protocol'>; readonly api_key: string | null },
  body: Buffer,
  stream: boolean,
  identity: RequestIdentity,
  now_ms: number,
  signal: AbortSignal,
): UpstreamRequest | Promise<UpstreamRequest> {
  const { origin, host, prefix } = addressOf(target)
  const path = prefix + pathOf(target, facts.protocol)
  const request = (credentials: Readonly<Record<string, string>>): UpstreamRequest => ({
    origin,
    path,
    headers: { ...headersFor(target, facts.protocol, stream, identity), ...credentials },
    body,
    timeouts: target.timeouts,
    transport: target.transport,
    signal,
  })
  const credentials = credentialsOf(target.auth, api_key, { host, path, body, now_ms })
  return credentials instanceof Promise ? credentials.then(request) : request(credentials)
}

function pathOf(target: Endpoint, protocol: RequestFacts['protocol']): string {
  if (protocol === 'embeddings') return target.embeddings_path ?? ''
  return protocol === 'rerank' ? (target.rerank_path ?? '') : target.chat_path
}

function addressOf(target: Endpoint): Address {
  const known = ADDRESSES.get(target)
  if (known !== undefined) return known
  const url = new URL(target.base_url)
  const address = { origin: url.origin, host: url.host, prefix: url.pathname.replace(/\/$/, '') }
  ADDRESSES.set(target, address)
  return address
}

function headersFor(
  target: Endpoint,
  protocol: RequestFacts['protocol'],
  stream: boolean,
  { id, attempt, user_agent }: RequestIdentity,
): Readonly<Record<string, string>> {
  const headers = {
    'content-type': 'application/json',
    accept: stream ? 'text/event-stream' : 'application/json',
    'accept-encoding': 'identity',
    'user-agent': user_agent,
    'x-request-id': id,
    'x-weir-attempt': String(attempt),
  }
  return target.dialect === 'openai' || protocol !== 'chat_completions' ? headers : { ...headers, ...nativeHeaders(target.dialect, stream) }
}
