import { createHash, timingSafeEqual } from 'node:crypto'
import { Hono, type Context } from 'hono'
import * as z from 'zod'
import { WeirError } from '../base/errors.ts'
import { uuidv7 } from '../base/ids.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { OnProgress } from '../storage/books.ts'
import { LedgerUnavailable, LimitsUnavailable } from '../storage/cluster-ports.ts'
import { listArchives, parseRun, runArchive, verifyArchives } from './archive.ts'
import { audit } from './audit.ts'
import { balanceOf, creditTenant } from './credit.ts'
import type { ControlDeps } from './deps.ts'
import { changeGrant, createGrant, listGrants, showGrant } from './grants.ts'
import { Jobs, jobView } from './jobs.ts'
import { changeKey, createKey, listKeys, revokeKey } from './keys.ts'
import { changeProviderKey, createProviderKey, listProviderKeys, removeProviderKey, rewrapProviderKeys } from './provider-keys.ts'
import { ledgerBalances, listTransactions } from './ledger.ts'
import { listLimits, removeLimit, setLimit } from './limits.ts'
import { modelUsage } from './model-usage.ts'
import { listNodes, retireNode } from './nodes.ts'
import { AdminProblem, parse, problemBody } from './problem.ts'
import { reachOf } from './reach.ts'
import { reverse } from './reversals.ts'
import { rebuild } from './rebuild.ts'
import { clearRouting, MAX_ROUTING_BYTES, putRouting, showRouting } from './routing.ts'
import { fetchServed, ServedUnavailable } from './served.ts'
import { changeProject, changeTenant, createProject, createTenant, listProjects, listTenants } from './tenants.ts'
import { usageEvents, usageTotals } from './usage.ts'

export type { ControlDeps, ReloadOutcome } from './deps.ts'

const MAX_BODY_BYTES = 1_048_576

/** What every process answers on its admin port, whatever its roles. */
export function createHealthApi(metrics: ControlDeps['metrics']): Hono {
  const app = new Hono()
  app.get('/healthz', (c) => c.json({ status: 'ok' }))
  app.get('/metrics', async (c) => c.body(await metrics.render(), 200, { 'content-type': metrics.content_type }))
  return app
}

/**
 * The control plane's HTTP routes. `/admin/v1/*` needs `Authorization: Bearer <token>`; `/metrics` and `/healthz` are open to whoever reaches
 * the admin port, which listens on loopback unless configured otherwise. Errors have the data plane's shape, messages are English.
 */
export function createControlApi(deps: ControlDeps): Hono {
  const app = createHealthApi(deps.metrics)
  app.use('/admin/*', async (c, next) => {
    if (!carriesToken(c.req.header('authorization'), deps.token)) {
      throw new AdminProblem(
        'invalid_api_key',
        'No valid admin token was given. Send "Authorization: Bearer <token>"; a running server keeps it in admin.json in its data directory.',
      )
    }
    await next()
  })
  routeAccounts(app, deps)
  routeRouting(app, deps)
  routeGrants(app, deps)
  routeReports(app, deps)
  routeNodes(app, deps)
  routeProviderKeys(app, deps)
  routeWork(app, deps)
  app.notFound((c) => refuse(c, new WeirError('not_found', { values: { path: printable(c.req.path) } }), deps))
  app.onError((error, c) => refuse(c, error, deps))
  return app
}

function routeRouting(app: Hono, deps: ControlDeps): void {
  const path = '/admin/v1/tenants/:id/routing'
  app.get(path, async (c) => c.json(await showRouting(c.req.param('id'), deps)))
  app.put(path, async (c) => c.json(await putRouting(c.req.param('id'), await bodyOf(c, MAX_ROUTING_BYTES), deps)))
  app.delete(path, async (c) => c.json(await clearRouting(c.req.param('id'), deps)))
}

