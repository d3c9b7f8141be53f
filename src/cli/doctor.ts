import type { Endpoint, Model } from '../config/model.ts'
import { outboundRequest, outgoingBodies } from '../gateway/outbound.ts'
import { readFacts } from '../gateway/request.ts'
import { classifyResponse } from '../upstream/classify.ts'
import type { AnswerContext } from '../upstream/dialects/dialect.ts'
import { dialectFor } from '../upstream/dialects/registry.ts'
import { UpstreamFailure, type FailureKind } from '../upstream/failure.ts'
import type { ProviderFacts } from '../upstream/providers/provider.ts'
import { proxyFor, type ProxySettings } from '../upstream/proxy.ts'
import type { ByteSource, Transport, UpstreamRequest, UpstreamResponse } from '../upstream/source.ts'

/** What a look at one endpoint found. `advice` is in plain words and holds no secret. */
export interface Diagnosis {
  readonly endpoint: string
  readonly model: string
  readonly ok: boolean
  /** `ok`, `inactive`, `wrong_base_url`, or the kind of the failure. */
  readonly verdict: 'ok' | 'inactive' | 'wrong_base_url' | FailureKind
  readonly advice: string
  readonly duration_ms: number | null
  /** The provider's own words, when it gave any. */
  readonly provider_message: string | null
}

export interface DoctorDeps {
  readonly transport: Transport
  readonly providers: ReadonlyMap<string, ProviderFacts>
  readonly proxy: ProxySettings
  readonly clock: { now_ms(): number; monotonic_ms(): number }
}

const MAX_BODY_BYTES = 65_536
const MAX_TOKENS = 5
/** A call of five tokens that takes longer than this is a finding of its own. */
const TOTAL_TIMEOUT_MS = 60_000
const CONNECT_TIMEOUT_MS = 10_000

/** Makes one tiny call to an endpoint (five tokens at most) and says in plain words what is wrong, if anything is. */
export async function doctor(endpoint: Endpoint, model: Model, deps: DoctorDeps): Promise<Diagnosis> {
  const facts = deps.providers.get(endpoint.provider)
  const base = { endpoint: endpoint.id, model: model.id }
  if (facts === undefined)
    return {
      ...base,
      ok: false,
      verdict: 'model_missing',
      advice: `Weir knows no provider ${endpoint.provider}.`,
      duration_ms: null,
      provider_message: null,
    }
  const started_ms = deps.clock.monotonic_ms()
  const outcome = await tryOnce(endpoint, model, facts, deps)
  const duration_ms = Math.round(deps.clock.monotonic_ms() - started_ms)
  if (outcome === null)
    return { ...base, ok: true, verdict: 'ok', advice: `answers, in ${duration_ms} ms.`, duration_ms, provider_message: null }
  const { verdict, failure } = outcome
  return {
    ...base,
    ok: false,
    verdict,
    advice: adviceFor(verdict, failure, endpoint, facts, proxyFor(new URL(endpoint.base_url).origin, deps.proxy)),
    duration_ms,
    provider_message: failure.details.provider_message ?? null,
  }
}

/** Endpoints that the configuration leaves out, with its reason. */
export function inactiveDiagnoses(model: Model): Diagnosis[] {
  return model.inactive.map(({ endpoint, reason }) => ({
    endpoint,
    model: model.id,
    ok: false,
    verdict: 'inactive' as const,
    advice: `is not used: ${reason}.`,
    duration_ms: null,
    provider_message: null,
  }))
}

interface Trouble {
  readonly verdict: 'wrong_base_url' | FailureKind
  readonly failure: UpstreamFailure
}

/** Null when the endpoint answered as it should. */
async function tryOnce(endpoint: Endpoint, model: Model, facts: ProviderFacts, { transport, clock }: DoctorDeps): Promise<Trouble | null> {
  try {
    const response = await transport.send(await requestFor(endpoint, model, clock.now_ms()))
    const body = await readBody(response.body)
    return judge(response, body, endpoint, facts, clock.now_ms())
  } catch (error) {
    if (!(error instanceof UpstreamFailure)) throw error
    return { verdict: error.kind === 'client_gone' ? 'deadline' : error.kind, failure: error }
  }
}

