import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http'
import type { Socket } from 'node:net'
import { getRequestListener, RequestError, type HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { Hono, type Context } from 'hono'
import { errorBody, WeirError } from '../base/errors.ts'
import { uuidv7 } from '../base/ids.ts'
import type { Settings } from '../config/model.ts'
import { cnyFromNano } from '../money/amount.ts'
import { UpstreamFailure } from '../upstream/failure.ts'
import { authenticate } from './authenticate.ts'
import { BrokenHttp } from './broken-http.ts'
import { Call, type Caller, type Protocol } from './call.ts'
import { corsHeaders, PREFLIGHT_HEADERS } from './cors.ts'
import { isStorageUnavailable } from './ending.ts'
import { explainRoute } from './explain.ts'
import { balanceView, findModel, findUsage, listModels, listUsage } from './lookup.ts'
import { noticeHtml, noticeJson, noticeOf, type Page } from './notice.ts'
import type { Plane } from './plane.ts'
import { localeOf, refuse } from './refuse.ts'
import { Reply } from './reply.ts'
import { serve } from './serve.ts'

type Env = { Bindings: HttpBindings }

/** The data plane's HTTP routes. Answers are written to Node's own response; Hono finds the handler. */
export function createGatewayApp(plane: Plane): Hono<Env> {
  const app = new Hono<Env>()
  app.post('/v1/chat/completions', (c) => metered(c, 'chat_completions', plane))
  app.post('/v1/embeddings', (c) => metered(c, 'embeddings', plane))
  app.post('/v1/rerank', (c) => metered(c, 'rerank', plane))
  app.post('/v1/route', (c) => lookup(c, plane, (caller, call) => explainRoute(call, caller, plane)))
  app.get('/v1/models', (c) => lookup(c, plane, async (caller) => listModels(caller, plane)))
  app.get('/v1/models/:id{.+}', (c) => lookup(c, plane, async (caller) => findModel(c.req.param('id'), caller, plane)))
  app.get('/v1/usage', (c) => lookup(c, plane, (caller) => listUsage(c.req.query(), caller, plane)))
  app.get('/v1/usage/:id', (c) => lookup(c, plane, (caller) => findUsage(c.req.param('id'), caller, plane)))
  app.get('/v1/balance', (c) => lookup(c, plane, (caller) => balanceView(caller, plane)))
  app.get('/filings', (c) => publicNotice(c, plane))
  app.get('/filings.json', (c) => publicNotice(c, plane))
  app.get('/filings/:page', (c) => publicNotice(c, plane))
  app.get('/healthz', (c) => c.json({ status: 'ok' }, 200, lastAnswer(plane)))
  app.get('/readyz', (c) => readiness(c, plane))
  app.options('*', (c) => {
    const cors = corsHeaders(c.env.incoming.headers.origin, settingsOf(plane))
    c.env.outgoing.writeHead(204, { ...cors, ...PREFLIGHT_HEADERS, ...lastAnswer(plane) }).end()
    return RESPONSE_ALREADY_SENT
  })
  app.notFound((c) => lookup(c, plane, () => Promise.reject(unknownPath(c)), 'anyone'))
  return app
}

/** The HTTP server around the app, with every limit of the settings. Not listening yet. */
export function createGatewayServer(plane: Plane, settings: Settings): Server {
  const { limits } = settings
  const broken = new BrokenHttp()
  const answer = getRequestListener(createGatewayApp(plane).fetch, {
    // HTTP/1.0 knows no Host, and health checks of load balancers still speak it. Nothing here depends on the name.
    hostname: 'localhost',
    overrideGlobalObjects: false,
    autoCleanupIncoming: false,
    errorHandler: (error) => refuseUnroutable(error, plane),
  })
  const server = createServer(serverOptions(limits), (incoming, outgoing) => {
    broken.opened(incoming, outgoing)
    if (incoming.url === '*' && incoming.method === 'OPTIONS') incoming.url = '/'
    // RFC 9112 §3.2 wants a Host of everyone who speaks HTTP/1.1; Node's own refusal would have no body.
    if (incoming.headers.host === undefined && incoming.httpVersion === '1.1') incoming.headers.host = '?'
    const protocol = plainProtocol(incoming)
    if (protocol === null) void answer(incoming, outgoing)
    else void run(newCall(protocol, incoming, outgoing, plane), plane)
  })
  server.maxConnections = limits.max_connections
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => broken.refuse(error, socket))
  return server
}

const METERED_PATHS: ReadonlyMap<string, Protocol> = new Map([
  ['/v1/chat/completions', 'chat_completions'],
  ['/v1/embeddings', 'embeddings'],
  ['/v1/rerank', 'rerank'],
])
const PLAIN_HOST = /^[\w.:[\]-]{1,255}$/

