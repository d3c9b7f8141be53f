/** An estimate as JSON and as text. Pure. */
import { dayOf } from '../../base/clock.ts'
import { cnyFromNano } from '../../money/amount.ts'
import { grouped, table } from '../table.ts'
import type { Unable } from './prices.ts'
import type { DomainSum, ModelSum, Tally } from './tally.ts'

/** Lines that could not be read: how many, and the first of them. */
export interface UnreadLines {
  count: number
  readonly first: Array<{ readonly line: number; readonly why: string }>
}

export interface Estimated {
  readonly file: string
  readonly tenant: string | null
  readonly now_ms: number
  /** Tokens of one answer whose request gives no cap, and whether somebody said so. */
  readonly output_tokens: number
  readonly output_said: boolean
  /** The virtual model that chooses; `found` is false where there is none of this name. */
  readonly route: { readonly name: string; readonly found: boolean }
  readonly tally: Tally
  readonly unread: UnreadLines
}

/** Models that answer everything first, the cheapest first; what can answer less comes after, by how much it can. */
export function byPrice(sums: readonly ModelSum[]): readonly ModelSum[] {
  return sums.toSorted((a, b) => b.requests - a.requests || compare(a.amount_nano, b.amount_nano))
}

function compare(a: bigint, b: bigint): number {
  if (a === b) return 0
  return a < b ? -1 : 1
}

const byRequests = (domains: Iterable<DomainSum>): readonly DomainSum[] => [...domains].toSorted((a, b) => b.requests - a.requests)

const SERVED = { provider: 'provider', sandbox: 'sandbox until its key is set' } as const

export function estimateJson({ file, tenant, now_ms, output_tokens, output_said, route, tally, unread }: Estimated): object {
  const { requests, prompt_tokens, capped } = tally
  return {
    object: 'estimate',
    file,
    tenant,
    priced_at: new Date(now_ms).toISOString(),
    requests,
    unread: { lines: unread.count, first: unread.first },
    prompt_tokens,
    output_tokens: { assumed: tally.output_tokens, by_max_tokens: capped, each_otherwise: output_tokens, said: output_said },
    domains: byRequests(tally.domains.values()).map((sum) => ({
      domain: sum.domain,
      requests: sum.requests,
      share: sum.requests / requests,
      mean_confidence: sum.confidence / sum.requests,
      ...(route.found ? { chosen: chosenOf(sum), unserved: sum.unserved } : {}),
    })),
    route: route.found ? { name: route.name, ...totalOf(tally) } : null,
    models: byPrice(tally.models).map(({ sold, requests: answered, amount_nano, unable }) => ({
      model: sold.model.id,
      served_by: sold.served_by,
      price: sold.price.id,
      requests: answered,
      amount_cny: cnyFromNano(amount_nano),
      unable: Object.fromEntries(unable),
    })),
  }
}

function chosenOf({ chosen }: DomainSum): readonly object[] {
  const sums = [...chosen].toSorted(([, a], [, b]) => b.requests - a.requests)
  return sums.map(([model, { requests, amount_nano }]) => ({ model, requests, amount_cny: cnyFromNano(amount_nano) }))
}

function totalOf(tally: Tally): { readonly requests: number; readonly unserved: number; readonly amount_cny: string } {
  const sums = [...tally.domains.values()]
  const chosen = sums.flatMap((sum) => [...sum.chosen.values()])
  return {
    requests: chosen.reduce((total, { requests }) => total + requests, 0),
    unserved: sums.reduce((total, { unserved }) => total + unserved, 0),
    amount_cny: cnyFromNano(chosen.reduce((total, { amount_nano }) => total + amount_nano, 0n)),
  }
}

/** @param most models to show */
export function estimateText(estimated: Estimated, most: number): string {
  const { tally, route } = estimated
  const parts = [headOf(estimated), tokensOf(estimated), domainsOf(estimated)]
  return [...parts, route.found ? routeOf(route.name, tally) : noRoute(route.name), modelsOf(estimated, most)].join('\n')
}