/** The same request that the gateway would send, as small as it can be. */
function requestFor(endpoint: Endpoint, model: Model, now_ms: number): UpstreamRequest | Promise<UpstreamRequest> {
  const { protocol, question } = QUESTIONS[model.kind]
  const bytes = Buffer.from(JSON.stringify({ model: model.id, ...question }))
  const { facts } = readFacts(protocol, bytes, MAX_JSON_DEPTH)
  const { bodies, stream } = outgoingBodies({ facts, target: endpoint, max_output_tokens: model.max_output_tokens, capped_tokens: null })
  const timeouts = {
    connect_timeout_ms: Math.min(CONNECT_TIMEOUT_MS, endpoint.timeouts.connect_timeout_ms),
    headers_timeout_ms: TOTAL_TIMEOUT_MS,
    first_event_timeout_ms: TOTAL_TIMEOUT_MS,
    silence_timeout_ms: TOTAL_TIMEOUT_MS,
  }
  const identity = { id: 'doctor', attempt: 1, user_agent: 'weir-doctor' }
  const target = { ...endpoint, timeouts }
  // Of several keys the first speaks for the endpoint: how each of them fares, a running gateway knows.
  const api_key = endpoint.api_key ?? endpoint.key_pool?.keys[0]?.secret ?? null
  return outboundRequest({ facts, target, api_key }, bodies[0] ?? bytes, stream, identity, now_ms, AbortSignal.timeout(TOTAL_TIMEOUT_MS))
}

const MAX_JSON_DEPTH = 8
const QUESTIONS = {
  chat: {
    protocol: 'chat_completions',
    question: { messages: [{ role: 'user', content: 'Say OK.' }], max_tokens: MAX_TOKENS, stream: false },
  },
  embeddings: { protocol: 'embeddings', question: { input: 'OK' } },
  rerank: { protocol: 'rerank', question: { query: 'OK', documents: ['OK'] } },
} as const

function readBody(source: ByteSource): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    source.flowTo({
      data(chunk) {
        chunks.push(chunk)
        bytes += chunk.length
        if (bytes < MAX_BODY_BYTES) return
        source.cancel()
        resolve(Buffer.concat(chunks))
      },
      end: () => resolve(Buffer.concat(chunks)),
      failed: reject,
    })
  })
}

function judge(
  { status, headers }: UpstreamResponse,
  body: Buffer,
  endpoint: Endpoint,
  facts: ProviderFacts,
  now_ms: number,
): Trouble | null {
  if (status >= 200 && status < 300) {
    try {
      dialectFor(endpoint.dialect, facts).whole(body, ANSWER_CONTEXT)
      return null
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error
      const other = error.kind === 'malformed' || error.kind === 'truncated'
      return { verdict: other ? 'wrong_base_url' : error.kind, failure: other ? new UpstreamFailure('malformed', { status }) : error }
    }
  }
  const failure = classifyResponse(status, headers, body, facts, now_ms)
  // A gateway or web server that knows no such path says so in HTML, or without a word of a model.
  const no_such_path = (status === 404 || status === 405) && !/model/i.test(failure.details.provider_message ?? '')
  const moved = status >= 300 && status < 400
  return { verdict: no_such_path || moved ? 'wrong_base_url' : failure.kind, failure }
}

const ANSWER_CONTEXT: AnswerContext = {
  ...{ model_asked: 'doctor', usage_asked: false, prompt_tokens: 0, tokenizer: 'general', max_event_bytes: MAX_BODY_BYTES },
  ...{ created_s: 0, request_id: 'doctor', label: null },
}