function routeAccounts(app: Hono, deps: ControlDeps): void {
  app.get('/admin/v1/tenants', async (c) => c.json(await listTenants(deps)))
  app.post('/admin/v1/tenants', async (c) => c.json(await createTenant(await bodyOf(c), deps), 201))
  app.patch('/admin/v1/tenants/:id', async (c) => c.json(await changeTenant(c.req.param('id'), await bodyOf(c), deps)))
  app.post('/admin/v1/tenants/:id/credit', async (c) => c.json(await creditTenant(c.req.param('id'), await bodyOf(c), deps)))
  app.get('/admin/v1/tenants/:id/reach', async (c) => c.json(await reachOf(c.req.param('id'), deps)))
  app.get('/admin/v1/balance/:tenant', async (c) => c.json(await balanceOf(c.req.param('tenant'), deps)))
  app.get('/admin/v1/projects', async (c) => c.json(await listProjects(parse(ProjectQuery, c.req.query()).tenant, deps)))
  app.post('/admin/v1/projects', async (c) => c.json(await createProject(await bodyOf(c), deps), 201))
  app.patch('/admin/v1/projects/:id', async (c) => c.json(await changeProject(c.req.param('id'), await bodyOf(c), deps)))
  app.get('/admin/v1/keys', async (c) => c.json(await listKeys(c.req.query(), deps)))
  app.post('/admin/v1/keys', async (c) => {
    c.header('cache-control', 'no-store')
    return c.json(await createKey(await bodyOf(c), deps), 201)
  })
  app.patch('/admin/v1/keys/:id', async (c) => c.json(await changeKey(c.req.param('id'), await bodyOf(c), deps)))
  app.get('/admin/v1/limits', async (c) => c.json(await listLimits(c.req.query(), deps)))
  app.put('/admin/v1/limits', async (c) => c.json(await setLimit(await bodyOf(c), deps)))
  app.delete('/admin/v1/limits', async (c) => c.json(await removeLimit(c.req.query(), deps)))
  app.post('/admin/v1/keys/:id/revoke', async (c) => c.json(await revokeKey(c.req.param('id'), deps)))
}

function routeGrants(app: Hono, deps: ControlDeps): void {
  const path = '/admin/v1/tenants/:id/grants'
  const statusOf = ({ state }: { readonly state: 'posted' | 'duplicate' }): 201 | 200 => (state === 'posted' ? 201 : 200)
  app.get(path, async (c) => c.json(await listGrants(c.req.param('id'), c.req.query(), deps)))
  app.post(path, async (c) => {
    const answer = await createGrant(c.req.param('id'), await bodyOf(c), deps)
    return c.json(answer, statusOf(answer))
  })
  app.get(`${path}/:grant`, async (c) => c.json(await showGrant(c.req.param('id'), c.req.param('grant'), deps)))
  app.patch(`${path}/:grant`, async (c) => c.json(await changeGrant(c.req.param('id'), c.req.param('grant'), await bodyOf(c), deps)))
  app.get('/admin/v1/ledger/balances', async (c) => c.json(await ledgerBalances(c.req.query(), deps)))
  app.get('/admin/v1/transactions', async (c) => c.json(await listTransactions(c.req.query(), deps)))
  app.post('/admin/v1/reversals', async (c) => {
    const answer = await reverse(await bodyOf(c), deps)
    return c.json(answer, statusOf(answer))
  })
}

const ProjectQuery = z.strictObject({ tenant: z.string().optional() })
const AuditQuery = z.strictObject({
  sandbox: z.url({ protocol: /^https?$/, error: 'write the URL of a sandbox, such as http://127.0.0.1:18080' }).optional(),
})

function routeReports(app: Hono, deps: ControlDeps): void {
  app.get('/admin/v1/usage', async (c) => c.json(await usageTotals(c.req.query(), deps)))
  app.get('/admin/v1/models/usage', async (c) => c.json(await modelUsage(c.req.query(), deps)))
  app.get('/admin/v1/events', async (c) => c.json(await usageEvents(c.req.query(), deps)))
  app.get('/admin/v1/audit', async (c) => c.json(await auditView(parse(AuditQuery, c.req.query()), deps)))
  app.post('/admin/v1/reload', async (c) => {
    const outcome = await deps.reload()
    return c.json({ object: 'reload', ...outcome }, outcome.ok ? 200 : 400)
  })
}

const RebuildBody = z.strictObject({ check: z.boolean().default(false) })

function routeProviderKeys(app: Hono, deps: ControlDeps): void {
  const path = '/admin/v1/provider-keys'
  const one = `${path}/:provider/:name` as const
  app.get(path, async (c) => c.json(await listProviderKeys(deps)))
  app.post(path, async (c) => c.json(await createProviderKey(await bodyOf(c), deps), 201))
  app.post(`${path}/rewrap`, async (c) => c.json(await rewrapProviderKeys(deps)))
  app.patch(one, async (c) => c.json(await changeProviderKey(c.req.param('provider'), c.req.param('name'), await bodyOf(c), deps)))
  app.delete(one, async (c) => c.json(await removeProviderKey(c.req.param('provider'), c.req.param('name'), deps)))
}

function routeNodes(app: Hono, deps: ControlDeps): void {
  app.get('/admin/v1/nodes', async (c) => c.json(await listNodes(deps)))
  app.post('/admin/v1/nodes/:node/retire', async (c) => c.json(await retireNode(c.req.param('node'), deps)))
}

