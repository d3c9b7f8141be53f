import { assert } from '../../base/assert.ts'
import type { HoldReceipt } from '../../money/event.ts'
import type { PaymentPart } from '../../money/grant.ts'
import { bucketOf, LimitsUnavailable, type SettleOutcome } from '../cluster-ports.ts'
import { leastAmount, needOf } from '../memory/needs.ts'
import { blockedRefusal, refusalOf, shortOfMoney } from '../memory/refusals.ts'
import type { HoldRefusal, HoldRequest, HoldResult, SettleRequest } from '../ports.ts'
import type { BucketScripts } from './bucket-scripts.ts'
import type { Doubt, Doubts } from './doubts.ts'
import { fixedOf, limitsText } from './hold-texts.ts'
import { counterNames, countersText, windowWords } from './keys.ts'
import type { Word } from './link.ts'
import type { OwnHold, OwnHolds } from './own-holds.ts'
import { amountOf, begunOf, listOf, numberOf, partsOf, receiptOf, type Reply, textOf, textsOf, unitLetter } from './replies.ts'
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
    const { id, tenant, rules } = request
    this.#doubts.reclaim(id)
    const bucket = bucketOf(tenant)
    const counters = countersText(rules)
    const { meta, blocked, leases, tenants, account, hold, counter } = this.#scripts.keys.of(bucket)
    const keys = [meta, blocked, leases, tenants, account(tenant), hold(id), ...counterNames(counters).map(counter)] as const
    const context = request.context === undefined ? '' : JSON.stringify(request.context)
    try {
      const reply = await this.#scripts.runOpen(bucket, 'hold', keys, holdWords(request, context, counters))
      return this.#answered(request, { bucket, counters, context }, reply)
    } catch (error) {
      if (error instanceof LimitsUnavailable && error.kind === 'unknown') this.#doubts.add({ id, tenant, counters })
      throw error
    }
  }

  async settle(request: SettleRequest): Promise<SettleOutcome> {
    checkAmounts(request.amount_nano, ...[...request.parts, ...(request.replaces ?? [])].map(({ amount }) => amount))
    const { id, swept, orphan } = request
    // Whoever closes it for another does not end it here: the request may be running all the same, and then this changes nothing.
    if (swept === true || orphan === true) {
      const outcome = await this.#settle(request)
      if (outcome.state === 'settled') this.#own.closedForAnother(id)
      return outcome
    }
    this.#own.turn(id, 'settling')
    try {
      const outcome = await this.#settle(request)
      this.#own.forget(id)
      return outcome
    } catch (error) {
      this.#own.turn(id, 'unsettled')
      throw error
    }
  }

  async #settle(request: SettleRequest): Promise<SettleOutcome> {
    const { id, tenant } = request
    const reply = await this.#scripts.runOnHold(
      'settle',
      { id, tenant, counters: this.#own.counters(id) },
      ({ meta, leases, tenants, account, hold, usage }) => [meta, leases, tenants, account(tenant), hold(id), usage],
      settleWords(request, this.#stream_cap),
    )
    return outcomeOf(reply)
  }

  /** One that fails is tried again until it has worked. @throws LimitsUnavailable all the same */
  async release(id: string, tenant: string): Promise<void> {
    const own = this.#own.get(id)
    if (own !== undefined && own.receipt.tenant !== tenant) return
    const doubt = { id, tenant, counters: this.#own.counters(id) }
    this.#own.turn(id, 'releasing')
    try {
      await this.giveBack(doubt)
    } catch (error) {
      if (error instanceof LimitsUnavailable) this.#doubts.add(doubt)
      throw error
    } finally {
      this.#own.forget(id)
    }
  }

  /** Releases a hold that this process may never have had. */
  async giveBack(doubt: Doubt): Promise<void> {
    const { id, tenant } = doubt
    await this.#scripts.runOnHold('release', doubt, ({ meta, leases, account, hold }) => [meta, leases, account(tenant), hold(id)], [])
  }

  #answered(request: HoldRequest, place: Pick<OwnHold, 'bucket' | 'counters' | 'context'>, reply: Reply): HoldResult {
    const [answer, rate_values, ...details] = reply
    const now_ms = numberOf(details.pop())
    const rates = ratesOf(request.rules, listOf(rate_values), now_ms)
    const { rules, credit_line_nano, lease_ms } = request
    const own = (receipt: HoldReceipt, ends: readonly string[]): OwnHold => {
      return { ...place, rules, ends, credit_line_nano, lease_ms, receipt, checkpoint: '', phase: 'open' }
    }
    if (answer === 'held') {
      const ends = textsOf(details[2])
      const receipt = newReceipt(request, details, ends, now_ms)
      this.#own.add(own(receipt, ends))
      return { ok: true, receipt, rates }
    }
    if (answer !== 'known') return { ok: false, refusal: refusalFrom(request, textOf(answer), details, now_ms), rates }
    const [known, state] = details
    const receipt = receiptOf(request.id, known)
    const is_open = state === 'H' || state === 'X'
    if (is_open && this.#own.get(request.id) === undefined) this.#own.add(own(receipt, textsOf(listOf(known)[7])))
    return { ok: true, receipt, rates }
  }
}

