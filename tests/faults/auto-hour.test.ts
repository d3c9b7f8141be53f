import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { loadConfiguration } from '../../src/config/load.ts'
import type { Endpoint } from '../../src/config/model.ts'
import type { Caller } from '../../src/gateway/call.ts'
import { chanceFor, choose, type ChoiceFacts, type Plan } from '../../src/gateway/choose.ts'
import { readFacts } from '../../src/gateway/request.ts'
import { buildSnapshot, type Snapshot } from '../../src/gateway/snapshot.ts'
import { tenantRoutingOf } from '../../src/gateway/tenant-routing.ts'
import { createDomainClassifier, type DomainClassifier } from '../../src/routing/domain.ts'
import { TENANT_DEFAULTS } from '../../src/storage/records.ts'
import { BREAKER_RULES, BreakerBoard } from '../../src/upstream/breaker.ts'
import { FAILURES, type FailureKind } from '../../src/upstream/failure.ts'
import { LatencyBoard } from '../../src/upstream/latency.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { RETRY_FLOOR, RETRY_PERCENT, RetryBudget } from '../../src/upstream/retry-budget.ts'
import { writeConfiguration } from '../support/gateway.ts'
import { faultSeed, type Random, seededRandom } from '../support/random.ts'
import { REPO_ROOT } from '../support/root.ts'

/** An hour of a gateway without sockets: the real choice, breakers, budget and latencies under a clock of its own. */

const START_MS = Date.parse('2026-11-23T10:00:00+08:00')
const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000
const REQUESTS = 18_000
const MAX_ATTEMPTS = 3

const at = (id: string, more: object = {}): object => ({
  id,
  provider: 'sandbox',
  base_url: 'http://127.0.0.1:9/v1',
  upstream_model: id,
  ...more,
})
const FILED = { filing: { number: 'Beijing-Test-202404280016', evidence: 'test' } }
const MODELS = {
  big: { endpoints: [at('big-1', { weight: 3, ...FILED }), at('big-2', FILED), at('big-spare', { tier: 2, ...FILED })] },
  mid: { endpoints: [at('mid-1', FILED), at('mid-2')] },
  fresh: { endpoints: [at('fresh-1', FILED)] },
  doctor: { domain: 'healthcare', endpoints: [at('doctor-1')] },
}
const CANDIDATES = [{ model: 'big', weight: 300 }, { model: 'mid', weight: 100 }, { model: 'fresh', weight: 0 }, { model: 'doctor' }]
const ROUTES = {
  auto: { candidates: CANDIDATES, canary: { model: 'fresh', percent: 5 } },
  quick: { prefer: 'latency', candidates: CANDIDATES },
}

interface Fault {
  readonly endpoints: readonly string[]
  readonly from_minute: number
  readonly to_minute: number
  readonly kind: FailureKind | 'slow'
  readonly retry_after_ms?: number
}
/** Every way of failing, one after the other, with calm between them; from minute 50 on two minutes of nothing at all. */
const FAULTS: readonly Fault[] = [
  { endpoints: ['big-1'], from_minute: 5, to_minute: 10, kind: 'server' },
  { endpoints: ['doctor-1'], from_minute: 8, to_minute: 14, kind: 'dial_failed' },
  { endpoints: ['mid-1'], from_minute: 12, to_minute: 16, kind: 'rate', retry_after_ms: 20_000 },
  { endpoints: ['big-1', 'big-2'], from_minute: 18, to_minute: 22, kind: 'overload' },
  { endpoints: ['big-2'], from_minute: 24, to_minute: 30, kind: 'slow' },
  { endpoints: ['mid-1', 'mid-2'], from_minute: 27, to_minute: 32, kind: 'first_event_timeout' },
  { endpoints: ['big-1'], from_minute: 34, to_minute: 36, kind: 'auth' },
  { endpoints: ['big-1', 'big-2', 'big-spare', 'mid-1', 'mid-2', 'fresh-1', 'doctor-1'], from_minute: 50, to_minute: 52, kind: 'server' },
]
const OUTAGE = { from_minute: 50, to_minute: 55 }
const CALM = { from_minute: 0, to_minute: 5 }
/** Long enough after the last single fault for every breaker to have closed again. */
const CALM_AGAIN = { from_minute: 48, to_minute: 50 }