function adviceFor(
  verdict: Trouble['verdict'],
  failure: UpstreamFailure,
  endpoint: Endpoint,
  facts: ProviderFacts,
  proxy: string | null,
): string {
  const { host } = new URL(endpoint.base_url)
  const key = facts.key_variable ?? "the endpoint's api_key"
  const status = failure.details.status === undefined ? '' : ` (HTTP ${failure.details.status})`
  switch (verdict) {
    case 'wrong_base_url':
      return `something answers at ${host}${status}, but not this API. Check base_url: it is ${endpoint.base_url}${facts.base_url === null ? '' : `, the provider's own is ${facts.base_url}`}.`
    case 'auth':
      return endpoint.api_key === null
        ? `wants a key${status}, and none is set. Set ${key}.`
        : `does not accept the key${status}. Check the value of ${key}: right provider, no blanks, not expired.`
    case 'balance':
      return `the account at ${facts.company} has no balance left${status}. Top it up.`
    case 'quota':
      return `the quota of the account at ${facts.company} is used up${status}. Raise it there, or wait until it renews.`
    case 'model_missing':
      return `has no model "${endpoint.upstream_model}", or this key may not use it${status}. Check upstream_model, and whether the model is enabled for the account.`
    case 'rate':
      return `limits the rate of this account at the moment${status}; the key works. Try again shortly.`
    case 'overload':
    case 'server':
      return `has a problem of its own at the moment${status}. Nothing to change here; try again later.`
    case 'invalid':
    case 'unsupported':
    case 'context_length':
    case 'content':
      return `is reached and accepts the key, but refused the test request${status}. Requests of your own may work.`
    case 'dial_failed':
    case 'connect_timeout':
    case 'tls_failed':
      return connectionAdvice(verdict, failure, host, proxy, endpoint)
    case 'saturated':
    case 'client_gone':
    case 'shutting_down':
    case 'deadline':
    case 'headers_timeout':
    case 'first_event_timeout':
    case 'silence_timeout':
      return `was reached but did not answer within ${TOTAL_TIMEOUT_MS / 1000} s. It may be loading the model, or be overloaded.`
    case 'reset':
    case 'truncated':
    case 'malformed':
      return `broke the connection or sent something that is not HTTP${status}. Check that base_url (${endpoint.base_url}) has the right scheme and port.`
  }
}

function connectionAdvice(
  kind: 'dial_failed' | 'connect_timeout' | 'tls_failed',
  failure: UpstreamFailure,
  host: string,
  default_proxy: string | null,
  { transport }: Endpoint,
): string {
  const proxy = transport.proxy ?? default_proxy
  const via = proxy === null ? '' : ` It goes through the proxy ${new URL(proxy).host}: check that, or list ${host} in NO_PROXY.`
  const code = codeOf(failure.details.cause)
  if (kind === 'tls_failed') {
    const ca =
      transport.ca_file === null
        ? 'If it has a certificate of its own authority, name that in ca_file.'
        : `Check ca_file (${transport.ca_file}).`
    return `the TLS connection to ${host} failed${code === '' ? '' : ` (${code})`}. ${ca}${via}`
  }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return `the name ${host} cannot be resolved (${code}). Check base_url and this machine's DNS.${via}`
  if (code === 'ECONNREFUSED')
    return `nothing listens at ${proxy === null ? host : `the proxy ${new URL(proxy).host}`} (ECONNREFUSED). Check base_url${proxy === null ? '' : ' and the proxy'}, and that the server runs.`
  if (kind === 'connect_timeout')
    return `no connection to ${host} within ${CONNECT_TIMEOUT_MS / 1000} s. A firewall may drop it, or the address is wrong.${via}`
  return `no connection to ${host}${code === '' ? '' : ` (${code})`}.${via}`
}

/** The system's code, wherever in the chain of causes it is. */
function codeOf(error: unknown, depth = 0): string {
  if (!(error instanceof Error) || depth > 4) return ''
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0], depth + 1)
  if ('code' in error && typeof error.code === 'string') return error.code
  return codeOf(error.cause, depth + 1)
}
