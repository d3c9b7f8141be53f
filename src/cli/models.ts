import * as z from 'zod'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import type { Command } from './command.ts'
import type { CliContext } from './io.ts'
import { grouped, table } from './table.ts'

const Uses = z.object({
  from: z.string(),
  to: z.string(),
  data: z.array(
    z.object({
      model: z.string(),
      life: z.string(),
      retires_on: z.string().nullable(),
      replaced_by: z.string().nullable(),
      used_by: z.array(
        z.object({
          tenant: z.string(),
          project: z.string(),
          key: z.string(),
          requests: z.number(),
          amount_cny: z.string(),
          last_used_on: z.string(),
        }),
      ),
    }),
  ),
})

/** The server refuses more. */
const MOST_DAYS = 400

const modelUsage: Command = {
  name: 'model usage',
  summary: 'Show which tenants, projects and keys still use models that are on their way out.',
  details: 'Without --life: models that are deprecated, retired, or have a date to be retired. Days are of Asia/Shanghai, today included.',
  positionals: [],
  options: {
    life: { value: 'preview|ga|deprecated|retired', help: 'models of this life instead' },
    days: { value: 'N', help: 'so many days back (30)' },
    json: JSON_OPTION,
  },
  run: (args, context) =>
    withClient(context, async (client) => {
      const [life, days] = [args.text('life'), args.number('days', 1, MOST_DAYS)]
      const query = new URLSearchParams({ ...(life === undefined ? {} : { life }), ...(days === undefined ? {} : { days: String(days) }) })
      const answer = await client.request('GET', `/admin/v1/models/usage?${query.toString()}`)
      if (args.flag('json')) printJson(answer, context)
      else showUses(Uses.parse(answer), context)
      return 0
    }),
}

function showUses({ from, to, data }: z.infer<typeof Uses>, context: CliContext): void {
  if (data.length === 0) return context.out('No model of the catalogue is in that state, or about to be.\n')
  const rows = data.flatMap(({ model, used_by }) =>
    used_by.map((use) => [model, use.tenant, use.project, use.key, grouped(use.requests), grouped(use.amount_cny), use.last_used_on]),
  )
  context.out(`Usage from ${from} to ${to}\n\n`)
  if (rows.length > 0) context.out(`${table(['MODEL', 'TENANT', 'PROJECT', 'KEY', 'REQUESTS', 'CNY', 'LAST USED'], rows)}\n`)
  for (const { model, life, retires_on, replaced_by, used_by } of data) {
    const until = retires_on === null ? '' : `, ${life === 'retired' ? 'gone' : 'goes'} on ${retires_on}`
    const next = replaced_by === null ? '' : `, use ${replaced_by}`
    context.out(`${model}: ${life}${until}${next}${used_by.length === 0 ? '; nobody used it' : ''}\n`)
  }
}

/** Commands about models of the catalogue. */
export const MODEL_COMMANDS: readonly Command[] = [modelUsage]
