import { assert } from '../../base/assert.ts'
import { encodeCheckpointRow } from '../../money/event-json.ts'
import { bucketOf, LimitsUnavailable } from '../cluster-ports.ts'
import { refusalOf, shortOfMoney } from '../memory/refusals.ts'
import type { ExtendRequest, ExtendResult, HoldRefusal } from '../ports.ts'
import type { BucketScripts } from './bucket-scripts.ts'
import { UnknownVersion } from './failures.ts'
import { counterNames } from './keys.ts'
import type { Word } from './link.ts'
import type { OwnHolds } from './own-holds.ts'
import { amountOf, listOf, numberOf, receiptOf, type Reply, textOf } from './replies.ts'
import { slicesOf } from './slices.ts'
import { roomOf } from './standing.ts'

/** So many share a script, which holds everybody else up for as long as it runs. */
const REQUESTS_PER_SCRIPT = 100

interface Extension {
  readonly request: ExtendRequest
  /** JSON, or empty: what is kept already stays. */
  readonly checkpoint: string
  readonly context: string
  readonly counters: string
  result: ExtendResult | null
}

/** Renewals and extensions of holds: one script for each bucket, all of them on their way at once. */
export class Extensions {
  readonly #scripts: BucketScripts
  readonly #own: OwnHolds
  readonly #onError: (error: Error) => void

  constructor(scripts: BucketScripts, own: OwnHolds, onError: (error: Error) => void) {
    this.#scripts = scripts
    this.#own = own
    this.#onError = onError
  }

  async extend(requests: readonly ExtendRequest[]): Promise<readonly ExtendResult[]> {
    const extensions = requests.map((request) => this.#extension(request))
    const asked = [...Map.groupBy(extensions, ({ request }) => bucketOf(request.tenant))].flatMap(([bucket, alike]) =>
      slicesOf(alike, REQUESTS_PER_SCRIPT).map((slice) => this.#extendSlice(bucket, slice)),
    )
    const failures = (await Promise.allSettled(asked)).flatMap((answer) => (answer.status === 'rejected' ? [answer.reason as Error] : []))
    const results = extensions.flatMap(({ result }) => result ?? [])
    const [first] = failures.toSorted((a, b) => Number(a instanceof LimitsUnavailable) - Number(b instanceof LimitsUnavailable))
    // A bucket that is closed must not keep others from being renewed.
    if (first !== undefined && (results.length === 0 || !(first instanceof LimitsUnavailable))) throw first
    for (const failure of failures) this.#onError(failure)
    return results
  }

  #extension(request: ExtendRequest): Extension {
    const { id, checkpoint, context, lease_ms } = request
    const texts = {
      checkpoint: checkpoint === undefined ? '' : encodeCheckpointRow(checkpoint),
      context: context === undefined ? '' : JSON.stringify(context),
    }
    const own = this.#own.get(id)
    if (own !== undefined) {
      own.lease_ms = lease_ms
      if (texts.checkpoint !== '') own.checkpoint = texts.checkpoint
      if (texts.context !== '') own.context = texts.context
    }
    return { request, ...texts, counters: this.#own.counters(id), result: null }
  }

  /** Holds whose counters are not known here are asked for once more, with the names that the first answer brought. */
  async #extendSlice(bucket: number, slice: readonly Extension[]): Promise<void> {
    const again: Extension[] = []
    const replies = await this.#ask(bucket, slice)
    for (const [index, extension] of slice.entries()) {
      const reply = listOf(replies[index])
      if (reply[0] === 'keys') again.push({ ...extension, counters: textOf(reply[1]) })
      else this.#answered(extension, reply)
    }
    if (again.length === 0) return
    const answers = await this.#ask(bucket, again)
    for (const [index, extension] of again.entries()) {
      const original = slice.find(({ request }) => request === extension.request)
      assert(original !== undefined, 'an extension without its request')
      this.#answered(original, listOf(answers[index]))
    }
  }

  #ask(bucket: number, slice: readonly Extension[]): Promise<Reply> {
    const { meta, leases, account, hold, counter } = this.#scripts.keys.of(bucket)
    const keys: [string, ...string[]] = [meta, leases]
    const words: Word[] = [slice.length]
    for (const { request, checkpoint, context, counters } of slice) {
      const { id, tenant, tokens, amount_nano, lease_ms } = request
      keys.push(account(tenant), hold(id), ...counterNames(counters).map(counter))
      words.push(id, tenant, counters, tokens, `${amount_nano}`, lease_ms, checkpoint, context)
    }
    return this.#scripts.runOpen(bucket, 'extend', keys, words)
  }

  #answered(extension: Extension, reply: Reply): void {
    const { id } = extension.request
    const [answer, ...details] = reply
    if (answer === 'unreadable') throw new UnknownVersion(textOf(details[0]).replace(/^WEIR[A-Z]+ /, ''))
    if (answer === 'lapsed') extension.result = { id, state: 'lapsed' }
    else if (answer === 'extended') {
      const receipt = receiptOf(id, details[0])
      const own = this.#own.get(id)
      if (own !== undefined) own.receipt = receipt
      extension.result = { id, state: 'extended', receipt }
    } else extension.result = { id, state: 'refused', refusal: this.#refusal(id, textOf(answer), details) }
  }

  /** The rule is known to the process that made the hold; another one is told no rule. */
  #refusal(id: string, answer: string, details: Reply): HoldRefusal {
    if (answer === 'short') return shortOfMoney(amountOf(details[0]), amountOf(details[1]), amountOf(details[2]))
    assert(answer === 'refused', 'an extension ended in no known way')
    const [index, figures, more, now] = details
    const needed = amountOf(more)
    const rule = this.#own.get(id)?.rules[numberOf(index) - 1]
    if (rule !== undefined) return refusalOf(rule, roomOf(rule, figures, needed, numberOf(now)), needed)
    return { reason: 'window', rule: null, available: 0n, held: amountOf(listOf(figures)[1]), needed, frees_at_ms: null }
  }
}
