import { burnOrder } from '../memory/account.ts'
import { type AccountCut, bucketOf, type BucketCut, type TenantOf } from '../cluster-ports.ts'
import type { BalanceView, GrantTerms, LimitRule, LimitState } from '../ports.ts'
import type { BucketScripts } from './bucket-scripts.ts'
import { counterName, kindLetters } from './keys.ts'
import { amountOf, fieldsOf, listOf, numberOf, textOf, textsOf } from './replies.ts'
import { standingOf } from './standing.ts'

/** Reads what admission believes. */
export class Views {
  readonly #scripts: BucketScripts
  readonly #tenantOf: TenantOf

  constructor(scripts: BucketScripts, tenantOf: TenantOf) {
    this.#scripts = scripts
    this.#tenantOf = tenantOf
  }

  async balance(tenant: string): Promise<BalanceView> {
    const bucket = bucketOf(tenant)
    const { meta, account } = this.#scripts.keys.of(bucket)
    const [, now, fields] = await this.#scripts.runOpen(bucket, 'balance', [meta, account(tenant)], [])
    return accountOf(fieldsOf(fields), numberOf(now)).view
  }

  async appliedSeq(tenant: string): Promise<number> {
    const bucket = bucketOf(tenant)
    const { meta, account } = this.#scripts.keys.of(bucket)
    const [, seq] = await this.#scripts.runOpen(bucket, 'applied', [meta, account(tenant)], [])
    return numberOf(seq)
  }

  /** One script for each bucket. A limit of nobody is one that nobody has used. */
  async states(rules: readonly LimitRule[]): Promise<readonly LimitState[]> {
    const owners = await this.#owners(rules)
    const placed = rules.map((rule, index) => ({ rule, index, tenant: owners[index] ?? null }))
    const states: LimitState[] = []
    const alike = [...Map.groupBy(placed, ({ tenant }) => bucketOf(tenant ?? ''))]
    await Promise.all(
      alike.map(async ([bucket, some]) => {
        const { meta, counter } = this.#scripts.keys.of(bucket)
        const keys = [meta, ...some.map(({ rule }) => counter(counterName(rule)))] as const
        const [, now, ...values] = await this.#scripts.runOpen(bucket, 'states', keys, [kindLetters(some.map(({ rule }) => rule))])
        for (const [at, { rule, index }] of some.entries()) states[index] = standingOf(rule, values[at], numberOf(now))
      }),
    )
    return states
  }

  async cut(bucket: number, tenants: readonly string[], rules: readonly LimitRule[]): Promise<BucketCut> {
    const { meta, leases, usage, account, counter } = this.#scripts.keys.of(bucket)
    const counters = rules.map((rule) => counter(counterName(rule)))
    const keys = [meta, leases, usage, ...tenants.map(account), ...counters] as const
    const reply = await this.#scripts.runOpen(bucket, 'cut', keys, [kindLetters(rules), tenants.length, ...tenants])
    const [, now, epoch, last_entry, holds, accounts, values] = reply
    const now_ms = numberOf(now)
    const cuts = listOf(accounts).map((fields, index) => [tenants[index] ?? '', accountOf(fieldsOf(fields), now_ms)] as const)
    return {
      epoch: numberOf(epoch),
      last_entry: last_entry === '' ? null : textOf(last_entry),
      accounts: new Map(cuts),
      holds: new Set(textsOf(holds)),
      states: rules.map((rule, index) => standingOf(rule, listOf(values)[index], now_ms)),
    }
  }

  /** Whose limits these are; asked once for each scope. */
  async #owners(rules: readonly LimitRule[]): Promise<readonly (string | null)[]> {
    const asked = new Map<string, Promise<string | null>>()
    return await Promise.all(
      rules.map(({ scope, scope_id }) => {
        const name = `${scope} ${scope_id}`
        const owner = asked.get(name) ?? (scope === 'tenant' ? Promise.resolve(scope_id) : this.#tenantOf(scope, scope_id))
        asked.set(name, owner)
        return owner
      }),
    )
  }
}

/** An account's fields as `scripts/lib/account.lua` has them. */
function accountOf(fields: ReadonlyMap<string, string>, now_ms: number): AccountCut {
  const figure = (name: string): bigint => amountOf(fields.get(name) ?? '0')
  const grants = [...fields]
    .filter(([name]) => name.startsWith('t:'))
    .map(([name, json]) => ({
      ...(JSON.parse(json) as GrantTerms),
      balance: figure(`b:${name.slice(2)}`),
      held: figure(`r:${name.slice(2)}`),
    }))
    .toSorted(burnOrder)
  const money = grants.filter(({ unit }) => unit === 'nano_cny')
  let available_nano = -figure('cu') - figure('ch')
  for (const { balance, held, expires_at } of money) {
    const free = balance - held
    // An expired grant pays nothing, but what it owes is still owed.
    if (free < 0n || expires_at === null || expires_at > now_ms) available_nano += free
  }
  const held_nano = money.reduce((sum, { held }) => sum + held, figure('ch'))
  const view = { available_nano, held_nano, open_holds: Number(fields.get('n') ?? 0), grants }
  return { view, applied_seq: Number(fields.get('seq') ?? 0) }
}
