import { readFileSync } from 'node:fs'
import * as z from 'zod'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import type { Arguments, Command, OptionSpec } from './command.ts'
import { CommandFailed, type CliContext, UsageError } from './io.ts'
import { table } from './table.ts'

const STDIN = 0
const SECRET: Readonly<Record<string, OptionSpec>> = {
  'secret-file': { value: 'PATH', help: 'file with the secret; without it the secret is read from standard input' },
  reference: { value: 'REF', help: 'where the gateway finds it: ${NAME} or ${file:/path}' },
}
const SETTINGS: Readonly<Record<string, OptionSpec>> = {
  weight: { value: 'N', help: 'parts of the requests that it takes (1)' },
  concurrency: { value: 'N', help: 'requests at the same time' },
  rpm: { value: 'N', help: 'requests per minute' },
  tpm: { value: 'N', help: 'tokens per minute' },
  status: { value: 'active|disabled', help: 'whether it is used' },
}

const Key = z.object({
  id: z.string(),
  source: z.string(),
  status: z.string().optional(),
  last4: z.string().nullable().optional(),
  reference: z.string().nullable().optional(),
  weight: z.number().optional(),
  state: z.string().nullable().optional(),
})
const Keys = z.object({ data: z.array(Key) })
const Rewrap = z.object({ keys: z.number(), rewrapped: z.number(), master_key: z.string() })

/** Never an argument: those are seen by everybody on the machine, and kept in the shell's history. @throws UsageError, CommandFailed */
function secretOf(args: Arguments): string {
  const [file, reference] = [args.text('secret-file'), args.text('reference')]
  if (file !== undefined && reference !== undefined) throw new UsageError('give --secret-file or --reference, not both')
  if (reference !== undefined) return reference
  try {
    const secret = readFileSync(file ?? STDIN, 'utf8').trim()
    if (secret !== '') return secret
  } catch (cause) {
    throw new CommandFailed(`the secret cannot be read from ${file ?? 'standard input'}`, { cause })
  }
  throw new CommandFailed(`there is no secret in ${file ?? 'standard input'}`)
}

function settingsOf(args: Arguments): object {
  const settings = {
    weight: args.number('weight', 1, 1_000_000),
    concurrency: args.number('concurrency', 1, 1e12),
    requests_per_minute: args.number('rpm', 1, 1e12),
    tokens_per_minute: args.number('tpm', 1, 1e12),
    status: args.text('status'),
  }
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined))
}

const pathOf = (args: Arguments): string =>
  `/admin/v1/provider-keys/${encodeURIComponent(args.positional(0) ?? '')}/${encodeURIComponent(args.positional(1) ?? '')}`

function tell(answer: unknown, done: string, args: Arguments, context: CliContext): number {
  if (args.flag('json')) printJson(answer, context)
  else context.out(`${done} ${Key.parse(answer).id}.\n`)
  return 0
}

const add: Command = {
  name: 'provider-key add',
  summary: "Add a key of a provider's account; it serves within a second.",
  details: 'The secret is sealed under the master key (WEIR_MASTER_KEY_FILE) and never shown again.',
  positionals: ['provider', 'name'],
  options: { ...SECRET, ...SETTINGS, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const body = { provider: args.positional(0), name: args.positional(1), secret: secretOf(args), ...settingsOf(args) }
      return tell(await client.request('POST', '/admin/v1/provider-keys', body), 'Added the key', args, context)
    }),
}

const list: Command = {
  name: 'provider-key list',
  summary: 'List keys of providers, and how they fare.',
  positionals: [],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('GET', '/admin/v1/provider-keys')
      if (args.flag('json')) {
        printJson(answer, context)
        return 0
      }
      const rows = Keys.parse(answer).data.map((key) => [
        key.id,
        key.source,
        key.status ?? '',
        key.reference ?? (key.last4 === null || key.last4 === undefined ? '' : `…${key.last4}`),
        key.weight === undefined ? '' : String(key.weight),
        key.state ?? '',
      ])
      context.out(rows.length === 0 ? 'No keys with a name.\n' : table(['KEY', 'FROM', 'STATUS', 'SECRET', 'WEIGHT', 'STATE'], rows))
      return 0
    }),
}

const rotate: Command = {
  name: 'provider-key rotate',
  summary: 'Give a key another secret.',
  positionals: ['provider', 'name'],
  options: { ...SECRET, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) =>
      tell(await client.request('PATCH', pathOf(args), { secret: secretOf(args) }), 'Renewed the secret of', args, context),
    ),
}

const change: Command = {
  name: 'provider-key change',
  summary: 'Change weight, limits or status of a key.',
  positionals: ['provider', 'name'],
  options: { ...SETTINGS, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const body = settingsOf(args)
      if (Object.keys(body).length === 0) throw new UsageError('say what to change')
      return tell(await client.request('PATCH', pathOf(args), body), 'Changed', args, context)
    }),
}

const remove: Command = {
  name: 'provider-key remove',
  summary: 'Take a key away at once, and forget its secret.',
  positionals: ['provider', 'name'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => tell(await client.request('DELETE', pathOf(args)), 'Removed', args, context)),
}

const rewrap: Command = {
  name: 'provider-key rewrap',
  summary: 'Put every sealed secret under the present master key.',
  details:
    'Start every process with the new key in WEIR_MASTER_KEY_FILE and the one before in WEIR_OLD_MASTER_KEY_FILE, then run this, ' +
    'again if it was cut short. The old file is not needed any more once nothing was left to do.',
  positionals: [],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('POST', '/admin/v1/provider-keys/rewrap')
      const { keys, rewrapped, master_key } = Rewrap.parse(answer)
      if (args.flag('json')) printJson(answer, context)
      else context.out(`${rewrapped} of ${keys} sealed keys were rewrapped; all are under the master key ${master_key}.\n`)
      return 0
    }),
}

/** Commands about the keys of providers' accounts. */
export const PROVIDER_KEY_COMMANDS: readonly Command[] = [add, list, rotate, change, remove, rewrap]