/** The two paths that carry the traffic, asked for as every SDK does, need no router: finding a handler costs more than the rest of ingress. */
function plainProtocol({ method, url = '', headers }: IncomingMessage): Protocol | null {
  if (method !== 'POST' || !PLAIN_HOST.test(headers.host ?? 'localhost')) return null
  return METERED_PATHS.get(url) ?? null
}

function serverOptions(limits: Settings['limits']): ServerOptions {
  return {
    maxHeaderSize: limits.max_header_bytes,
    headersTimeout: limits.headers_timeout_ms,
    requestTimeout: limits.request_timeout_ms,
    keepAliveTimeout: limits.idle_timeout_ms,
    connectionsCheckingInterval: 1000,
    requireHostHeader: false,
    noDelay: true,
  }
}

/** What no handler can be found for: its Host or its target is not valid. */
function refuseUnroutable(error: unknown, plane: Plane): Response {
  const ours = !(error instanceof RequestError)
  if (ours) plane.logger.error({ err: error }, 'a request failed before its handler')
  const refusal = ours
    ? new WeirError('internal_error')
    : new WeirError('invalid_request', { values: { detail: 'the Host header or the request target is not valid.' } })
  const id = uuidv7(plane.clock.now_ms(), plane.randomBytes)
  plane.metrics.refused(refusal.code)
  return Response.json(errorBody(refusal, 'en', id), {
    status: refusal.status,
    headers: { 'x-request-id': id, ...(refusal.retryable ? {} : { 'x-should-retry': 'false' }), connection: 'close' },
  })
}

function metered(c: Context<Env>, protocol: Protocol, plane: Plane): Response {
  const { incoming, outgoing } = c.env
  const call = newCall(protocol, incoming, outgoing, plane)
  void run(call, plane)
  return RESPONSE_ALREADY_SENT
}

/** Runs one call to its end and accounts for it: the only place where an error becomes an answer. */
async function run(call: Call, plane: Plane): Promise<void> {
  const leave = plane.metrics.requestOpened()
  const deadline = setTimeout(() => call.stop('deadline'), settingsOf(plane).limits.total_timeout_ms)
  let refusal: WeirError | null = null
  try {
    await serve(call, plane)
  } catch (error) {
    refusal = await refuse(call, error, plane)
    const expected = error instanceof WeirError || error instanceof UpstreamFailure || isStorageUnavailable(error)
    if (!expected) plane.logger.error({ request_id: call.id, err: error }, 'a request failed for a reason of our own')
  } finally {
    clearTimeout(deadline)
    leave()
    finish(call, refusal, plane)
  }
}

/** One log line and the metrics of a call. No content, no secret. */
function finish(call: Call, refusal: WeirError | null, plane: Plane): void {
  const { notes } = call
  const duration_ms = Math.round(plane.clock.monotonic_ms() - call.started_ms)
  const status = refusal?.status ?? 200
  const code = refusal?.code ?? null
  plane.metrics.request({ model: notes.model, endpoint: notes.event?.endpoint ?? null, status, code, stream: notes.stream, duration_ms })
  plane.logger.info(
    {
      request_id: call.id,
      protocol: call.protocol,
      tenant: notes.tenant,
      key: notes.key,
      model: notes.model,
      stream: notes.stream,
      ...(notes.earlier_ids.length === 0 ? {} : { earlier_ids: notes.earlier_ids }),
      ...(notes.queued_ms === 0 ? {} : { queued_ms: notes.queued_ms }),
      status,
      code,
      duration_ms,
      ...(notes.event === null
        ? {}
        : {
            outcome: notes.event.status,
            endpoint: notes.event.endpoint,
            attempts: notes.event.attempts.length,
            provider_key: notes.event.attempts.at(-1)?.key,
            ttfe_ms: notes.event.ttfe_ms,
            tokens: notes.event.tokens,
            usage_source: notes.event.usage_source,
            amount_cny: cnyFromNano(notes.event.amount_nano),
          }),
    },
    'request',
  )
}

/** Read-only endpoints: authenticated, answered as JSON, refused like everything else. */
async function lookup(
  c: Context<Env>,
  plane: Plane,
  answer: (caller: Caller, call: Call) => Promise<object>,
  who: 'caller' | 'anyone' = 'caller',
): Promise<Response> {
  const { incoming, outgoing } = c.env
  const call = newCall('chat_completions', incoming, outgoing, plane)
  try {
    if (who === 'anyone') throw unknownPath(c)
    const caller = authenticate(incoming.headers, plane.keys, plane.clock.now_ms())
    call.identify(caller)
    const { limits } = settingsOf(plane)
    const leave = plane.open.enter(caller.tenant.id, limits.max_open_requests, limits.tenant_share_percent)
    try {
      const body = await answer(caller, call)
      call.reply.send(200, { 'content-type': 'application/json; charset=utf-8' }, JSON.stringify(body))
    } finally {
      leave()
    }
  } catch (error) {
    await refuseLookup(call, error, plane)
  }
  return RESPONSE_ALREADY_SENT
}

