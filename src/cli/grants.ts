import * as z from 'zod'
import { uuidv7 } from '../base/ids.ts'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import type { AdminClient } from './client.ts'
import type { Arguments, Command } from './command.ts'
import { UsageError, type CliContext } from './io.ts'
import { grouped, table } from './table.ts'

const Grant = z.object({
  id: z.string(),
  tenant: z.string(),
  kind: z.string(),
  unit: z.string(),
  amount: z.string().nullable(),
  balance: z.string(),
  held: z.string(),
  used: z.string().nullable(),
  lapsed: z.string().nullable(),
  reversed: z.boolean(),
  priority: z.number(),
  models: z.array(z.string()).nullable(),
  weights: z.record(z.string(), z.string()).nullable(),
  expires_at: z.string().nullable(),
  expired: z.boolean(),
})
type Grant = z.infer<typeof Grant>
const GrantPage = z.object({ data: z.array(z.unknown()), next_cursor: z.string().nullable() })
const Tenants = z.object({ data: z.array(z.object({ id: z.string() })) })
const PAGE_GRANTS = '1000'

const EXPIRY = { value: 'TIME', help: "a date (included whole, in the tenant's time zone) or an instant; never when absent" }
const PRIORITY = { value: 'N', help: 'smaller burns first (promo 10, subscription 20, pack 40, contract 60; the wallet 100)' }

const add: Command = {
  name: 'grant add',
  summary: 'Give a tenant something that pays for requests: CNY, tokens or requests.',
  details:
    'Grants burn by priority, then soonest expiry, then age; the wallet and the credit line pay what is left. What is unused when a grant ' +
    'expires lapses. Give an --id of your own (an order or invoice number): the same grant cannot be given twice by mistake.',
  positionals: ['tenant', 'amount'],
  options: {
    unit: { value: 'cny|tokens|requests', help: 'what the amount counts (cny)' },
    kind: { value: 'subscription|pack|contract|promo', help: 'how it was given (pack)' },
    id: { value: 'ID', help: 'unique for the tenant; made up when absent' },
    expires: EXPIRY,
    priority: PRIORITY,
    model: { value: 'ID', help: 'pays for this model only; repeat or separate by commas', many: true },
    weight: { value: 'MODEL=W', help: 'units that one token of the model takes, such as 0.5 (1); for tokens; repeatable', many: true },
    note: { value: 'TEXT', help: 'kept with the ledger transaction' },
    json: JSON_OPTION,
  },
  run: (args, context) =>
    withClient(context, async (client) => {
      const tenant = args.positional(0) ?? ''
      const answer = await client.request('POST', grantsPath(tenant), grantBody(args, context))
      if (args.flag('json')) printJson(answer, context)
      else {
        const { id, unit, amount, state } = Grant.extend({ state: z.enum(['posted', 'duplicate']) }).parse(answer)
        const what = `${grouped(amount ?? '0')} ${unitWord(unit)}`
        if (state === 'posted') context.out(`Gave ${what} to ${tenant}: grant ${id}.\n`)
        else context.out(`Nothing changed: the grant ${id} of ${what} had been given before.\n`)
      }
      return 0
    }),
}

function grantBody(args: Arguments, context: CliContext): object {
  const models = args.list('model')
  const weights = args.list('weight').map(weightOf)
  const fields = {
    id: args.text('id') ?? uuidv7(context.clock.now_ms()),
    kind: args.text('kind') ?? 'pack',
    unit: args.text('unit') ?? 'cny',
    amount: args.positional(1),
    priority: args.number('priority', 0, 1_000_000),
    expires_at: args.text('expires'),
    models: models.length === 0 ? undefined : models,
    weights: weights.length === 0 ? undefined : Object.fromEntries(weights),
    note: args.text('note'),
  }
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

function weightOf(text: string): readonly [string, string] {
  const at = text.lastIndexOf('=')
  if (at < 1) throw new UsageError(`--weight is written MODEL=W, such as qwen3-max=2, not ${JSON.stringify(text)}`)
  return [text.slice(0, at), text.slice(at + 1)]
}

const list: Command = {
  name: 'grant list',
  summary: 'List what pays for requests: of one tenant, or of all.',
  positionals: ['[tenant]'],
  options: { all: { help: 'those also that are used up, or expired with nothing left' }, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const named = args.positional(0)
      const tenants = named === undefined ? Tenants.parse(await client.request('GET', '/admin/v1/tenants')).data : [{ id: named }]
      const answers: unknown[] = []
      for (const { id } of tenants) answers.push(...(await grantsOf(id, client)))
      const found = args.flag('all') ? answers : answers.filter((answer) => isAlive(Grant.parse(answer)))
      if (args.flag('json')) printJson(found, context)
      else context.out(grantTable(found.map((answer) => Grant.parse(answer))))
      return 0
    }),
}

