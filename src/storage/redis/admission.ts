import { assert } from '../../base/assert.ts'
import type { PaymentPart } from '../../money/grant.ts'
import { bucketOf, LimitsUnavailable, type SettleOutcome } from '../cluster-ports.ts'
import { leastAmount, limitName, needOf } from '../memory/needs.ts'
import { blockedRefusal, refusalOf, shortOfMoney } from '../memory/refusals.ts'
import type { HoldRefusal, HoldRequest, HoldResult, LimitRule, SettleRequest } from '../ports.ts'
import type { BucketScripts } from './bucket-scripts.ts'
import type { Doubt, Doubts } from './doubts.ts'
import { counterName } from './keys.ts'
import type { Word } from './link.ts'
import type { OwnHolds } from './own-holds.ts'
import { amountOf, listOf, numberOf, receiptOf, type Reply, textOf, textsOf, unitLetter } from './replies.ts'
import { ratesOf, roomOf } from './standing.ts'

/** Sums of them are stored in 64 bits, so no single amount comes near that. */
const MAX_AMOUNT = 2n ** 60n

/** Holds and what closes them. Each call is one command to the server. */
export class Admission {
  readonly #scripts: BucketScripts
  readonly #own: OwnHolds
  readonly #doubts: Doubts
  readonly #stream_cap: number

  constructor(scripts: BucketScripts, own: OwnHolds, doubts: Doubts, stream_cap: number) {
    this.#scripts = scripts
    this.#own = own
    this.#doubts = doubts
    this.#stream_cap = stream_cap
  }

  async hold(request: HoldRequest): Promise<HoldResult> {
    checkAmounts(request.amount_nano, request.minimum_nano, request.credit_line_nano)
    this.#doubts.reclaim(request.id)
    const bucket = bucketOf(request.tenant)
    const counters = request.rules.map(counterName)
    const { meta, blocked, leases, tenants, account, hold, counter } = this.#scripts.keys.of(bucket)
    const keys = [meta, blocked, leases, tenants, account(request.tenant), hold(request.id), ...counters.map(counter)] as const
    const context = request.context === undefined ? '' : JSON.stringify(request.context)
    try {
      const reply = await this.#scripts.runOpen(bucket, 'hold', keys, holdWords(request, context, counters))
      return this.#held(request, bucket, counters, context, reply)
    } catch (error) {
      if (error instanceof LimitsUnavailable && error.kind === 'unknown')
        this.#doubts.add({ id: request.id, tenant: request.tenant, counters })
      throw error
    }
  }

  async settle(request: SettleRequest): Promise<SettleOutcome> {
    checkAmounts(request.amount_nano, ...[...request.parts, ...(request.replaces ?? [])].map(({ amount }) => amount))
    const { id } = request
    // The charge of a sweep is nobody's own: the request may be running all the same, and then it changes nothing.
    if (request.swept === true) {
      const outcome = await this.#settle(request)
      if (outcome.state === 'settled') this.#own.closedBySweep(id)
      return outcome
    }
    this.#own.closing(id)
    try {
      return await this.#settle(request)
    } finally {
      this.#own.forget(id)
    }
  }

