import * as z from 'zod'
import { systemClock } from '../base/clock.ts'
import { uuidv7 } from '../base/ids.ts'
import { openClient, type AdminClient } from './client.ts'
import type { Arguments, Command, OptionSpec } from './command.ts'
import { UsageError, type CliContext } from './io.ts'
import { table } from './table.ts'
import { MAX_QUEUE_WEIGHT } from '../storage/records.ts'

export const JSON_OPTION: OptionSpec = { help: 'print JSON' }
export const TENANT_OPTION: OptionSpec = { value: 'ID', help: 'the tenant; may be left out when there is only one' }
const RPM: OptionSpec = { value: 'N', help: 'requests per minute' }
const TPM: OptionSpec = { value: 'N', help: 'tokens per minute' }
const CONCURRENCY: OptionSpec = { value: 'N', help: 'requests at the same time' }
const BUDGET: OptionSpec = { value: 'CNY', help: 'spend per calendar month' }
const LIMIT_OPTIONS = { rpm: RPM, tpm: TPM, concurrency: CONCURRENCY, 'monthly-budget': BUDGET }

/** Runs `work` with a client and closes it, whatever happens. */
export async function withClient<Result>(context: CliContext, work: (client: AdminClient) => Promise<Result>): Promise<Result> {
  const client = await openClient(context)
  try {
    return await work(client)
  } finally {
    await client.close()
  }
}

const Named = z.object({ id: z.string() })
const List = <Item extends z.ZodType>(item: Item) => z.object({ data: z.array(item), next_cursor: z.string().nullable().optional() })

/** The tenant that was named, or the only one there is. @throws UsageError when it is not clear which */
export async function tenantOf(args: Arguments, client: AdminClient, named?: string): Promise<string> {
  const given = named ?? args.text('tenant')
  if (given !== undefined) return given
  const { data } = List(Named).parse(await client.request('GET', '/admin/v1/tenants'))
  const [only] = data
  if (only !== undefined && data.length === 1) return only.id
  throw new UsageError(
    data.length === 0
      ? 'there is no tenant yet: make one with "weir tenant create <id>"'
      : `say which tenant: ${data.map(({ id }) => id).join(', ')}`,
  )
}

/** JSON as people and programs read it. */
export function printJson(value: unknown, context: CliContext): void {
  context.out(`${JSON.stringify(value, null, 2)}\n`)
}

function limitsOf(args: Arguments): readonly object[] {
  const limits: object[] = []
  const add = (option: string, kind: string): void => {
    const limit = args.number(option, 1, 1e12)
    if (limit !== undefined) limits.push({ kind, limit })
  }
  add('rpm', 'requests_per_minute')
  add('tpm', 'tokens_per_minute')
  add('concurrency', 'concurrency')
  const budget = args.text('monthly-budget')
  if (budget !== undefined) limits.push({ kind: 'budget', limit: budget, window: 'month' })
  return limits
}

function withoutUndefined(fields: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

const Tenant = z.object({
  id: z.string(),
  name: z.string(),
  audience: z.string(),
  status: z.string(),
  time_zone: z.string(),
  registration_number: z.string().nullable(),
  public_slug: z.string().nullable(),
  label: z.string(),
  created_at: z.string(),
})

const ZONES = 'private|domestic|overseas'

function zonesOf(args: Arguments): readonly string[] | undefined {
  const zones = args.list('zone')
  return zones.length === 0 ? undefined : zones
}

const TENANT_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  name: { value: 'TEXT', help: 'what people call it' },
  audience: { value: 'public|internal', help: 'public (default): filed models only; internal: the service is not offered to the public' },
  'time-zone': { value: 'NAME', help: 'IANA name for windows and reports (Asia/Shanghai)' },
  locale: { value: 'zh|en', help: 'language of error messages (zh)' },
  'on-client-abort': { value: 'cancel|drain', help: 'when a client leaves: stop the provider (cancel), or read on for the exact figure' },
  zone: { value: ZONES, help: 'where its prompts may go (private, domestic); repeat or separate by commas', many: true },
  priority: { value: 'high|normal|low', help: 'its class where requests wait for room at a provider (normal)' },
  'queue-weight': { value: 'N', help: 'its parts of what its class is served there, 1 to 100 (1)' },
  'credit-line': { value: 'CNY', help: 'how far below zero its wallet may go (0)' },
  registration: { value: 'NUMBER', help: 'its own registration (登记号) or filing (备案号), shown at /filings; "none" takes it away' },
  'public-slug': { value: 'NAME', help: 'its page /filings/NAME, which anybody may read; "none" takes it away' },
  label: { value: 'none|explicit', help: 'explicit: each generated answer says so in its text (none)' },
  'label-text': { value: 'TEXT', help: 'what it says: （AI生成） or (AI-generated), by locale; "none" goes back to that' },
  'label-place': { value: 'start|end', help: 'where it says so (start)' },
}

