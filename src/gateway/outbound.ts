import { rewriteMembers } from '../base/json-spans.ts'
import type { Endpoint } from '../config/model.ts'
import type { UpstreamRequest } from '../upstream/source.ts'
import type { Admission } from './admit.ts'
import type { Call } from './call.ts'

/** Where an endpoint's requests go; computed once per endpoint object, which lives as long as its snapshot. */
interface Address {
  readonly origin: string
  readonly prefix: string
}
const ADDRESSES = new WeakMap<Endpoint, Address>()

/** The HTTP request for one try at one target. The client's body is spliced, never re-serialised. */
export function outboundRequest(call: Call, admission: Admission, target: Endpoint, attempt: number, signal: AbortSignal): UpstreamRequest {
  const { origin, prefix } = addressOf(target)
  const path = admission.facts.protocol === 'embeddings' ? target.embeddings_path : target.chat_path
  return {
    origin,
    path: prefix + (path ?? ''),
    headers: headersFor(call, admission.facts.stream, target, attempt),
    body: bodyFor(admission, target),
    timeouts: target.timeouts,
    transport: target.transport,
    signal,
  }
}

function addressOf(target: Endpoint): Address {
  const known = ADDRESSES.get(target)
  if (known !== undefined) return known
  const url = new URL(target.base_url)
  const address = { origin: url.origin, prefix: url.pathname.replace(/\/$/, '') }
  ADDRESSES.set(target, address)
  return address
}

function headersFor(call: Call, stream: boolean, target: Endpoint, attempt: number): Readonly<Record<string, string>> {
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    accept: stream ? 'text/event-stream' : 'application/json',
    'accept-encoding': 'identity',
    'user-agent': 'weir',
    'x-request-id': call.id,
    'x-weir-attempt': String(attempt),
  }
  if (target.api_key !== null) headers['authorization'] = `Bearer ${target.api_key}`
  return headers
}

function bodyFor(admission: Admission, target: Endpoint): Buffer {
  const { facts, capped_tokens } = admission
  const members: Record<string, Buffer> = { model: json(target.upstream_model) }
  if (facts.stream && !facts.usage_asked) members['stream_options'] = json({ ...facts.stream_options, include_usage: true })
  if (capped_tokens !== null) for (const field of facts.max_tokens_fields) members[field] = json(capped_tokens)
  return rewriteMembers(facts.body.bytes, members)
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}