function headOf({ file, tally, unread, tenant }: Estimated): string {
  const lines = unread.first.map(({ line, why }) => `  line ${grouped(line)} ${why}`)
  if (unread.count > unread.first.length) lines.push(`  and ${grouped(unread.count - unread.first.length)} more`)
  const skipped = unread.count === 0 ? '' : `, ${grouped(unread.count)} lines could not be read`
  const whose = tenant === null ? '' : `, of tenant ${tenant}`
  return [`${file}: ${grouped(tally.requests)} requests${whose}${skipped}`, ...lines, ''].join('\n')
}

function tokensOf({ tally, output_tokens, output_said }: Estimated): string {
  const { low, high } = tally.prompt_tokens
  const range = low === high ? grouped(low) : `${grouped(low)} to ${grouped(high)}, by the tokenizer`
  const others = tally.requests - tally.capped
  const said = output_said ? '' : '; --output-tokens says otherwise'
  const sources = [
    ...(tally.capped === 0 ? [] : [`max_tokens of ${grouped(tally.capped)} requests`]),
    ...(others === 0 ? [] : [`${grouped(output_tokens)} for each of ${grouped(others)} without it${said}`]),
  ]
  return `Prompt tokens, by estimate: ${range}.\nOutput tokens, assumed: ${grouped(tally.output_tokens)} (${sources.join(', ')}).\n`
}

const PERCENT = 100

function domainsOf({ tally }: Estimated): string {
  const rows = byRequests(tally.domains.values()).map(({ domain, requests, confidence }) => [
    domain,
    grouped(requests),
    `${Math.round((requests / tally.requests) * PERCENT)}%`,
    `${Math.round((confidence / requests) * PERCENT)}%`,
  ])
  return table(['DOMAIN', 'REQUESTS', 'SHARE', 'CONFIDENCE'], rows)
}

function routeOf(name: string, tally: Tally): string {
  const rows = byRequests(tally.domains.values()).flatMap((sum) =>
    [...sum.chosen]
      .toSorted(([, a], [, b]) => b.requests - a.requests)
      .map(([model, { requests, amount_nano }]) => [sum.domain, model, grouped(requests), grouped(cnyFromNano(amount_nano))]),
  )
  const { amount_cny, unserved } = totalOf(tally)
  const none = unserved === 0 ? '' : ` None of its models can answer ${grouped(unserved)} of them.`
  const total = `"${name}" would cost ${grouped(amount_cny)} CNY in all.${none}\n`
  return rows.length === 0 ? total : `${table(['DOMAIN', `${name} CHOOSES`, 'REQUESTS', 'CNY'], rows)}${total}`
}

function noRoute(name: string): string {
  return `There is no virtual model "${name}" (config/routes.yaml).\n`
}

function modelsOf({ tally, now_ms }: Estimated, most: number): string {
  const sums = byPrice(tally.models)
  const rows = sums
    .slice(0, most)
    .map(({ sold, requests, amount_nano, unable }) => [
      sold.model.id,
      grouped(cnyFromNano(amount_nano)),
      requests === tally.requests ? 'all' : grouped(requests),
      sold.served_by === null ? 'nobody: no key is set' : SERVED[sold.served_by],
      unableOf(unable),
    ])
  const more = sums.length > most ? `and ${grouped(sums.length - most)} models more (--all, or --models a,b)\n` : ''
  const when = `Prices in force on ${dayOf(now_ms)}, without a discount for cached prompts. A model that thinks may write more than was assumed.\n`
  return `${table(['MODEL', 'CNY', 'REQUESTS', 'SERVED BY', 'CANNOT ANSWER'], rows)}${more}${when}`
}

function unableOf(unable: ReadonlyMap<Unable, number>): string {
  return [...unable].map(([what, requests]) => `${grouped(requests)} for ${what}`).join(', ')
}