function tenantFields(args: Arguments): object {
  return {
    name: args.text('name'),
    audience: args.text('audience'),
    time_zone: args.text('time-zone'),
    locale: args.text('locale'),
    zones: zonesOf(args),
    on_client_abort: args.text('on-client-abort'),
    priority: args.text('priority'),
    queue_weight: args.number('queue-weight', 1, MAX_QUEUE_WEIGHT),
    credit_line_cny: args.text('credit-line'),
    registration_number: textOrNone(args, 'registration'),
    public_slug: textOrNone(args, 'public-slug'),
    label: args.text('label'),
    label_text: textOrNone(args, 'label-text'),
    label_place: args.text('label-place'),
  }
}

function textOrNone(args: Arguments, option: string): string | null | undefined {
  const text = args.text(option)
  return text === 'none' ? null : text
}

const tenantCreate: Command = {
  name: 'tenant create',
  summary: 'Create a tenant, with an empty wallet and the project "default".',
  positionals: ['id'],
  options: { ...TENANT_OPTIONS, ...LIMIT_OPTIONS, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const body = withoutUndefined({ id: args.positional(0), ...tenantFields(args), limits: limitsOf(args) })
      const answer = await client.request('POST', '/admin/v1/tenants', body)
      if (args.flag('json')) printJson(answer, context)
      else
        context.out(`Created tenant ${Named.parse(answer).id}. Give it money with "weir tenant credit ${Named.parse(answer).id} <CNY>".\n`)
      return 0
    }),
}

const tenantChange: Command = {
  name: 'tenant change',
  summary: 'Change what is given of a tenant; suspend it or let it go on.',
  details: 'A suspension is at once: every later request is refused. Limits are changed with "weir limit".',
  positionals: ['id'],
  options: { ...TENANT_OPTIONS, status: { value: 'active|suspended', help: 'whether it may call' }, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const body = withoutUndefined({ ...tenantFields(args), status: args.text('status') })
      if (Object.keys(body).length === 0) throw new UsageError('say what to change')
      const answer = await client.request('PATCH', `/admin/v1/tenants/${encodeURIComponent(args.positional(0) ?? '')}`, body)
      const { id, audience, status, time_zone } = Tenant.parse(answer)
      if (args.flag('json')) printJson(answer, context)
      else context.out(`Changed tenant ${id}: ${status}, ${audience}, ${time_zone}.\n`)
      return 0
    }),
}

const tenantList: Command = {
  name: 'tenant list',
  summary: 'List tenants.',
  positionals: [],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('GET', '/admin/v1/tenants')
      if (args.flag('json')) printJson(answer, context)
      else {
        const rows = List(Tenant)
          .parse(answer)
          .data.map((tenant) => [
            ...[tenant.id, tenant.name, tenant.audience, tenant.status, tenant.time_zone],
            ...[tenant.registration_number ?? '', tenant.public_slug === null ? '' : `/filings/${tenant.public_slug}`, tenant.label],
          ])
        context.out(table(['TENANT', 'NAME', 'AUDIENCE', 'STATUS', 'TIME ZONE', 'REGISTRATION', 'PAGE', 'LABEL'], rows))
      }
      return 0
    }),
}

const Credit = z.object({ id: z.string(), tenant: z.string(), state: z.enum(['posted', 'duplicate']), amount_cny: z.string() })

