import type { Redis } from 'ioredis'
import { type AccountBooks, type BucketFailures, type BucketState, type MeterBooks, ofEachBucket } from '../cluster-ports.ts'
import { burnOrder } from '../memory/account.ts'
import type { BucketScripts } from './bucket-scripts.ts'
import { UnknownVersion } from './failures.ts'
import { fixedOf, limitsText } from './hold-texts.ts'
import { counterName, counterNames } from './keys.ts'
import type { Word } from './link.ts'
import type { OwnHold, OwnHolds } from './own-holds.ts'
import { unitLetter } from './replies.ts'
import { slicesOf } from './slices.ts'
import { specialText, termsText } from './terms.ts'

const SCANNED_PER_STEP = 1000
/** Keys that one script deletes, holds that one registers, meters that one sets. */
const WIPED_PER_SCRIPT = 500
const REPORTED_PER_SCRIPT = 50
const METERS_PER_SCRIPT = 200
/** Accounts that are being set at one time. */
const ACCOUNTS_AT_ONCE = 100

/** A bucket's life: closed and wiped, filled with reports and books, opened. */
export class Epochs {
  readonly #scripts: BucketScripts
  readonly #own: OwnHolds

  constructor(scripts: BucketScripts, own: OwnHolds) {
    this.#scripts = scripts
    this.#own = own
  }