const OPENINGS = ['Tell me a story about', 'Write a poem on', '介绍一下城市', 'How do I cook']
const ILL = '孩子发烧39度还咳嗽，医生开了阿莫西林和布洛芬，两种药能一起吃吗？需要做血常规检查吗？编号'

/** One request as it ended. */
interface Ended {
  readonly tenant: string
  readonly conversation: string
  readonly asked: string
  readonly at_ms: number
  readonly model: string | null
  readonly endpoint: string | null
  readonly tries: readonly Try[]
}
interface Try {
  readonly endpoint: string
  readonly at_ms: number
  readonly outcome: FailureKind | 'answered'
}

interface Asking {
  readonly tenant: string
  readonly conversation: string
  readonly asked: string
  readonly content: string
}

class Hour {
  readonly #random: Random
  readonly #snapshot: Snapshot
  readonly #classifier: DomainClassifier
  readonly breakers = new BreakerBoard()
  readonly #latencies = new LatencyBoard()
  readonly #budget = new RetryBudget()
  #now_ms = START_MS
  readonly #later: { at_ms: number; run: () => void }[] = []
  readonly ended: Ended[] = []
  refused = 0

  constructor(seed: number, snapshot: Snapshot, classifier: DomainClassifier) {
    this.#random = seededRandom(seed)
    this.#snapshot = snapshot
    this.#classifier = classifier
  }

  run(): this {
    for (let request = 0; request < REQUESTS; request += 1) {
      this.#at(START_MS + Math.floor(this.#random.next() * HOUR_MS), () => this.#ask(this.#anyAsking()))
    }
    this.#later.sort((a, b) => a.at_ms - b.at_ms)
    for (let next = this.#later.shift(); next !== undefined; next = this.#later.shift()) {
      this.#now_ms = next.at_ms
      next.run()
    }
    return this
  }