const tenantCredit: Command = {
  name: 'tenant credit',
  summary: "Add money to a tenant's wallet.",
  details: 'Give an --id of your own (an invoice or transfer number), so that the same credit cannot be given twice by mistake.',
  positionals: ['tenant', 'amount-cny'],
  options: {
    id: { value: 'ID', help: 'the same id again changes nothing; made up when absent' },
    kind: { value: 'top_up|promo', help: 'paid money (default) or promotional money' },
    note: { value: 'TEXT', help: 'kept with the ledger transaction' },
    json: JSON_OPTION,
  },
  run: (args, context) =>
    withClient(context, async (client) => {
      const path = `/admin/v1/tenants/${encodeURIComponent(args.positional(0) ?? '')}/credit`
      const body = withoutUndefined({
        id: args.text('id') ?? uuidv7(systemClock().now_ms()),
        amount_cny: args.positional(1),
        kind: args.text('kind'),
        note: args.text('note'),
      })
      const answer = await client.request('POST', path, body)
      const { id, tenant, state, amount_cny } = Credit.parse(answer)
      if (args.flag('json')) printJson(answer, context)
      else if (state === 'posted') context.out(`Credited ${amount_cny} CNY to ${tenant} (id ${id}).\n`)
      else context.out(`Nothing changed: the credit ${id} had been given to ${tenant} before.\n`)
      return 0
    }),
}

const projectCreate: Command = {
  name: 'project create',
  summary: 'Create a project (a cost centre) of a tenant.',
  positionals: ['id'],
  options: {
    tenant: TENANT_OPTION,
    name: { value: 'TEXT', help: 'what people call it' },
    zone: { value: ZONES, help: "where its prompts may go (wherever the tenant's may)", many: true },
    ...LIMIT_OPTIONS,
    json: JSON_OPTION,
  },
  run: (args, context) =>
    withClient(context, async (client) => {
      const body = withoutUndefined({
        tenant: await tenantOf(args, client),
        id: args.positional(0),
        name: args.text('name'),
        zones: zonesOf(args),
        limits: limitsOf(args),
      })
      const answer = await client.request('POST', '/admin/v1/projects', body)
      if (args.flag('json')) printJson(answer, context)
      else context.out(`Created project ${Named.parse(answer).id}.\n`)
      return 0
    }),
}

const Project = z.object({ id: z.string(), tenant: z.string(), name: z.string() })

const projectList: Command = {
  name: 'project list',
  summary: 'List projects.',
  positionals: [],
  options: { tenant: { value: 'ID', help: 'only of this tenant' }, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const tenant = args.text('tenant')
      const answer = await client.request('GET', `/admin/v1/projects${tenant === undefined ? '' : `?tenant=${encodeURIComponent(tenant)}`}`)
      if (args.flag('json')) printJson(answer, context)
      else
        context.out(
          table(
            ['PROJECT', 'TENANT', 'NAME'],
            List(Project)
              .parse(answer)
              .data.map(({ id, tenant: owner, name }) => [id, owner, name]),
          ),
        )
      return 0
    }),
}

const NewKey = z.object({ id: z.string(), project: z.string(), secret: z.string() })

const keyCreate: Command = {
  name: 'key create',
  summary: 'Create an API key. Its secret is printed once and cannot be shown again.',
  positionals: [],
  options: {
    tenant: TENANT_OPTION,
    project: { value: 'ID', help: 'its project (default)' },
    name: { value: 'TEXT', help: 'what it is for' },
    model: { value: 'ID', help: 'may call only this model; repeat or separate by commas', many: true },
    zone: { value: ZONES, help: "where its prompts may go (wherever the project's may)", many: true },
    'expires-in-days': { value: 'N', help: 'valid for so many days' },
    ...LIMIT_OPTIONS,
    json: JSON_OPTION,
  },
  run: (args, context) =>
    withClient(context, async (client) => {
      const models = args.list('model')
      const body = withoutUndefined({
        tenant: await tenantOf(args, client),
        project: args.text('project'),
        name: args.text('name'),
        models: models.length === 0 ? undefined : models,
        zones: zonesOf(args),
        expires_in_days: args.number('expires-in-days', 1, 36_500),
        limits: limitsOf(args),
      })
      const answer = await client.request('POST', '/admin/v1/keys', body)
      const { id, project, secret } = NewKey.parse(answer)
      if (args.flag('json')) printJson(answer, context)
      else context.out(`Created key ${id} of ${project}. Its secret, shown this once:\n${secret}\n`)
      return 0
    }),
}

