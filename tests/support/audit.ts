import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { ServedRow } from '../../src/sandbox/tally.ts'
import type { Sighting } from './audit-clients.ts'
import { CHAT_MODEL, CHAT_PRICES, EMBEDDING_PRICES, LONG_ABOVE_TOKENS, LONG_CHAT_PRICES } from './fleet.ts'

/** What is read of an event, from its stored JSON. */
export interface AuditedEvent {
  readonly admitted_at: number
  readonly id: string
  readonly tenant: string
  readonly revision: number
  /** Another revision has taken its place. */
  readonly superseded: boolean
  readonly node: string
  readonly seq: number
  readonly model: string
  readonly status: string
  readonly tags: Readonly<Record<string, string>>
  readonly attempts: readonly unknown[]
  readonly tokens: {
    readonly input: number
    readonly cached_input: number
    readonly cache_write: number
    readonly output: number
    readonly reasoning: number
  }
  /** Decimal strings, as stored. */
  readonly amount_nano: string
  readonly parts: readonly AuditedPart[]
  readonly overrun_nano: string
  readonly hold: { readonly parts: readonly AuditedPart[] }
}
export interface AuditedPart {
  readonly grant: string
  readonly unit: string
  readonly amount: string
}

/** What one grant was given, and what is left of it. */
export interface AuditedGrant {
  readonly tenant: string
  readonly grant: string
  readonly unit: string
  readonly credited: bigint
  readonly left: bigint
}

/** What the data directory says, read straight from its tables. */
export interface Books {
  readonly events: readonly AuditedEvent[]
  /** Ids of `S` rows without `U` or `R`. */
  readonly open: readonly string[]
  /** Ids of `U` rows that are not in the ledger. */
  readonly unposted: readonly string[]
  readonly unbalanced: readonly string[]
  /** Sum over every account of the ledger, per unit: zero. */
  readonly sum_nano: bigint
  readonly grants: readonly AuditedGrant[]
  /** What is wrong with the numbers of events, in words. */
  readonly numbering: readonly string[]
}

export interface Evidence {
  readonly sightings: readonly Sighting[]
  readonly served: readonly ServedRow[]
  readonly books: Books
  /** Credit lines of tenants that have one, in nano-yuan. */
  readonly lines?: Readonly<Record<string, bigint>>
}

const MAX_FINDINGS = 20

/** Reads a data directory, also one that is in use: SQLite's readers see the last commit. */
export function readBooks(data_dir: string): Books {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { readOnly: true, timeout: 5000 })
  try {
    database.exec('BEGIN')
    const rows = (sql: string): Record<string, unknown>[] => {
      const statement = database.prepare(sql)
      statement.setReadBigInts(true)
      return statement.all()
    }
    const ids = (sql: string): string[] => rows(sql).map((row) => String(row['id']))
    const sum = (sql: string): bigint => rows(sql).reduce((total, row) => total + ((row['amount'] as bigint | null) ?? 0n), 0n)
    const events = rows('SELECT body, superseded FROM events').map((row) => ({
      ...(JSON.parse(String(row['body'])) as Omit<AuditedEvent, 'superseded'>),
      superseded: row['superseded'] !== 0n,
    }))
    const grants = rows(
      "SELECT e.owner, e.ref, e.unit, -SUM(CASE WHEN t.kind = 'usage' THEN 0 ELSE e.amount END) AS credited, -SUM(e.amount) AS left_over " +
        'FROM ledger_entries AS e JOIN ledger_transactions AS t ON t.id = e.transaction_id ' +
        "WHERE e.code IN ('wallet_liability', 'prepaid_grant', 'contract_commitment') GROUP BY e.owner, e.ref, e.unit",
    )
    return {
      events,
      numbering: numberingOf(events),
      open: ids(
        "SELECT id FROM journal AS s WHERE kind = 'S' AND NOT EXISTS (SELECT 1 FROM journal AS c WHERE c.id = s.id AND c.kind IN ('U', 'R'))",
      ),
      unposted: ids(
        "SELECT id FROM journal AS j WHERE kind = 'U' AND NOT EXISTS (SELECT 1 FROM events AS e WHERE e.id = j.id AND e.revision = j.revision)",
      ),
      unbalanced: ids('SELECT transaction_id AS id FROM ledger_entries GROUP BY transaction_id, unit HAVING SUM(amount) <> 0'),
      sum_nano: sum("SELECT SUM(amount) AS amount FROM ledger_entries WHERE unit = 'nano_cny'"),
      grants: grants.map((row) => ({
        tenant: String(row['owner']),
        grant: String(row['ref']),
        unit: String(row['unit']),
        credited: row['credited'] as bigint,
        left: row['left_over'] as bigint,
      })),
    }
  } finally {
    database.close()
  }
}

