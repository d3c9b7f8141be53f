import * as z from 'zod'
import { printJson, withClient } from './accounts.ts'
import type { AdminClient } from './client.ts'
import type { CliContext } from './io.ts'
import { table } from './table.ts'

const Closed = z.object({ model: z.string(), endpoint: z.string(), closed_by: z.string(), why: z.string() })
const Way = z.object({
  model: z.string(),
  endpoint: z.string(),
  origin: z.string(),
  via: z.string().optional(),
  zone: z.string(),
  filing: z.string().nullable(),
  sandbox: z.boolean(),
  open: z.boolean(),
  closed_by: z.string().optional(),
  why: z.string().optional(),
})
const Zones = z.array(z.string())
const Reach = z.object({
  tenant: z.object({ id: z.string(), status: z.string(), audience: z.string(), zones: Zones }),
  configuration: z.object({ digest: z.string(), in_force: z.boolean() }),
  ways: z.array(Way),
  projects: z.array(z.object({ id: z.string(), zones: Zones.nullable(), closed: z.array(Closed) })),
  keys: z.array(
    z.object({
      ids: z.array(z.string()),
      count: z.number(),
      project: z.string(),
      zones: Zones.nullable(),
      models: z.array(z.string()).nullable(),
      closed: z.array(Closed),
    }),
  ),
  more_groups: z.number(),
})
type ReachAnswer = z.infer<typeof Reach>

/** `weir check --explain <tenant>`: where a tenant's prompts can go. @throws Unreachable, Refused */
export function explain(tenant: string, as_json: boolean, context: CliContext): Promise<number> {
  return withClient(context, (client) => showReach(tenant, as_json, client, context))
}

async function showReach(tenant: string, as_json: boolean, client: AdminClient, context: CliContext): Promise<number> {
  const answer = await client.request('GET', `/admin/v1/tenants/${encodeURIComponent(tenant)}/reach`)
  if (as_json) printJson(answer, context)
  else context.out(reachText(Reach.parse(answer)))
  return 0
}

function reachText(reach: ReachAnswer): string {
  const { tenant, configuration } = reach
  const open = reach.ways.filter((way) => way.open)
  const whose = configuration.in_force ? 'in force at the running server' : 'in the files: no server is running'
  const head =
    `Tenant ${tenant.id}: ${tenant.status}, ${tenant.audience}, zones ${tenant.zones.join(', ')}.\n` +
    `Configuration ${configuration.digest.slice(0, 12)}, ${whose}.\n`
  const demo = configuration.in_force ? '' : 'A demo that is started answers from a sandbox on this machine where a key is not set.\n'
  return [`${head}${demo}`, hostsText(open), waysText(open), closedText(reach.ways), narrowedText(reach)]
    .filter((part) => part !== '')
    .join('\n')
}

/** Every address once: what a firewall or an auditor wants to know. */
function hostsText(open: readonly z.infer<typeof Way>[]): string {
  if (open.length === 0) return 'Its prompts can go nowhere.\n'
  const hosts = Map.groupBy(open, ({ origin, via = '' }) => `${origin}${via === '' ? '' : ` through ${via}`}`)
  const lines = [...hosts].map(([host, ways]) => `  ${host} (${[...new Set(ways.map(({ zone }) => zone))].join(', ')})\n`)
  return `Its prompts can go to ${hosts.size === 1 ? 'one address' : `${hosts.size} addresses`}:\n${lines.join('')}`
}

function waysText(open: readonly z.infer<typeof Way>[]): string {
  if (open.length === 0) return ''
  const filingOf = ({ sandbox, filing }: z.infer<typeof Way>): string => (sandbox ? 'sandbox' : (filing ?? 'no filing'))
  return table(
    ['MODEL', 'ENDPOINT', 'ADDRESS', 'ZONE', 'FILING'],
    open.map((way) => [way.model, way.endpoint, way.origin, way.zone, filingOf(way)]),
  )
}

function closedText(ways: readonly z.infer<typeof Way>[]): string {
  const closed = ways.filter((way) => !way.open)
  if (closed.length === 0) return ''
  return `Closed:\n${reasonsText(closed.map(({ endpoint, model, why = '' }) => ({ endpoint, model, why })))}`
}

/** Most endpoints that a reason names; the JSON has them all. */
const MOST_NAMES = 12

/** Endpoints by what keeps them closed. */
function reasonsText(closed: readonly { readonly endpoint: string; readonly model: string; readonly why: string }[]): string {
  const name = ({ endpoint, model }: { readonly endpoint: string; readonly model: string }): string =>
    endpoint.endsWith(`/${model}`) ? endpoint : `${endpoint} (${model})`
  return [...Map.groupBy(closed, ({ why }) => why)]
    .map(([why, group]) => {
      const more = group.length > MOST_NAMES ? ` and ${group.length - MOST_NAMES} more` : ''
      return `  ${why}: ${group.slice(0, MOST_NAMES).map(name).join(', ')}${more}\n`
    })
    .join('')
}

function narrowedText({ projects, keys, more_groups }: ReachAnswer): string {
  const zonesText = (zones: readonly string[] | null): string => (zones === null ? '' : `, zones ${zones.join(', ')}`)
  const parts = projects.map(({ id, zones, closed }) => `Project ${id}${zonesText(zones)}, does not reach:\n${reasonsText(closed)}`)
  for (const { ids, count, project, zones, models, closed } of keys) {
    const others = count > ids.length ? ` and ${count - ids.length} more` : ''
    const named = models === null ? '' : `, models ${models.join(', ')}`
    parts.push(`Keys ${ids.join(', ')}${others} of ${project}${zonesText(zones)}${named}, do not reach:\n${reasonsText(closed)}`)
  }
  if (parts.length === 0 && more_groups === 0) return 'Its projects and keys all reach the same.\n'
  return parts.join('\n') + (more_groups > 0 ? `\n${more_groups} more groups of keys were not looked at.\n` : '')
}
