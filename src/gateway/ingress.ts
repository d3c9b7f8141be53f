import type { IncomingMessage, OutgoingHttpHeaders, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { createAdaptorServer, type HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { Hono, type Context } from 'hono'
import { errorBody, WeirError } from '../base/errors.ts'
import { uuidv7 } from '../base/ids.ts'
import type { Settings } from '../config/model.ts'
import { cnyFromNano } from '../money/amount.ts'
import { UpstreamFailure } from '../upstream/failure.ts'
import { authenticate } from './authenticate.ts'
import { Call, type Caller, type Protocol } from './call.ts'
import { corsHeaders, PREFLIGHT_HEADERS } from './cors.ts'
import { balanceView, findModel, findUsage, listModels, listUsage } from './lookup.ts'
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
  app.get('/v1/models', (c) => lookup(c, plane, async (caller) => listModels(caller, plane)))
  app.get('/v1/models/:id{.+}', (c) => lookup(c, plane, async (caller) => findModel(c.req.param('id'), caller, plane)))
  app.get('/v1/usage', (c) => lookup(c, plane, (caller) => listUsage(c.req.query(), caller, plane)))
  app.get('/v1/usage/:id', (c) => lookup(c, plane, (caller) => findUsage(c.req.param('id'), caller, plane)))
  app.get('/v1/balance', (c) => lookup(c, plane, (caller) => balanceView(caller, plane)))
  app.get('/healthz', (c) => c.json({ status: 'ok' }))
  app.get('/readyz', (c) => readiness(c, plane))
  app.options('*', (c) => {
    c.env.outgoing.writeHead(204, { ...corsHeaders(c.env.incoming.headers.origin, settingsOf(plane)), ...PREFLIGHT_HEADERS }).end()
    return RESPONSE_ALREADY_SENT
  })
  app.notFound((c) => lookup(c, plane, () => Promise.reject(unknownPath(c)), 'anyone'))
  return app
}

/** The HTTP server around the app, with every limit of the settings. Not listening yet. */
export function createGatewayServer(plane: Plane, settings: Settings): Server {
  const { limits } = settings
  const server = createAdaptorServer({
    fetch: createGatewayApp(plane).fetch,
    overrideGlobalObjects: false,
    autoCleanupIncoming: false,
    serverOptions: {
      maxHeaderSize: limits.max_header_bytes,
      headersTimeout: limits.headers_timeout_ms,
      requestTimeout: limits.request_timeout_ms,
      keepAliveTimeout: limits.idle_timeout_ms,
      connectionsCheckingInterval: 1000,
      noDelay: true,
    },
  }) as Server
  server.maxConnections = limits.max_connections
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => refuseBrokenHttp(error, socket))
  return server
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
    const expected = error instanceof WeirError || error instanceof UpstreamFailure
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
      status,
      code,
      duration_ms,
      ...(notes.event === null
        ? {}
        : {
            outcome: notes.event.status,
            endpoint: notes.event.endpoint,
            attempts: notes.event.attempts.length,
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
  answer: (caller: Caller) => Promise<object>,
  who: 'caller' | 'anyone' = 'caller',
): Promise<Response> {
  const { incoming, outgoing } = c.env
  const call = newCall('chat_completions', incoming, outgoing, plane)
  try {
    const caller = who === 'anyone' ? null : authenticate(incoming.headers, plane.keys, plane.clock.now_ms())
    if (caller !== null) call.identify(caller)
    const body = caller === null ? await Promise.reject<object>(unknownPath(c)) : await answer(caller)
    call.reply.send(200, { 'content-type': 'application/json; charset=utf-8' }, JSON.stringify(body))
  } catch (error) {
    await refuse(call, error, plane)
    if (!(error instanceof WeirError)) plane.logger.error({ request_id: call.id, err: error }, 'a lookup failed')
  }
  return RESPONSE_ALREADY_SENT
}

function newCall(protocol: Protocol, incoming: IncomingMessage, outgoing: ServerResponse, plane: Plane): Call {
  const id = uuidv7(plane.clock.now_ms(), plane.randomBytes)
  const base: OutgoingHttpHeaders = { 'x-request-id': id, ...corsHeaders(incoming.headers.origin, settingsOf(plane)) }
  if (plane.state.draining) base['connection'] = 'close'
  const call = new Call(id, protocol, incoming, new Reply(outgoing, base), plane.clock.monotonic_ms())
  call.locale = localeOf(incoming.headers['accept-language'])
  return call
}

function readiness(c: Context<Env>, plane: Plane): Response {
  const { ok, unposted } = plane.log.health()
  const { digest } = plane.snapshot().configuration
  const reasons = [...(plane.state.draining ? ['draining'] : []), ...(ok ? [] : ['journal cannot commit'])]
  return c.json(
    { status: reasons.length === 0 ? 'ready' : 'unready', reasons, config: digest, unposted_events: unposted },
    reasons.length === 0 ? 200 : 503,
  )
}

const METHODS: Readonly<Record<string, string>> = {
  '/v1/chat/completions': 'POST',
  '/v1/embeddings': 'POST',
  '/v1/models': 'GET',
  '/v1/usage': 'GET',
  '/v1/balance': 'GET',
}

function unknownPath(c: Context<Env>): WeirError {
  const path = c.req.path.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, 128)
  if (METHODS[c.req.path] === undefined) return new WeirError('not_found', { values: { path } })
  return new WeirError('method_not_allowed', { values: { path, method: c.req.method } })
}

function settingsOf(plane: Plane): Settings {
  return plane.snapshot().configuration.settings
}

/** What Node's parser refuses never becomes a request: answered on the bare socket, in the same shape. */
function refuseBrokenHttp(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const refusal = new WeirError(codeOfHttpError(error.code), { values: { detail: 'the HTTP message is malformed.' } })
  const body = JSON.stringify(errorBody(refusal, 'en', ''))
  const reason = { 400: 'Bad Request', 408: 'Request Timeout', 431: 'Request Header Fields Too Large' }[refusal.status] ?? 'Error'
  const head = `HTTP/1.1 ${refusal.status} ${reason}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`
  socket.end(head + body, () => socket.destroy())
}

function codeOfHttpError(code: string | undefined): 'headers_too_large' | 'request_timeout' | 'invalid_request' {
  if (code === 'HPE_HEADER_OVERFLOW') return 'headers_too_large'
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'request_timeout' : 'invalid_request'
}