/** Work that may take long: answered at once with a job, whose end is to be asked for. */
function routeWork(app: Hono, deps: ControlDeps): void {
  const jobs = new Jobs()
  app.post('/admin/v1/rebuild', async (c) => {
    const { check } = parse(RebuildBody, await bodyOf(c))
    return c.json(jobView(jobs.start('rebuild', (on_progress) => rebuild(check, deps, on_progress))), 202)
  })
  app.post('/admin/v1/audits', async (c) => {
    const wanted = parse(AuditQuery, await bodyOf(c))
    return c.json(jobView(jobs.start('audit', (on_progress) => auditView(wanted, deps, on_progress))), 202)
  })
  app.get('/admin/v1/archives', async (c) => c.json(await listArchives(deps)))
  app.post('/admin/v1/archives', async (c) => {
    const wanted = parseRun(await bodyOf(c))
    return c.json(jobView(jobs.start('archive', (on_progress) => runArchive(wanted, deps, on_progress))), 202)
  })
  app.post('/admin/v1/archives/verify', (c) =>
    c.json(jobView(jobs.start('archive verify', (on_progress) => verifyArchives(deps, on_progress))), 202),
  )
  app.get('/admin/v1/jobs/:id', (c) => c.json(jobView(jobs.find(c.req.param('id')))))
}

async function auditView({ sandbox }: z.infer<typeof AuditQuery>, deps: ControlDeps, on_progress?: OnProgress): Promise<object> {
  const { records, ledger, clock, archive } = deps
  try {
    const served = sandbox === undefined ? null : (): ReturnType<typeof fetchServed> => fetchServed(sandbox)
    const { ok, checked, findings } = await audit(
      { records, ledger, archive, cut: () => deps.cut(), clock, offline: deps.offline ?? false, served },
      on_progress,
    )
    const { amount_nano, ...counts } = checked
    return { object: 'audit', ok, checked: { ...counts, amount_cny: cnyFromNano(amount_nano) }, findings }
  } catch (error) {
    if (error instanceof ServedUnavailable) throw new AdminProblem('invalid_request', error.message, 'sandbox')
    throw error
  }
}

/** Hashed first, so that neither length nor contents show in the time it takes. */
function carriesToken(header: string | undefined, token: string): boolean {
  const given = /^Bearer +(\S{1,1024})$/i.exec(header ?? '')?.[1]
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return token !== '' && given !== undefined && timingSafeEqual(digest(given), digest(token))
}

/** @throws AdminProblem `invalid_request`, WeirError `request_too_large` */
async function bodyOf({ req }: Context, limit = MAX_BODY_BYTES): Promise<unknown> {
  const text = await textOf(req.raw, limit)
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    if (error instanceof SyntaxError) throw new AdminProblem('invalid_request', 'The body is not JSON.')
    throw error
  }
}

/** A body of at most `limit` bytes, whether its length was declared or not. */
async function textOf({ headers, body }: Request, limit: number): Promise<string> {
  const refusal = new WeirError('request_too_large', { values: { limit } })
  if (Number(headers.get('content-length') ?? 0) > limit) throw refusal
  const reader = (body as ReadableStream<Uint8Array> | null)?.getReader()
  const parts: Uint8Array[] = []
  let size = 0
  for (let read = await reader?.read(); read?.value !== undefined; read = await reader?.read()) {
    size += read.value.length
    if (size > limit) throw refusal
    parts.push(read.value)
  }
  return Buffer.concat(parts).toString('utf8')
}

function refuse(c: Context, error: Error, deps: ControlDeps): Response {
  const refusal = refusalOf(error)
  const request_id = uuidv7(deps.clock.now_ms(), deps.random)
  if (refusal !== error) deps.logger.error({ request_id, path: printable(c.req.path), err: error }, 'an admin request failed')
  return new Response(JSON.stringify(problemBody(refusal, request_id)), {
    status: refusal.status,
    headers: {
      'content-type': 'application/json; charset=utf-8',
      'x-request-id': request_id,
      ...(refusal.status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    },
  })
}

function refusalOf(error: Error): WeirError {
  if (error instanceof WeirError) return error
  if (error instanceof LedgerUnavailable) return new WeirError('ledger_unavailable', { cause: error })
  if (error instanceof LimitsUnavailable) return new WeirError('admission_unavailable', { cause: error })
  return new WeirError('internal_error', { cause: error })
}

function printable(path: string): string {
  return path.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, 128)
}