/** One journal numbers its events from 1 without a gap. */
export function numberingOf(events: readonly AuditedEvent[]): readonly string[] {
  const numbers = new Set(events.map((event) => event.seq))
  const last = Math.max(0, ...numbers)
  return numbers.size === events.length && last === events.length ? [] : [`numbered ${events.length} events up to ${last}`]
}

const pico = (cny: string): bigint => BigInt(cny.replace('.', ''))

/** The price of an event by the tests' own book and arithmetic: pico-yuan summed, rounded half up to nano-yuan once. */
export function priceOf(model: string, tokens: AuditedEvent['tokens']): bigint {
  const chat = tokens.output > LONG_ABOVE_TOKENS ? LONG_CHAT_PRICES : CHAT_PRICES
  const prices = model === CHAT_MODEL ? chat : EMBEDDING_PRICES
  const classes = [
    [tokens.input + tokens.cache_write, prices.input],
    [tokens.cached_input, prices.cached_input],
    [tokens.output, prices.output],
  ] as const
  return (classes.reduce((sum, [count, price]) => sum + BigInt(count) * pico(price), 0n) + 500n) / 1000n
}

/**
 * Holds what the clients saw and what the sandbox counted against the books, by the rules of the audit.
 * @returns one sentence per disagreement; none means that everything agrees
 */
export function audit(evidence: Evidence): readonly string[] {
  const findings = new Auditor(evidence).findings()
  return findings.length <= MAX_FINDINGS ? findings : [...findings.slice(0, MAX_FINDINGS), `and ${findings.length - MAX_FINDINGS} more`]
}

class Auditor {
  readonly #evidence: Evidence
  readonly #events = new Map<string, AuditedEvent>()
  readonly #byNumber = new Map<string, AuditedEvent>()
  readonly #served = new Map<string, ServedRow[]>()
  readonly #findings: string[] = []

  constructor(evidence: Evidence) {
    this.#evidence = evidence
    for (const row of evidence.served) this.#served.set(row.request_id, [...(this.#served.get(row.request_id) ?? []), row])
  }