  async #settle(request: SettleRequest): Promise<SettleOutcome> {
    const { id, tenant } = request
    const reply = await this.#scripts.runOnHold(
      bucketOf(tenant),
      'settle',
      ({ meta, leases, tenants, account, hold, usage }) => [meta, leases, tenants, account(tenant), hold(id), usage],
      this.#own.counters(id),
      settleWords(request, this.#stream_cap),
    )
    return outcomeOf(reply)
  }

  async release(id: string, tenant: string): Promise<void> {
    const own = this.#own.get(id)
    if (own !== undefined && own.receipt.tenant !== tenant) return
    this.#own.closing(id)
    try {
      await this.giveBack({ id, tenant, counters: this.#own.counters(id) })
    } finally {
      this.#own.forget(id)
    }
  }

  /** Releases a hold that this process may never have had. */
  async giveBack({ id, tenant, counters }: Doubt): Promise<void> {
    const words = [id, tenant]
    await this.#scripts.runOnHold(
      bucketOf(tenant),
      'release',
      ({ meta, leases, account, hold }) => [meta, leases, account(tenant), hold(id)],
      counters,
      words,
    )
  }

  #held(request: HoldRequest, bucket: number, counters: readonly string[], context: string, reply: Reply): HoldResult {
    const [answer, rate_values, ...rest] = reply
    const now_ms = numberOf(rest.pop())
    const rates = ratesOf(request.rules, listOf(rate_values), now_ms)
    if (answer !== 'held' && answer !== 'known') return { ok: false, refusal: refusalFrom(request, textOf(answer), rest, now_ms), rates }
    const receipt = receiptOf(request.id, rest[0])
    const is_open = answer === 'held' || rest[2] === 'H' || rest[2] === 'X'
    if (is_open && this.#own.get(request.id) === undefined) {
      const ends = textsOf(rest[1])
      const shares = request.rules.map((rule, index) => ({ rule, counter: counters[index] ?? '', end: ends[index] ?? '' }))
      const { credit_line_nano, lease_ms } = request
      this.#own.add({ bucket, credit_line_nano, shares, lease_ms, receipt, context, checkpoint: '', closing: false })
    }
    return { ok: true, receipt, rates }
  }
}

/** @throws RangeError for an amount that is out of all proportion */
function checkAmounts(...amounts: readonly bigint[]): void {
  for (const amount of amounts) if (amount > MAX_AMOUNT || amount < -MAX_AMOUNT) throw new RangeError('an amount is beyond 2^60')
}

/** In the order of `scripts/hold.lua`. */
function holdWords(request: HoldRequest, context: string, counters: readonly string[]): readonly Word[] {
  const { id, tenant, project, key, model, lease_ms, tokens, grant_tokens, minimum_tokens, amount_nano, credit_line_nano, rules } = request
  const amounts = [`${amount_nano}`, `${leastAmount(request)}`, `${credit_line_nano}`]
  const words: Word[] = [id, tenant, project, key, model, lease_ms, tokens, grant_tokens, minimum_tokens, ...amounts, context]
  for (const [index, rule] of rules.entries()) words.push(...ruleWords(rule, counters[index] ?? ''))
  return words
}

function ruleWords(rule: LimitRule, counter: string): readonly Word[] {
  const { limit, window } = rule
  const begun = window?.name === '5h' ? limitName(rule) : ''
  return [counter, `${limit}`, window?.end_ms ?? '', window?.next_end_ms ?? '', begun]
}

/** In the order of `scripts/settle.lua`. */
function settleWords(request: SettleRequest, stream_cap: number): readonly Word[] {
  const { id, tenant, admitted_at, tokens, amount_nano, parts, swept, replaces, event } = request
  const words: Word[] = [id, tenant, admitted_at, tokens, `${amount_nano}`, swept === true ? '1' : '', event ?? '', stream_cap]
  words.push(...partWords(parts), ...(replaces === undefined ? [-1] : partWords(replaces)))
  return words
}

function partWords(parts: readonly PaymentPart[]): readonly Word[] {
  return [parts.length, ...parts.flatMap(({ grant, unit, amount }) => [grant, unitLetter(unit), `${amount}`])]
}

function outcomeOf([state, epoch, appended]: Reply): SettleOutcome {
  const name = textOf(state)
  assert(name === 'settled' || name === 'late' || name === 'duplicate' || name === 'expired', 'a settle ended in no known state')
  return { state: name, epoch: epoch === '' ? null : numberOf(epoch), appended: appended === 1 }
}

function refusalFrom(request: HoldRequest, answer: string, details: Reply, now_ms: number): HoldRefusal {
  const [first, second] = details
  if (answer === 'blocked') return blockedRefusal(first === 'key' ? 'key_revoked' : 'tenant_suspended')
  if (answer === 'short') return shortOfMoney(amountOf(first), amountOf(second), request.amount_nano)
  assert(answer === 'refused', 'a hold ended in no known way')
  const rule = request.rules[numberOf(first) - 1]
  assert(rule !== undefined, 'a hold was refused by a rule that it does not have')
  const room = roomOf(rule, second, needOf(rule, request.tokens, leastAmount(request)), now_ms)
  return refusalOf(rule, room, needOf(rule, request.tokens, request.amount_nano))
}