async function grantsOf(tenant: string, client: AdminClient): Promise<readonly unknown[]> {
  const grants: unknown[] = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const query = new URLSearchParams({ limit: PAGE_GRANTS, ...(cursor === '' ? {} : { cursor }) })
    const page: z.infer<typeof GrantPage> = GrantPage.parse(await client.request('GET', `${grantsPath(tenant)}?${query.toString()}`))
    grants.push(...page.data)
    cursor = page.next_cursor
  }
  return grants
}

function isAlive({ kind, balance, held }: Grant): boolean {
  return kind === 'wallet' || balance !== '0' || held !== '0'
}

function grantTable(grants: readonly Grant[]): string {
  const rows = grants
    .toSorted((a, b) => (a.tenant === b.tenant ? a.priority - b.priority : a.tenant < b.tenant ? -1 : 1))
    .map((grant) => [
      grant.id,
      grant.kind,
      grouped(grant.balance),
      grouped(grant.held),
      grant.amount === null ? '' : grouped(grant.amount),
      unitWord(grant.unit),
      String(grant.priority),
      grant.models?.join(',') ?? 'all',
      expiryOf(grant),
    ])
  return table(['GRANT', 'KIND', 'LEFT', 'HELD', 'OF', 'UNIT', 'PRIORITY', 'MODELS', 'EXPIRES'], rows)
}

function expiryOf({ expires_at, expired }: Grant): string {
  if (expires_at === null) return 'never'
  return expired ? `expired ${expires_at}` : expires_at
}

function unitWord(unit: string): string {
  return unit === 'cny' ? 'CNY' : unit
}

const show: Command = {
  name: 'grant show',
  summary: 'Show one grant: what was given, used, held, and what has lapsed.',
  positionals: ['grant'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      printGrant(await client.request('GET', grantPath(args.positional(0) ?? '')), args, context)
      return 0
    }),
}

const change: Command = {
  name: 'grant change',
  summary: 'Change when a grant expires, or what burns before it. Its amount changes by giving another, or by "weir reverse".',
  positionals: ['grant'],
  options: {
    expires: { ...EXPIRY, help: EXPIRY.help.replace('never when absent', 'or "never"') },
    priority: PRIORITY,
    json: JSON_OPTION,
  },
  run: (args, context) =>
    withClient(context, async (client) => {
      const [priority, expires] = [args.number('priority', 0, 1_000_000), args.text('expires')]
      if (priority === undefined && expires === undefined) throw new UsageError('say what to change: --expires, --priority')
      const body = {
        ...(priority === undefined ? {} : { priority }),
        ...(expires === undefined ? {} : { expires_at: expires === 'never' ? null : expires }),
      }
      printGrant(await client.request('PATCH', grantPath(args.positional(0) ?? ''), body), args, context)
      return 0
    }),
}

function printGrant(answer: unknown, args: Arguments, context: CliContext): void {
  if (args.flag('json')) return printJson(answer, context)
  const grant = Grant.parse(answer)
  const weights = Object.entries(grant.weights ?? {}).map(([model, weight]) => `${model}=${weight}`)
  const figure = (amount: string | null): string => (amount === null ? '' : `${grouped(amount)} ${unitWord(grant.unit)}`)
  const lines: readonly (readonly [string, string])[] = [
    ['grant', grant.id],
    ['kind', grant.kind],
    ['given', figure(grant.amount)],
    ['used', figure(grant.used)],
    ['lapsed', figure(grant.lapsed)],
    ['left', figure(grant.balance)],
    ['of it held', figure(grant.held)],
    ['priority', String(grant.priority)],
    ['models', grant.models?.join(', ') ?? 'all'],
    ['weights', weights.join(', ')],
    ['expires', expiryOf(grant)],
    ['reversed', grant.reversed ? 'yes: taken back' : ''],
  ]
  context.out(lines.flatMap(([name, value]) => (value === '' ? [] : [`${name.padEnd(12)}${value}\n`])).join(''))
}

function grantsPath(tenant: string): string {
  return `/admin/v1/tenants/${encodeURIComponent(tenant)}/grants`
}

/** Of a full id such as `acme/spring-pack`, or a wallet's (`wallet:acme`). */
function grantPath(id: string): string {
  const [tenant = ''] = id.startsWith('wallet:') ? [id.slice('wallet:'.length)] : id.split('/')
  if (tenant === '' || (!id.includes('/') && !id.startsWith('wallet:')))
    throw new UsageError(`a grant is named with its tenant, such as acme/${id === '' ? 'pack-1' : id}`)
  return `${grantsPath(tenant)}/${encodeURIComponent(id)}`
}

/** Commands about what pays for requests. */
export const GRANT_COMMANDS: readonly Command[] = [add, list, show, change]