  findings(): readonly string[] {
    this.#index()
    for (const event of this.#events.values()) this.#checkEvent(event)
    for (const sighting of this.#evidence.sightings) this.#checkSighting(sighting)
    for (const [id, rows] of this.#served) this.#checkServed(id, rows)
    this.#checkBooks()
    return this.#findings
  }

  #say(id: string | null, finding: string): void {
    this.#findings.push(`${id ?? 'a request without an id'}: ${finding}`)
  }

  #index(): void {
    for (const event of this.#evidence.books.events) {
      if (event.superseded) continue
      if (this.#events.has(event.id)) this.#say(event.id, 'has two events')
      this.#events.set(event.id, event)
      const n = event.tags['n'] ?? ''
      if (this.#byNumber.has(n)) this.#say(event.id, `the client's request ${n} has another event too`)
      this.#byNumber.set(n, event)
    }
  }

  /** The attempt that was billed: the last one on the event. */
  #billedRow(event: AuditedEvent): ServedRow | undefined {
    return this.#served.get(event.id)?.find((row) => row.attempt === event.attempts.length)
  }

  #checkEvent(event: AuditedEvent): void {
    const { id, tokens } = event
    const amount = BigInt(event.amount_nano)
    const price = priceOf(event.model, tokens)
    if (amount !== price) this.#say(id, `costs ${amount}, its tokens ${price}`)
    const prompt = tokens.input + tokens.cached_input + tokens.cache_write
    this.#checkParts(event, amount, BigInt(prompt + tokens.output))
    if (prompt + tokens.output === 0) return
    const row = this.#billedRow(event)
    if (row === undefined) return this.#say(id, 'is billed for an attempt that the sandbox never saw')
    if (tokens.output > row.sent_tokens) this.#say(id, `is billed ${tokens.output} tokens of output, sent were ${row.sent_tokens}`)
    if (prompt !== row.prompt_tokens) this.#say(id, `is billed ${prompt} tokens of prompt, the sandbox counted ${row.prompt_tokens}`)
    if (event.status === 'completed') this.#checkExact(event, row)
  }

  /** A request pays all or nothing; tokens pay first, as many as were held; money pays the rest, and what it had not held is the overrun. */
  #checkParts({ id, parts, hold, overrun_nano }: AuditedEvent, amount: bigint, used: bigint): void {
    if (unitSum(hold.parts, 'requests') > 0n) {
      if (parts.some(({ unit }) => unit !== 'requests') || unitSum(parts, 'requests') > 1n) this.#say(id, 'is paid by a request and more')
      return
    }
    const [covered, held] = [unitSum(parts, 'tokens'), unitSum(hold.parts, 'tokens')]
    if (covered !== (held < used ? held : used)) this.#say(id, `used ${used} tokens, of ${held} that were held ${covered} paid`)
    const due = used === 0n ? amount : (2n * amount * (used - covered) + used) / (2n * used)
    const paid = unitSum(parts, 'nano_cny')
    if (paid !== due)
      this.#say(id, `costs ${amount}, its parts sum up to ${paid}${covered === 0n ? '' : ` for what ${covered} tokens left`}`)
    const beyond = due - unitSum(hold.parts, 'nano_cny')
    if (BigInt(overrun_nano) !== (beyond > 0n ? beyond : 0n))
      this.#say(id, `has an overrun of ${overrun_nano}, beyond its hold are ${beyond}`)
  }