const PAGE_NAME = /^\/filings(?:\/([a-z0-9][a-z0-9_-]{0,62}))?(\.json)?$/
/** In the count of open requests: visitors of public pages together, which no tenant can be called. */
const VISITORS = ''

/** `GET /filings`, and a tenant's page below it: for anybody, without a key. */
async function publicNotice(c: Context<Env>, plane: Plane): Promise<Response> {
  const { incoming, outgoing } = c.env
  const call = newCall('chat_completions', incoming, outgoing, plane)
  try {
    const { limits } = settingsOf(plane)
    const leave = plane.open.enter(VISITORS, limits.max_open_requests, limits.tenant_share_percent)
    call.reply.whenClosed(leave)
    const [, slug, json] = PAGE_NAME.exec(c.req.path) ?? []
    const tenant = slug === undefined ? null : plane.keys.tenantOfPage(slug)
    const wrong_page = c.req.path.startsWith('/filings/') && (tenant === null || tenant.status === 'suspended')
    if (wrong_page) throw new WeirError('not_found', { values: { path: printable(c.req.path) } })
    const notice = noticeOf(plane.snapshot(), tenant, plane.clock.now_ms())
    const accept = incoming.headers.accept ?? ''
    const wants_json = json !== undefined || (accept.includes('application/json') && !accept.includes('text/html'))
    sendPage(call, wants_json ? noticeJson(notice) : noticeHtml(notice, call.locale))
  } catch (error) {
    await refuseLookup(call, error, plane)
  }
  return RESPONSE_ALREADY_SENT
}

function sendPage({ headers, reply }: Call, page: Page): void {
  const known = headers['if-none-match']?.split(',').map((tag) => tag.trim().replace(/^W\//, '')) ?? []
  if (!known.includes(page.etag)) return reply.send(200, page.headers, page.body)
  reply.head(304, page.headers)
  reply.end()
}

async function refuseLookup(call: Call, error: unknown, plane: Plane): Promise<void> {
  if (isStorageUnavailable(error)) {
    plane.logger.debug({ request_id: call.id, err: error }, 'storage had no answer for a lookup')
    await refuse(call, new WeirError('overloaded', { cause: error, retry_after_ms: 1000 }), plane)
    return
  }
  await refuse(call, error, plane)
  if (!(error instanceof WeirError)) plane.logger.error({ request_id: call.id, err: error }, 'a lookup failed')
}

function newCall(protocol: Protocol, incoming: IncomingMessage, outgoing: ServerResponse, plane: Plane): Call {
  const id = uuidv7(plane.clock.now_ms(), plane.randomBytes)
  const cors = corsHeaders(incoming.headers.origin, settingsOf(plane))
  const base: OutgoingHttpHeaders = { 'x-request-id': id, ...cors, ...lastAnswer(plane) }
  const call = new Call(id, protocol, incoming, new Reply(outgoing, base), plane.clock.monotonic_ms())
  call.locale = localeOf(incoming.headers['accept-language'])
  return call
}

function readiness(c: Context<Env>, plane: Plane): Response {
  const { ok, unposted } = plane.log.health()
  const { digest } = plane.snapshot().configuration
  const unready = plane.unready()
  const reasons = [
    ...(plane.state.draining ? ['draining'] : []),
    ...(ok ? [] : ['journal cannot commit']),
    ...(unready === null ? [] : [unready]),
  ]
  return c.json(
    { status: reasons.length === 0 ? 'ready' : 'unready', reasons, config: digest, unposted_events: unposted },
    reasons.length === 0 ? 200 : 503,
    lastAnswer(plane),
  )
}

/** While draining, every answer is the last one of its connection. */
function lastAnswer(plane: Plane): Record<string, string> {
  return plane.state.draining ? { connection: 'close' } : {}
}

const POSTED: ReadonlySet<string> = new Set([...METERED_PATHS.keys(), '/v1/route'])
const READ = /^\/(healthz|readyz|filings(\.json|\/[^/]+)?|v1\/(models|usage|balance)|v1\/models\/.+|v1\/usage\/[^/]+)$/

/** The refusal of what no handler takes. With `Allow`, as RFC 9110 §15.5.6 wants, where only the method is wrong. */
function unknownPath(c: Context<Env>): WeirError {
  const path = printable(c.req.path)
  const allow = POSTED.has(c.req.path) ? 'POST, OPTIONS' : READ.test(c.req.path) ? 'GET, HEAD, OPTIONS' : null
  if (allow === null) return new WeirError('not_found', { values: { path } })
  c.env.outgoing.setHeader('allow', allow)
  return new WeirError('method_not_allowed', { values: { path, method: c.req.method } })
}

function printable(path: string): string {
  return path.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, 128)
}

function settingsOf(plane: Plane): Settings {
  return plane.snapshot().configuration.settings
}
