import * as z from 'zod'
import type { UsageEvent } from '../money/event.ts'
import type { Finding } from './audit.ts'

const Row = z.object({
  request_id: z.string(),
  attempt: z.number(),
  path: z.string(),
  prompt_tokens: z.number(),
  cached_tokens: z.number(),
  sent_tokens: z.number(),
  finished: z.boolean(),
  ended_at: z.number().nullable(),
  status: z.number().nullable(),
})
const Page = z.object({ served: z.array(Row), next: z.number().nullable(), oldest: z.number() })

/** The sandbox's count of one attempt, made from the bytes that it wrote. */
export type ServedRow = z.infer<typeof Row>

/** The sandbox's count could not be read whole. */
export class ServedUnavailable extends Error {
  override name = 'ServedUnavailable'
}

const PAGE_ROWS = 10_000
const PAGE_TIMEOUT_MS = 30_000

/**
 * Reads the whole count of the sandbox at `url` (its origin).
 *
 * @throws ServedUnavailable if it cannot be reached, is no sandbox, or has already forgotten rows
 */
export async function fetchServed(url: string): Promise<readonly ServedRow[]> {
  const rows: ServedRow[] = []
  for (let since: number | null = 0; since !== null;) {
    const page = Page.safeParse(await fetchJson(`${url.replace(/\/$/, '')}/sandbox/served?since=${since}&limit=${PAGE_ROWS}`))
    if (!page.success) throw new ServedUnavailable(`what answers at ${url} is not a sandbox`)
    if (page.data.oldest > 0)
      throw new ServedUnavailable(`the sandbox no longer has its first ${page.data.oldest} rows, so its count is incomplete`)
    rows.push(...page.data.served)
    since = page.data.next
  }
  return rows
}

async function fetchJson(url: string): Promise<unknown> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(PAGE_TIMEOUT_MS) })
    return await response.json()
  } catch (cause) {
    throw new ServedUnavailable(`the sandbox's count at ${url} could not be read`, { cause })
  }
}

/**
 * What was served against what was billed (SEMANTICS 17), as far as it can be judged without the client's side:
 * a whole answer of a completed request is billed exactly; any other at most as far as it was sent; without a 2xx answer nothing is
 * billed; a 2xx answer has its event; an event that the sandbox never saw bills nothing.
 *
 * @param open ids of requests that are still running
 */
export async function compareServed(
  rows: readonly ServedRow[],
  events: AsyncIterable<UsageEvent>,
  open: ReadonlySet<string>,
): Promise<Finding[]> {
  const metered = rows.filter(({ request_id, path }) => request_id !== '' && !path.endsWith('/models'))
  const waiting = Map.groupBy(metered, ({ request_id }) => request_id)
  const findings: Finding[] = []
  for await (const event of events) {
    const tries = waiting.get(event.id) ?? []
    waiting.delete(event.id)
    findings.push(...compareEvent(event, tries))
  }
  for (const [id, tries] of waiting) {
    if (open.has(id) || !tries.some(reached)) continue
    findings.push({ rule: 'an answered request has its event', id, expected: 'one event', found: 'none' })
  }
  return findings
}

function reached({ status }: ServedRow): boolean {
  return status !== null && status >= 200 && status < 300
}

function compareEvent(event: UsageEvent, tries: readonly ServedRow[]): Finding[] {
  const { id, status } = event
  const last = tries.filter(reached).toSorted((a, b) => b.attempt - a.attempt)[0]
  const billed = billedOf(event)
  if (last === undefined) {
    const total = billed.prompt + billed.output
    const why = tries.length === 0 ? 'what the sandbox never saw bills nothing' : 'what the sandbox refused bills nothing'
    return total === 0 && event.amount_nano === 0n ? [] : [{ rule: why, id, expected: '0 tokens', found: `${total} tokens` }]
  }
  const sent = { prompt: last.prompt_tokens, cached: last.cached_tokens, output: last.sent_tokens }
  const exact = last.finished && status === 'completed'
  const agrees = exact
    ? (name: keyof Counts) => billed[name] === sent[name]
    : (name: keyof Counts) => billed[name] >= 0 && billed[name] <= sent[name]
  const rule = exact ? 'a completed answer is billed exactly' : 'a broken answer is billed at most as far as it was sent'
  return (['prompt', 'cached', 'output'] as const)
    .filter((name) => !agrees(name))
    .map((name) => ({
      rule,
      id,
      expected: `${exact ? '' : 'at most '}${sent[name]} ${name} tokens`,
      found: `${billed[name]} (${status}, ${event.usage_source})`,
    }))
}

interface Counts {
  readonly prompt: number
  readonly cached: number
  readonly output: number
}

function billedOf({ tokens }: UsageEvent): Counts {
  return { prompt: tokens.input + tokens.cached_input + tokens.cache_write, cached: tokens.cached_input, output: tokens.output }
}