/** The receipt of a hold that has just been made. */
function newReceipt(request: HoldRequest, [amount, parts]: Reply, ends: readonly string[], now_ms: number): HoldReceipt {
  const { id, tenant, project, key, model, tokens, lease_ms, rules } = request
  const times = { admitted_at: now_ms, expires_at: now_ms + lease_ms }
  const receipt = { v: 1, id, tenant, project, key, model, ...times, tokens, amount_nano: amountOf(amount), parts: partsOf(parts) } as const
  const { begun } = fixedOf(request, rules)
  return begun === undefined ? receipt : { ...receipt, begun: begunOf(begun, ends) }
}

/** @throws RangeError for an amount that is out of all proportion */
function checkAmounts(...amounts: readonly bigint[]): void {
  for (const amount of amounts) if (amount > MAX_AMOUNT || amount < -MAX_AMOUNT) throw new RangeError('an amount is beyond 2^60')
}

/** In the order of `scripts/hold.lua`. */
function holdWords(request: HoldRequest, context: string, counters: string): readonly Word[] {
  const { id, tenant, key, model, lease_ms, tokens, grant_tokens, minimum_tokens, amount_nano, credit_line_nano, rules } = request
  const words: Word[] = [id, tenant, JSON.stringify(fixedOf(request, rules)), key, model, lease_ms, tokens, grant_tokens, minimum_tokens]
  words.push(`${amount_nano}`, `${leastAmount(request)}`, `${credit_line_nano}`, counters, limitsText(rules), context)
  for (const rule of rules) words.push(`${rule.limit}`, ...windowWords(rule))
  return words
}

/** In the order of `scripts/settle.lua`, behind the hold's own words. */
function settleWords(request: SettleRequest, stream_cap: number): readonly Word[] {
  const { admitted_at, tokens, amount_nano, parts, swept, orphan, replaces, event } = request
  const closer = swept === true ? 'swept' : orphan === true ? 'orphan' : ''
  const words: Word[] = [admitted_at, tokens, `${amount_nano}`, closer, event?.body ?? '', event?.ref ?? '', stream_cap]
  words.push(...partWords(parts), ...(replaces === undefined ? [-1] : partWords(replaces)))
  return words
}

function partWords(parts: readonly PaymentPart[]): readonly Word[] {
  return [parts.length, ...parts.flatMap(({ grant, unit, amount }) => [grant, unitLetter(unit), `${amount}`])]
}

function outcomeOf([state, epoch, appended, ref, replaced]: Reply): SettleOutcome {
  const name = textOf(state)
  assert(name === 'settled' || name === 'late' || name === 'duplicate' || name === 'expired', 'a settle ended in no known state')
  return {
    state: name,
    epoch: epoch === '' ? null : numberOf(epoch),
    appended: appended === 1,
    ref: ref === '' ? null : textOf(ref),
    replaced: replaced === 1,
  }
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