  #checkExact({ id, tokens }: AuditedEvent, row: ServedRow): void {
    if (tokens.output !== row.sent_tokens) this.#say(id, `completed with ${tokens.output} tokens of output, sent were ${row.sent_tokens}`)
    if (tokens.cached_input !== row.cached_tokens)
      this.#say(id, `has ${tokens.cached_input} cached tokens, the sandbox ${row.cached_tokens}`)
    // Not every provider reports thinking apart; it is part of the output either way.
    if (tokens.reasoning !== 0 && tokens.reasoning !== row.reasoning_tokens) {
      this.#say(id, `has ${tokens.reasoning} tokens of thinking, the sandbox ${row.reasoning_tokens}`)
    }
  }

  #checkSighting(seen: Sighting): void {
    const event = this.#byNumber.get(String(seen.n))
    if (event !== undefined && seen.id !== null && event.id !== seen.id) this.#say(seen.id, `its event is that of ${event.id}`)
    if (seen.code?.startsWith('unreadable') === true) this.#say(seen.id, `${seen.outcome}, the client read ${seen.code}`)
    switch (seen.outcome) {
      case 'completed':
        return this.#checkCompleted(seen, event)
      case 'refused':
        return this.#checkRefused(seen, event)
      case 'partial':
        if (event === undefined) return this.#say(seen.id, 'was answered in part and has no event')
        return this.#checkUnfinished(seen, event)
      case 'nothing':
        if (event !== undefined) this.#checkUnfinished(seen, event)
    }
  }

  #checkCompleted(seen: Sighting, event: AuditedEvent | undefined): void {
    if (seen.code !== null) this.#say(seen.id, `an error (${seen.code}) ended like a whole answer`)
    if (event === undefined) return this.#say(seen.id, 'completed and has no event')
    if (event.status !== 'completed') return this.#say(seen.id, `completed, its event says ${event.status}`)
    if (this.#billedRow(event)?.finished !== true) this.#say(seen.id, 'completed, but the sandbox did not finish it')
    const { usage } = seen
    if (usage === null) return
    const { tokens } = event
    const billed = { prompt: tokens.input + tokens.cached_input, cached: tokens.cached_input, completion: tokens.output }
    const [left, right] = [JSON.stringify(billed), JSON.stringify(usage)]
    if (left !== right) this.#say(seen.id, `is billed ${left}, the client was told ${right}`)
  }

  /** A release is not waited for: a kill right after the refusal leaves a request that is swept for nothing. */
  #checkRefused(seen: Sighting, event: AuditedEvent | undefined): void {
    if (event === undefined) return
    if (BigInt(event.amount_nano) !== 0n) return this.#say(seen.id, `was refused (${seen.code}) and billed ${event.amount_nano}`)
    if (event.status === 'completed') this.#say(seen.id, 'was refused, its event says completed')
    if (event.status !== 'swept' && this.#refusedOnly(event.id)) this.#say(seen.id, 'has an event although no upstream worked for it')
  }

  #checkUnfinished(seen: Sighting, event: AuditedEvent): void {
    // Durable, and then the gateway was killed before the terminator left: exact, which the event's own check has seen to.
    if (event.status === 'completed') return
    if (seen.left && event.status === 'aborted') return
    if (event.tokens.output > seen.pieces && !seen.left)
      this.#say(event.id, `is billed ${event.tokens.output} tokens, ${seen.pieces} were delivered`)
    if (seen.events === 0 && !seen.left && BigInt(event.amount_nano) !== 0n)
      this.#say(event.id, `is billed ${event.amount_nano} for nothing delivered`)
    if (event.status === 'truncated' && !seen.left && event.tokens.output !== seen.pieces) {
      this.#say(event.id, `was cut after ${seen.pieces} tokens and billed ${event.tokens.output}`)
    }
  }

  /** Every attempt ended with a definite refusal: no event is due. */
  #refusedOnly(id: string): boolean {
    return (this.#served.get(id) ?? []).every((row) => row.status !== null && row.status >= 400)
  }

  #checkServed(id: string, rows: readonly ServedRow[]): void {
    if (id === '') return this.#say(null, 'the sandbox was called without an id')
    if (new Set(rows.map((row) => row.attempt)).size !== rows.length) this.#say(id, 'the sandbox saw one attempt twice')
    if (!this.#events.has(id) && !this.#refusedOnly(id)) this.#say(id, 'an upstream worked for it and there is no event')
  }

  #checkBooks(): void {
    const { open, unposted, unbalanced, sum_nano, numbering } = this.#evidence.books
    for (const id of open) this.#say(id, 'is still open')
    for (const id of unposted) this.#say(id, 'is in the journal and not in the ledger')
    for (const id of unbalanced) this.#say(id, 'is a transaction that does not balance')
    if (sum_nano !== 0n) this.#say('the ledger', `sums to ${sum_nano}`)
    this.#checkGrants()
    for (const finding of numbering) this.#say('the journal', finding)
  }

  /** Every grant has what it was given less what it paid; no tenant has spent more than it had, but for the overruns on its events. */
  #checkGrants(): void {
    const events = [...this.#events.values()]
    for (const { tenant, grant, unit, credited, left } of this.#evidence.books.grants) {
      const parts = events.filter((event) => event.tenant === tenant).flatMap((event) => event.parts)
      const spent = unitSum(
        parts.filter((part) => part.grant === grant),
        unit,
      )
      if (left !== credited - spent) this.#say(grant, `has ${left} ${unit}: ${credited} credited, ${spent} spent`)
    }
    for (const tenant of new Set(events.map((event) => event.tenant)))
      this.#checkSpending(
        tenant,
        events.filter((event) => event.tenant === tenant),
      )
  }

  #checkSpending(tenant: string, events: readonly AuditedEvent[]): void {
    const overrun_nano = events.reduce((sum, event) => sum + BigInt(event.overrun_nano), 0n)
    for (const unit of ['nano_cny', 'tokens', 'requests']) {
      const credited = this.#evidence.books.grants
        .filter((grant) => grant.tenant === tenant && grant.unit === unit)
        .reduce((sum, grant) => sum + grant.credited, 0n)
      const spent = unitSum(
        events.flatMap((event) => event.parts),
        unit,
      )
      const line = this.#evidence.lines?.[tenant] ?? 0n
      const most = unit === 'nano_cny' ? credited + overrun_nano + line : credited
      if (spent > most) this.#say(`tenant ${tenant}`, `spent ${spent} ${unit} of ${credited}, with overruns of ${overrun_nano}`)
    }
  }
}

function unitSum(parts: readonly AuditedPart[], unit: string): bigint {
  return parts.reduce((sum, part) => (part.unit === unit ? sum + BigInt(part.amount) : sum), 0n)
}