  state(buckets: readonly number[]): Promise<readonly BucketState[]> {
    return Promise.all(
      buckets.map(async (bucket) => {
        const { meta } = this.#scripts.keys.of(bucket)
        return stateOf(await this.#scripts.link.ask(meta, (client) => client.hgetall(meta)))
      }),
    )
  }

  async serverRuns(): Promise<(bucket: number) => string | null> {
    const runOf = await this.#scripts.link.serverRuns()
    return (bucket) => runOf(this.#scripts.keys.of(bucket).meta)
  }

  /** Each step may be cut short: begun again with the same epoch, it goes on where it was. */
  async beginEpoch(buckets: readonly number[], epoch: number): Promise<BucketFailures> {
    const metaOf = (bucket: number): string => this.#scripts.keys.of(bucket).meta
    const begun = await ofEachBucket(buckets, (bucket) => this.#scripts.runLife('begin', [metaOf(bucket)], [epoch]))
    const failures = new Map(begun.failures)
    const wiped = new Set([...begun.done].filter(([, is_to_be_wiped]) => is_to_be_wiped).map(([bucket]) => bucket))
    if (wiped.size === 0) return failures
    const failureAt = await this.#scripts.link.eachMaster((redis) => this.#wipe(redis, wiped, epoch))
    for (const bucket of wiped) {
      const failure = failureAt(metaOf(bucket))
      if (failure !== null) failures.set(bucket, failure)
    }
    const ready = [...wiped].filter((bucket) => !failures.has(bucket))
    const waiting = await ofEachBucket(ready, (bucket) => this.#scripts.runLife('await', [metaOf(bucket)], [epoch]))
    return new Map([...failures, ...waiting.failures])
  }

  async report(bucket: number, epoch: number, node: string): Promise<boolean> {
    for (const slice of slicesOf(this.#own.inBucket(bucket), REPORTED_PER_SCRIPT)) {
      if (!(await this.#report(bucket, epoch, '', slice))) return false
    }
    return await this.#report(bucket, epoch, node, [])
  }

  async fill(bucket: number, epoch: number, accounts: readonly AccountBooks[], meters: readonly MeterBooks[]): Promise<boolean> {
    for (const slice of slicesOf(accounts, ACCOUNTS_AT_ONCE)) {
      const filled = await Promise.all(slice.map((books) => this.#fillAccount(bucket, epoch, books)))
      if (filled.includes(false)) return false
    }
    for (const slice of slicesOf(meters, METERS_PER_SCRIPT)) {
      if (!(await this.#fillMeters(bucket, epoch, slice))) return false
    }
    // Without anything to fill, whether it could be filled is still asked.
    return await this.#fillMeters(bucket, epoch, [])
  }

  openBucket(bucket: number, epoch: number): Promise<boolean> {
    return this.#scripts.runLife('open', [this.#scripts.keys.of(bucket).meta], [epoch])
  }

  mark(bucket: number, epoch: number, marks: readonly [string, string]): Promise<boolean> {
    return this.#scripts.runLife('mark', [this.#scripts.keys.of(bucket).meta], [epoch, ...marks])
  }

  /** One pass over the keys of a server, for all buckets together. */
  async #wipe(redis: Redis, buckets: ReadonlySet<number>, epoch: number): Promise<void> {
    const { keys } = this.#scripts
    const found = new Map<number, string[]>([...buckets].map((bucket) => [bucket, []]))
    let cursor = '0'
    do {
      const [next, some] = await redis.scan(cursor, 'MATCH', keys.pattern, 'COUNT', SCANNED_PER_STEP)
      cursor = next
      for (const key of some) {
        const bucket = keys.bucketOfKey(key)
        if (bucket !== null && key !== keys.of(bucket).meta) found.get(bucket)?.push(key)
      }
      for (const [bucket, list] of found) {
        if (list.length >= WIPED_PER_SCRIPT) await this.#unlink(bucket, epoch, list.splice(0))
      }
    } while (cursor !== '0')
    for (const [bucket, list] of found) await this.#unlink(bucket, epoch, list)
  }

  async #unlink(bucket: number, epoch: number, found: readonly string[]): Promise<void> {
    for (const slice of slicesOf(found, WIPED_PER_SCRIPT)) {
      await this.#scripts.runLife('wipe', [this.#scripts.keys.of(bucket).meta, ...slice], [epoch])
    }
  }

  #report(bucket: number, epoch: number, node: string, holds: readonly OwnHold[]): Promise<boolean> {
    const { meta, leases, tenants, account, hold, counter } = this.#scripts.keys.of(bucket)
    const keys: [string, ...string[]] = [meta, leases, tenants]
    const words: Word[] = [epoch, node, holds.length]
    for (const own of holds) {
      keys.push(account(own.receipt.tenant), hold(own.receipt.id), ...counterNames(own.counters).map(counter))
      words.push(...reportWords(own))
    }
    return this.#scripts.runLife('report', keys, words)
  }

  #fillAccount(bucket: number, epoch: number, books: AccountBooks): Promise<boolean> {
    const { meta, tenants, account } = this.#scripts.keys.of(bucket)
    const words: Word[] = [epoch, books.tenant, books.applied_seq, `${books.credit_used_nano}`]
    for (const { terms, balance } of books.grants.toSorted((a, b) => burnOrder(a.terms, b.terms))) {
      words.push(terms.id, unitLetter(terms.unit), `${balance}`, termsText(terms), specialText(terms))
    }
    return this.#scripts.runLife('fill-account', [meta, tenants, account(books.tenant)], words)
  }

  #fillMeters(bucket: number, epoch: number, meters: readonly MeterBooks[]): Promise<boolean> {
    const { meta, counter } = this.#scripts.keys.of(bucket)
    const keys = [meta, ...meters.map(({ rule }) => counter(counterName(rule)))] as const
    return this.#scripts.runLife('fill-meters', keys, [epoch, ...meters.flatMap(({ end_ms, used }) => [end_ms ?? '-', `${used}`])])
  }
}

/** In the order of `scripts/report.lua`. */
function reportWords({ receipt, rules, counters, ends, credit_line_nano, lease_ms, context, checkpoint }: OwnHold): readonly Word[] {
  const { id, tenant, admitted_at, expires_at, tokens, amount_nano, parts } = receipt
  const words: Word[] = [
    id,
    tenant,
    JSON.stringify(fixedOf(receipt, rules)),
    admitted_at,
    expires_at,
    tokens,
    `${amount_nano}`,
    `${credit_line_nano}`,
  ]
  words.push(lease_ms, counters, limitsText(rules), context, checkpoint, parts.length)
  for (const { grant, unit, amount, weight_micro } of parts) words.push(grant, unitLetter(unit), `${amount}`, weight_micro ?? '')
  words.push(ends.length, ...ends)
  return words
}

/** What a bucket's hash says. One that is being wiped is as good as absent. */
function stateOf(fields: Readonly<Record<string, string>>): BucketState {
  const { v, state, epoch, run, mark, next_mark } = fields
  if (v === undefined) return { state: 'absent', epoch: null, run_id: null, reported: [], marks: [] }
  if (v !== '1') throw new UnknownVersion(`a bucket has version ${v}, which this release does not read`)
  const reported = Object.keys(fields)
    .filter((name) => name.startsWith('n:'))
    .map((name) => name.slice(2))
  const marks = [mark, next_mark].filter((one) => one !== undefined)
  return { state: state === 'open' || state === 'filling' ? state : 'absent', epoch: Number(epoch), run_id: run ?? null, reported, marks }
}
