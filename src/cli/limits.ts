import * as z from 'zod'
import { JSON_OPTION, printJson, tenantOf, TENANT_OPTION, withClient } from './accounts.ts'
import type { AdminClient } from './client.ts'
import type { Arguments, Command, OptionSpec } from './command.ts'
import type { CliContext } from './io.ts'
import { table } from './table.ts'

const KINDS =
  'requests_per_minute, tokens_per_minute, concurrency, requests_window, tokens_window, amount_window (CNY) and budget (CNY). ' +
  'The three windows need --window; a budget may have one, and without it counts for ever.'

const WHOSE: Readonly<Record<string, OptionSpec>> = {
  tenant: TENANT_OPTION,
  project: { value: 'ID', help: 'of this project of the tenant' },
  key: { value: 'ID', help: 'of this key' },
}
const WHICH: Readonly<Record<string, OptionSpec>> = {
  model: { value: 'ID', help: 'only requests for this model count' },
  window: { value: '5h|day|week|month', help: "5h from first use; the others by the calendar of the tenant's time zone" },
}

const Limits = z.object({
  data: z.array(
    z.object({
      scope: z.string(),
      scope_id: z.string(),
      kind: z.string(),
      model: z.string().nullable(),
      window: z.string().nullable(),
      limit: z.string(),
      used: z.string().nullable(),
      held: z.string(),
      available: z.string(),
      resets_at: z.string().nullable(),
    }),
  ),
})

const limitList: Command = {
  name: 'limit list',
  summary: 'Show the limits of a tenant, project or key, and where each stands.',
  details: 'Only those of the tenant itself unless --project or --key is given. A request must fit into all three.',
  positionals: [],
  options: { ...WHOSE, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) =>
      show(await client.request('GET', `/admin/v1/limits?${await query(args, client)}`), args, context),
    ),
}

const limitSet: Command = {
  name: 'limit set',
  summary: 'Add or change one limit. What was used stays used.',
  details: `Kinds: ${KINDS}`,
  positionals: ['kind', 'limit'],
  options: { ...WHOSE, ...WHICH, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const set = {
        kind: args.positional(0),
        limit: args.positional(1),
        model: args.text('model') ?? null,
        window: args.text('window') ?? null,
      }
      return show(await client.request('PUT', '/admin/v1/limits', { ...(await whose(args, client)), set }), args, context)
    }),
}

const limitRemove: Command = {
  name: 'limit remove',
  summary: 'Take one limit away.',
  details: `Kinds: ${KINDS}`,
  positionals: ['kind'],
  options: { ...WHOSE, ...WHICH, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const which = { kind: args.positional(0), model: args.text('model'), window: args.text('window') }
      const path = `/admin/v1/limits?${await query(args, client, which)}`
      return show(await client.request('DELETE', path), args, context)
    }),
}

/** A key says by itself whose it is; everything else needs a tenant. */
async function whose(args: Arguments, client: AdminClient): Promise<Record<string, string>> {
  const key = args.text('key')
  if (key !== undefined) return { key }
  const project = args.text('project')
  return { tenant: await tenantOf(args, client), ...(project === undefined ? {} : { project }) }
}

async function query(args: Arguments, client: AdminClient, more: Readonly<Record<string, string | undefined>> = {}): Promise<string> {
  const given = Object.entries({ ...(await whose(args, client)), ...more })
  return new URLSearchParams(given.filter((entry): entry is [string, string] => entry[1] !== undefined)).toString()
}

function show(answer: unknown, args: Arguments, context: CliContext): number {
  if (args.flag('json')) {
    printJson(answer, context)
    return 0
  }
  const rows = Limits.parse(answer).data.map((limit) => [
    `${limit.scope} ${limit.scope_id}`,
    limit.window === null ? limit.kind : `${limit.kind} ${limit.window}`,
    limit.model ?? 'all',
    limit.limit,
    limit.used ?? '',
    limit.held,
    limit.available,
    limit.resets_at ?? '',
  ])
  context.out(rows.length === 0 ? 'No limits.\n' : table(['OF', 'LIMIT', 'MODELS', 'MOST', 'USED', 'HELD', 'AVAILABLE', 'RESETS'], rows))
  return 0
}

/** Commands about rates, windows and budgets. */
export const LIMIT_COMMANDS: readonly Command[] = [limitList, limitSet, limitRemove]