const Key = z.object({
  id: z.string(),
  project: z.string(),
  name: z.string(),
  last4: z.string(),
  models: z.array(z.string()).nullable(),
  expires_at: z.string().nullable(),
  revoked_at: z.string().nullable(),
})

const keyList: Command = {
  name: 'key list',
  summary: 'List keys, never their secrets.',
  positionals: [],
  options: { tenant: { value: 'ID', help: 'only of this tenant' }, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const keys = await allKeys(client, args.text('tenant'))
      if (args.flag('json')) printJson(keys, context)
      else {
        const rows = keys.map((key) => [
          key.id,
          key.project,
          key.name,
          `…${key.last4}`,
          key.models?.join(',') ?? 'all',
          stateOf(key, context.clock.now_ms()),
        ])
        context.out(table(['KEY', 'PROJECT', 'NAME', 'SECRET', 'MODELS', 'STATE'], rows))
      }
      return 0
    }),
}

async function allKeys(client: AdminClient, tenant: string | undefined): Promise<readonly z.infer<typeof Key>[]> {
  const keys: z.infer<typeof Key>[] = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const query = new URLSearchParams({ limit: '1000', ...(tenant === undefined ? {} : { tenant }), ...(cursor === '' ? {} : { cursor }) })
    const page: { data: z.infer<typeof Key>[]; next_cursor?: string | null | undefined } = List(Key.loose()).parse(
      await client.request('GET', `/admin/v1/keys?${query.toString()}`),
    )
    keys.push(...page.data)
    cursor = page.next_cursor ?? null
  }
  return keys
}

function stateOf({ expires_at, revoked_at }: z.infer<typeof Key>, now_ms: number): string {
  if (revoked_at !== null) return `revoked ${revoked_at.slice(0, 10)}`
  if (expires_at === null) return 'active'
  return `${Date.parse(expires_at) <= now_ms ? 'expired' : 'active until'} ${expires_at.slice(0, 10)}`
}

const keyRevoke: Command = {
  name: 'key revoke',
  summary: 'Revoke a key, at once and for ever.',
  positionals: ['key'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('POST', `/admin/v1/keys/${encodeURIComponent(args.positional(0) ?? '')}/revoke`)
      if (args.flag('json')) printJson(answer, context)
      else context.out(`Revoked key ${Named.parse(answer).id}.\n`)
      return 0
    }),
}

const Balance = z.object({
  tenant: z.string(),
  available_cny: z.string(),
  held_cny: z.string(),
  credit_line_cny: z.string(),
  open_requests: z.number(),
  grants: z.array(
    z.object({
      id: z.string(),
      kind: z.string(),
      unit: z.string(),
      balance: z.string(),
      held: z.string(),
      expires_at: z.string().nullable(),
      expired: z.boolean(),
    }),
  ),
})

const balance: Command = {
  name: 'balance',
  summary: 'Show what a tenant may spend.',
  positionals: ['[tenant]'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const tenant = await tenantOf(args, client, args.positional(0))
      const answer = await client.request('GET', `/admin/v1/balance/${encodeURIComponent(tenant)}`)
      if (args.flag('json')) printJson(answer, context)
      else {
        const view = Balance.parse(answer)
        context.out(
          `Tenant ${view.tenant}: ${view.available_cny} CNY available, ${view.held_cny} CNY held by ${view.open_requests} open requests, credit line ${view.credit_line_cny} CNY\n\n`,
        )
        context.out(
          table(
            ['GRANT', 'KIND', 'BALANCE', 'HELD', 'UNIT', 'EXPIRES'],
            view.grants.map(({ id, kind, balance: left, held, unit, expires_at, expired }) => [
              id,
              kind,
              left,
              held,
              unit,
              expires_at === null ? 'never' : `${expired ? 'expired ' : ''}${expires_at}`,
            ]),
          ),
        )
      }
      return 0
    }),
}

/** Commands about who may call and with what money. */
export const ACCOUNT_COMMANDS: readonly Command[] = [
  tenantCreate,
  tenantChange,
  tenantList,
  tenantCredit,
  projectCreate,
  projectList,
  keyCreate,
  keyList,
  keyRevoke,
  balance,
]
