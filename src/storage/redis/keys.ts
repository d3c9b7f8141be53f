import type { LimitKind, LimitRule } from '../ports.ts'
import { BUCKETS } from '../cluster-ports.ts'

/** Keys of one bucket. All have its hash tag, so that they are on one node and a script may use them together. */
export interface BucketKeys {
  readonly meta: string
  readonly blocked: string
  readonly leases: string
  readonly tenants: string
  readonly usage: string
  readonly account: (tenant: string) => string
  readonly hold: (id: string) => string
  /** `name` as {@link counterName} gives it. */
  readonly counter: (name: string) => string
}

/** Keys of every bucket, all under one prefix. */
export class Keys {
  readonly #prefix: string
  readonly #buckets: readonly BucketKeys[]

  constructor(prefix: string) {
    this.#prefix = prefix
    this.#buckets = Array.from({ length: BUCKETS }, (_, bucket) => bucketKeys(`${prefix}:{b${bucket}}:`))
  }

  /** @throws RangeError for a number that is no bucket's */
  of(bucket: number): BucketKeys {
    const keys = this.#buckets[bucket]
    if (keys === undefined) throw new RangeError(`there is no bucket ${bucket}`)
    return keys
  }

  /** A pattern of SCAN for the keys of all buckets. */
  get pattern(): string {
    return `${this.#prefix}:{b*}:*`
  }

  /** The bucket that a key belongs to, or null. */
  bucketOfKey(key: string): number | null {
    const [, bucket] = /^\{b(\d{1,3})\}:/.exec(key.slice(this.#prefix.length + 1)) ?? []
    return bucket === undefined || !key.startsWith(`${this.#prefix}:`) ? null : Number(bucket)
  }
}

function bucketKeys(start: string): BucketKeys {
  return {
    meta: `${start}meta`,
    blocked: `${start}blocked`,
    leases: `${start}leases`,
    tenants: `${start}tenants`,
    usage: `${start}usage`,
    account: (tenant) => `${start}a:${tenant}`,
    hold: (id) => `${start}h:${id}`,
    counter: (name) => `${start}c:${name}`,
  }
}

const KIND_LETTERS: Readonly<Record<LimitKind, string>> = {
  requests_per_minute: 'r',
  tokens_per_minute: 't',
  concurrency: 'c',
  requests_window: 'R',
  tokens_window: 'T',
  amount_window: 'A',
  budget: 'B',
}
const WINDOW_LETTERS = { '5h': '5', day: 'd', week: 'w', month: 'm' } as const
const SCOPE_LETTERS = { key: 'k', project: 'p', tenant: 't' } as const

/** The kinds of limits, one letter each, as scripts know them (`scripts/lib/kinds.lua`). */
export function kindLetters(rules: readonly LimitRule[]): string {
  return rules.map(({ kind }) => KIND_LETTERS[kind]).join('')
}

/** A counter's name within its bucket: kind, window and scope, one letter each, then whose it is and for which model. */
export function counterName(rule: LimitRule): string {
  const window = rule.window === null ? '-' : WINDOW_LETTERS[rule.window.name]
  const letters = KIND_LETTERS[rule.kind] + window + SCOPE_LETTERS[rule.scope]
  const model = rule.model === null ? '' : `:${escaped(rule.model)}`
  return `${letters}:${escaped(rule.scope_id)}${model}`
}

/** The counters of a hold as scripts know them: a line of their kinds, then a line with each one's name; empty without any. */
export function countersText(rules: readonly LimitRule[]): string {
  return rules.length === 0 ? '' : [kindLetters(rules), ...rules.map(counterName)].join('\n')
}

/** The names in a text of {@link countersText}. */
export function counterNames(counters: string): readonly string[] {
  return counters === '' ? [] : counters.split('\n').slice(1)
}

/** The end of a rule's window and of the next one, as scripts ask for them: `-` where there is none, `5` for five hours. */
export function windowWords({ kind, window }: LimitRule): readonly [string, string] {
  if (kind === 'requests_per_minute' || kind === 'tokens_per_minute' || kind === 'concurrency') return ['', '']
  if (window === null) return ['-', '-']
  return window.name === '5h' ? ['5', '5'] : [String(window.end_ms), String(window.next_end_ms)]
}

/** Whether a counter is a token bucket. */
export function isRate({ kind }: LimitRule): boolean {
  return kind === 'requests_per_minute' || kind === 'tokens_per_minute'
}

function escaped(text: string): string {
  return text.replaceAll('%', '%25').replaceAll(':', '%3A')
}

/** The slot of a key of a Redis Cluster: CRC-16/XMODEM of its hash tag, modulo 16384. */
export function slotOf(key: string): number {
  const open = key.indexOf('{')
  const close = key.indexOf('}', open + 1)
  const hashed = open === -1 || close <= open + 1 ? key : key.slice(open + 1, close)
  let crc = 0
  for (const byte of Buffer.from(hashed)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit += 1) crc = (crc & 0x8000) === 0 ? (crc << 1) & 0xffff : ((crc << 1) ^ 0x1021) & 0xffff
  }
  return crc % 16_384
}
