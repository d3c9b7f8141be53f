import * as z from 'zod'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import type { Command } from './command.ts'
import { grouped, table } from './table.ts'

const Node = z.object({
  node: z.string(),
  state: z.string(),
  roles: z.array(z.string()),
  version: z.string(),
  last_event: z.number(),
  unposted: z.number(),
  heard_at: z.string(),
})

const list: Command = {
  name: 'node list',
  summary: 'List the processes that share this ledger, and what each said last.',
  details:
    'live: heard of within 10 s. silent: neither stopped nor heard of; what only its journal has is missing from the ledger until it is ' +
    'back. stopped: it has ended as it should.',
  positionals: [],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const answer = await client.request('GET', '/admin/v1/nodes')
      if (args.flag('json')) {
        printJson(answer, context)
        return 0
      }
      const { data } = z.object({ data: z.array(Node) }).parse(answer)
      const rows = data.map((node) => [
        node.node,
        node.state,
        node.roles.join(' '),
        node.version,
        grouped(node.last_event),
        grouped(node.unposted),
        node.heard_at,
      ])
      context.out(table(['NODE', 'STATE', 'ROLES', 'VERSION', 'LAST EVENT', 'UNPOSTED', 'HEARD'], rows))
      return 0
    }),
}

const retire: Command = {
  name: 'node retire',
  summary: 'Take a silent node for stopped, because its machine is gone for good.',
  details:
    'Nobody waits for it any more, so that days can be archived. Events that only its journal had are lost: audits go on naming their ' +
    'numbers. If the journal turns up, start a process on it and everything is posted.',
  positionals: ['node'],
  options: { json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const name = args.positional(0) ?? ''
      const answer = await client.request('POST', `/admin/v1/nodes/${encodeURIComponent(name)}/retire`)
      if (args.flag('json')) printJson(answer, context)
      else context.out(`${name} is taken for stopped.\n`)
      return 0
    }),
}

export const NODE_COMMANDS: readonly Command[] = [list, retire]