  /** What is planned while the hour runs keeps the order of time. */
  #at(at_ms: number, run: () => void): void {
    let low = 0
    let high = this.#now_ms === START_MS ? 0 : this.#later.length
    if (this.#now_ms === START_MS) return void this.#later.push({ at_ms, run })
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#later[middle]?.at_ms ?? 0) <= at_ms) low = middle + 1
      else high = middle
    }
    this.#later.splice(low, 0, { at_ms, run })
  }

  /** One tenant sends half of everything. A tenth is about health, a tenth asks the route that goes by latency. */
  #anyAsking(): Asking {
    const tenant = this.#random.next() < 0.5 ? 'heavy' : `tenant-${this.#random.whole(1, 9)}`
    const number = this.#random.whole(1, 200)
    const ill = this.#random.next() < 0.1
    const opening = ill ? ILL : (OPENINGS[number % OPENINGS.length] ?? '')
    const asked = !ill && this.#random.next() < 0.1 ? 'quick' : 'auto'
    return { tenant, asked, conversation: `${tenant} ${opening} ${number}`, content: `${opening} ${number}` }
  }

  #ask(asking: Asking): void {
    const body = Buffer.from(JSON.stringify({ model: asking.asked, stream: true, messages: [{ role: 'user', content: asking.content }] }))
    const request = readFacts('chat_completions', body, 64)
    const caller = callerOf(asking.tenant)
    const now_ms = this.#now_ms
    const facts: ChoiceFacts = {
      snapshot: this.#snapshot,
      tenant: tenantRoutingOf(caller),
      classifier: this.#classifier,
      now_ms,
      mayTry: (endpoint) => this.breakers.mayTry(endpoint, now_ms),
      retryInMs: (endpoint) => this.breakers.retryAt(endpoint) - now_ms,
      latencyMs: (endpoint) => this.#latencies.of(endpoint, now_ms),
      chance: () => chanceFor(request, caller, 'id'),
      hint: () => null,
    }
    const begun = { asking, at_ms: now_ms, tries: [] as Try[] }
    try {
      const { first, alternatives } = choose(request, caller, facts)
      this.#budget.request(now_ms)
      this.#tryPlans([first, ...alternatives], begun)
    } catch (error) {
      expect(error).toMatchObject({ code: 'no_upstream_available' })
      this.refused += 1
      this.#end(begun, null, null)
    }
  }

  #tryPlans(plans: readonly Plan[], begun: Begun): void {
    const [plan, ...left] = plans
    if (plan === undefined) return this.#end(begun, null, null)
    this.#tryTargets(plan, plan.route.targets, left, begun, false)
  }

  /** As `forward` does: targets in order, each a try of its own; after the last one the next model. */
  #tryTargets(plan: Plan, targets: readonly Endpoint[], left: readonly Plan[], begun: Begun, retry: boolean): void {
    const [target, ...others] = targets
    const spent = begun.tries.length >= MAX_ATTEMPTS
    if (target === undefined || spent) return this.#nextModel(left, begun, spent)
    if (retry && !this.#budget.allows(this.#now_ms)) return this.#end(begun, null, null)
    if (!this.breakers.begin(target.id, this.#now_ms)) return this.#tryTargets(plan, others, left, begun, retry)
    if (retry) this.#budget.take(this.#now_ms)
    const { outcome, took_ms, retry_after_ms } = this.#outcomeOf(target.id)
    begun.tries.push({ endpoint: target.id, at_ms: this.#now_ms, outcome })
    this.#at(this.#now_ms + took_ms, () => {
      if (outcome === 'answered') {
        this.breakers.success(target.id)
        this.#latencies.answered(target.id, took_ms, this.#now_ms)
        return this.#end(begun, plan.route.model.id, target.id)
      }
      this.breakers.failure(target.id, outcome, this.#now_ms, retry_after_ms)
      if (FAILURES[outcome].retry) this.#tryTargets(plan, others, left, begun, true)
      else this.#end(begun, null, null)
    })
  }

  #nextModel(left: readonly Plan[], begun: Begun, spent: boolean): void {
    const failed = begun.tries.length > 0
    if (left.length === 0 || spent || (failed && !this.#budget.take(this.#now_ms))) return this.#end(begun, null, null)
    this.#tryPlans(left, begun)
  }

  #end({ asking, at_ms, tries }: Begun, model: string | null, endpoint: string | null): void {
    const { tenant, conversation, asked } = asking
    this.ended.push({ tenant, conversation, asked, at_ms, model, endpoint, tries })
  }

  #outcomeOf(endpoint: string): { outcome: FailureKind | 'answered'; took_ms: number; retry_after_ms: number | null } {
    const minute = (this.#now_ms - START_MS) / MINUTE_MS
    const fault = FAULTS.find((one) => one.endpoints.includes(endpoint) && minute >= one.from_minute && minute < one.to_minute)
    const took_ms = 200 + Math.floor(this.#random.next() * 600)
    if (fault === undefined) return { outcome: 'answered', took_ms, retry_after_ms: null }
    if (fault.kind === 'slow') return { outcome: 'answered', took_ms: took_ms * 10, retry_after_ms: null }
    const timeout = fault.kind === 'first_event_timeout'
    return { outcome: fault.kind, took_ms: timeout ? 10_000 : took_ms / 10, retry_after_ms: fault.retry_after_ms ?? null }
  }
}
interface Begun {
  readonly asking: Asking
  readonly at_ms: number
  readonly tries: Try[]
}

/** `tenant-9` serves the public. */
function callerOf(tenant: string): Caller {
  const base = { created_at: 0, limits: [] as const, zones: null }
  return {
    tenant: {
      ...base,
      ...TENANT_DEFAULTS,
      ...{ id: tenant, name: tenant, audience: tenant === 'tenant-9' ? 'public' : 'internal', status: 'active', locale: 'en' },
      ...{
        time_zone: 'Asia/Shanghai',
        zones: ['private', 'domestic'],
        on_client_abort: 'cancel',
        on_limits_away: 'closed',
        credit_line_nano: 0n,
      },
    },
    project: { ...base, id: 'p', tenant, name: 'p' },
    key: {
      ...base,
      ...{ id: 'k', tenant, project: 'p', name: 'k', hash: '', last4: '', scopes: [], models: null, expires_at: null, revoked_at: null },
    },
    routing: null,
  }
}

const within = ({ from_minute, to_minute }: { from_minute: number; to_minute: number }, at_ms: number): boolean =>
  at_ms >= START_MS + from_minute * MINUTE_MS && at_ms < START_MS + to_minute * MINUTE_MS

describe('an hour of faults', () => {
  const seed = faultSeed()
  let hour: Hour

  beforeAll(() => {
    const { config_dir } = writeConfiguration('http://127.0.0.1:9', { models: MODELS, routes: ROUTES })
    const loaded = loadConfiguration({ config_dir, env: {}, providers: [...PROVIDERS.values()] })
    if (!loaded.ok) throw new Error(JSON.stringify(loaded.issues))
    const classifier = createDomainClassifier(readFileSync(join(REPO_ROOT, 'src/routing/domain-weights.bin')))
    hour = new Hour(seed, buildSnapshot(loaded.configuration), classifier).run()
  })

  it('answers every request once', () => {
    expect(hour.ended).toHaveLength(REQUESTS)
  })

  it('makes no storm: second tries are at most a tenth of the requests, in the hour and in each minute', () => {
    const retries = hour.ended.flatMap(({ tries }) => tries.slice(1))
    expect(retries.length).toBeGreaterThan(0)
    expect(retries.length * 100).toBeLessThanOrEqual(REQUESTS * RETRY_PERCENT)
    for (let minute = 0; minute < 60; minute += 1) {
      const of = { from_minute: minute, to_minute: minute + 1 }
      const requests = hour.ended.filter(({ at_ms }) => within(of, at_ms)).length
      const tried = retries.filter(({ at_ms }) => within(of, at_ms)).length
      // A minute of the clock may touch two sliding ones.
      expect(tried).toBeLessThanOrEqual(2 * Math.max(RETRY_FLOOR, Math.ceil((requests * 1.5 * RETRY_PERCENT) / 100)))
    }
    expect(hour.ended.every(({ tries }) => tries.length <= MAX_ATTEMPTS)).toBe(true)
  })

  it('leaves endpoints that fail alone: few tries of an outage meet it', () => {
    for (const { endpoints, from_minute, to_minute, kind } of FAULTS) {
      if (kind === 'slow' || kind === 'rate') continue
      for (const endpoint of endpoints) {
        const met = hour.ended
          .flatMap(({ tries }) => tries)
          .filter((one) => one.endpoint === endpoint && one.outcome === kind && within({ from_minute, to_minute }, one.at_ms))
        // Ten to open, those that were under way, and a probe after each cool-down.
        const running = kind === 'first_event_timeout' ? 100 : 10
        expect(met.length).toBeLessThanOrEqual(BREAKER_RULES.failures_to_open + running + 8)
      }
    }
  })

  it('comes back not before an endpoint that limits its rate wants it, save for tries that were under way', () => {
    const tries = hour.ended
      .flatMap((one) => one.tries)
      .filter(({ endpoint }) => endpoint === 'mid-1')
      .toSorted((a, b) => a.at_ms - b.at_ms)
    const limited = tries.filter(({ outcome }) => outcome === 'rate')
    expect(limited.length).toBeGreaterThan(0)
    for (const { at_ms } of limited) {
      const early = tries.filter((one) => one.at_ms > at_ms + 100 && one.at_ms < at_ms + 20_000)
      expect(early).toEqual([])
    }
  })

  it('starves nobody: but for the minutes in which nothing works, every tenant has nearly all of its answers', () => {
    const shares = new Map<string, number>()
    for (const tenant of new Set(hour.ended.map((one) => one.tenant))) {
      const own = hour.ended.filter((one) => one.tenant === tenant && !within(OUTAGE, one.at_ms))
      shares.set(tenant, own.filter(({ model }) => model !== null).length / own.length)
    }
    expect(shares.size).toBe(10)
    for (const share of shares.values()) expect(share).toBeGreaterThan(0.97)
    const values = [...shares.values()]
    expect(Math.max(...values) - Math.min(...values)).toBeLessThan(0.03)
  })

  it('goes on without a pause when everything is back', () => {
    const after = hour.ended.filter(({ at_ms }) => within({ from_minute: OUTAGE.to_minute, to_minute: 60 }, at_ms))
    expect(after.length).toBeGreaterThan(0)
    expect(after.every(({ model }) => model !== null)).toBe(true)
  })

  it('spreads conversations by weight, and gives the canary its share, while all is calm', () => {
    const calm = hour.ended.filter(({ at_ms, asked, tenant }) => within(CALM, at_ms) && asked === 'auto' && tenant !== 'tenant-9')
    const models = new Map(calm.filter(({ model }) => model !== 'doctor').map(({ conversation, model }) => [conversation, model]))
    const share = (name: string): number => [...models.values()].filter((model) => model === name).length / models.size
    const close = (found: number, expected: number): void => {
      expect(Math.abs(found - expected)).toBeLessThan(5 * Math.sqrt((expected * (1 - expected)) / models.size))
    }
    close(share('fresh'), 0.05)
    close(share('big'), 0.95 * 0.75)
    close(share('mid'), 0.95 * 0.25)
    const ends = new Map(calm.filter(({ model }) => model === 'big').map(({ conversation, endpoint }) => [conversation, endpoint]))
    const first = [...ends.values()].filter((endpoint) => endpoint === 'big-1').length / ends.size
    expect(Math.abs(first - 0.75)).toBeLessThan(5 * Math.sqrt((0.75 * 0.25) / ends.size))
    expect([...ends.values()]).not.toContain('big-spare')
  })

  it('brings each conversation back to where it was before the faults', () => {
    const place = (period: typeof CALM): Map<string, string> =>
      new Map(
        hour.ended
          .filter(({ at_ms, asked, tries }) => within(period, at_ms) && asked === 'auto' && tries.length === 1)
          .map(({ conversation, model, endpoint }) => [conversation, `${model} ${endpoint}`]),
      )
    const before = place(CALM)
    const both = [...place(CALM_AGAIN)].filter(([conversation]) => before.has(conversation))
    expect(both.length).toBeGreaterThan(100)
    expect(both.filter(([conversation, now]) => before.get(conversation) !== now)).toEqual([])
  })

  it('sends the public to filed endpoints alone, whatever fails', () => {
    const tries = hour.ended.filter(({ tenant }) => tenant === 'tenant-9').flatMap((one) => one.tries)
    expect(tries.length).toBeGreaterThan(500)
    expect(tries.filter(({ endpoint }) => endpoint === 'mid-2' || endpoint === 'doctor-1')).toEqual([])
  })

  it('sends health to the vertical model while it works, and to general ones while it does not', () => {
    const ill = hour.ended.filter(({ conversation, tenant }) => conversation.includes(ILL) && tenant !== 'tenant-9')
    expect(ill.filter(({ at_ms }) => within(CALM, at_ms)).every(({ model }) => model === 'doctor')).toBe(true)
    const during = ill.filter(({ at_ms }) => within({ from_minute: 8.5, to_minute: 14 }, at_ms) && !within(OUTAGE, at_ms))
    expect(during.length).toBeGreaterThan(50)
    expect(during.every(({ model }) => model === 'big' || model === 'mid' || model === 'fresh')).toBe(true)
  })

  it('keeps requests that want a quick answer away from what has become slow', () => {
    const quick = hour.ended.filter(({ asked, at_ms }) => asked === 'quick' && within({ from_minute: 26, to_minute: 30 }, at_ms))
    expect(quick.length).toBeGreaterThan(20)
    expect(quick.filter(({ endpoint }) => endpoint === 'big-2').length).toBeLessThan(quick.length / 5)
  })
})
