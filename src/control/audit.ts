import type { Clock } from '../base/clock.ts'
import { madeAt } from '../base/ids.ts'
import { cnyFromNano } from '../money/amount.ts'
import type { UsageEvent } from '../money/event.ts'
import type { GrantUnit } from '../money/grant.ts'
import type { AuditFacts, Cut, EventArchive, OnProgress } from '../storage/books.ts'
import type { BalanceView, EventPage, Ledger, LedgerEntry } from '../storage/ports.ts'
import type { Records } from '../storage/records.ts'
import { compareServed, type ServedRow } from './served.ts'

/** One thing that does not agree, in words. */
export interface Finding {
  readonly rule: string
  readonly id: string
  readonly expected: string
  readonly found: string
}

export interface AuditReport {
  readonly ok: boolean
  readonly checked: {
    readonly events: number
    readonly amount_nano: bigint
    readonly tenants: number
    readonly served: number | null
    readonly archives: number
  }
  /** In order of the rules; the first is where to begin. */
  readonly findings: readonly Finding[]
}

export interface AuditDeps {
  readonly records: Pick<Records, 'tenants'>
  readonly ledger: Pick<Ledger, 'post' | 'auditFacts' | 'events'>
  readonly archive: Pick<EventArchive, 'list' | 'glance'>
  readonly cut: () => Promise<Cut>
  readonly clock: Clock
  /** No gateway runs: whatever is open was left open. */
  readonly offline: boolean
  /** What the sandbox served, in order; null leaves that comparison out. @throws whatever keeps it from being read */
  readonly served: (() => Promise<readonly ServedRow[]>) | null
}

/** A credit is in the ledger a moment before admission knows of it: such differences count only if they stay. */
const MAX_ROUNDS = 10
const MIN_ROUNDS = 3
const ROUND_DELAY_MS = 200
/** After this long, and {@link MIN_ROUNDS}, what is still there is believed. */
const ROUNDS_END_MS = 20_000
const MAX_FINDINGS = 100
const PAGE_EVENTS = 1000
const STEPS = 4

/**
 * Does everything agree? Transactions balance, the ledger has exactly the journal's events, no number is missing, sums of events are
 * sums of entries and of rollups, balances that admission uses are those of the ledger, every open hold has its open request and the
 * reverse, and (given its count) what the sandbox served is what was billed. Exact under traffic: admission is compared with the ledger
 * as of one moment (a cut), not with what the ledger has become since.
 */
export async function audit(deps: AuditDeps, on_progress: OnProgress = () => undefined): Promise<AuditReport> {
  const start_ms = deps.clock.monotonic_ms()
  let report = await auditOnce(deps, 0, on_progress)
  for (let round = 1; round < MAX_ROUNDS && report.findings.some(mayPass); round++) {
    if (round >= MIN_ROUNDS && deps.clock.monotonic_ms() - start_ms > ROUNDS_END_MS) break
    await new Promise((resolve) => setTimeout(resolve, ROUND_DELAY_MS))
    const again = await auditOnce(deps, round, on_progress)
    const before = new Set(report.findings.map(({ rule, id }) => `${rule} ${id}`))
    const findings = again.findings.filter((finding) => !mayPass(finding) || before.has(`${finding.rule} ${finding.id}`))
    report = { ...again, findings, ok: findings.length === 0 }
  }
  return { ...report, findings: report.findings.slice(0, MAX_FINDINGS) }
}

/** Differences that a moment can make. Whatever else is found stays. */
function mayPass({ rule }: Finding): boolean {
  return rule === RULES.balances || rule === RULES.holds || rule === RULES.requests || rule === RULES.writable
}

async function auditOnce(deps: AuditDeps, round: number, on_progress: OnProgress): Promise<AuditReport> {
  const again = round === 0 ? '' : `, look ${round + 1} at what a moment may have made`
  const tell = (doing: string, done: number): void => on_progress({ doing: `${doing}${again}`, done, of: STEPS })
  tell('posting', 0)
  const cut = await deps.cut()
  const cut_ms = deps.clock.now_ms()
  const unwritable = await postAll(deps.ledger)
  tell('looking at archives', 1)
  const [archived, glanced] = [await deps.archive.list(), await deps.archive.glance()]
  tell('comparing journal, events, entries and sums', 2)
  const served = deps.served === null ? null : await deps.served()
  const facts = await deps.ledger.auditFacts(cut.mark)
  const findings = [
    ...unwritable,
    ...factFindings(facts),
    ...openFindings(facts, cut, deps.offline),
    ...balanceFindings(cut, facts, cut_ms),
    ...glanced.map(({ day, what, expected, found }) => ({ rule: 'every archive is there', id: `${day} ${what}`, expected, found })),
  ]
  tell('comparing what was served', 3)
  if (served !== null) findings.push(...(await servedFindings(served, cut, cut_ms, facts, deps)))
  const tenants = await deps.records.tenants()
  return {
    ok: findings.length === 0,
    checked: {
      events: facts.events,
      amount_nano: facts.amount_nano,
      tenants: tenants.length,
      served: served?.length ?? null,
      archives: archived.length,
    },
    findings,
  }
}

/** A journal that cannot be written is a finding, not the end of the audit: what it left open is to be named too. */
async function postAll(ledger: Pick<Ledger, 'post'>): Promise<Finding[]> {
  try {
    await ledger.post()
    return []
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error)
    return [{ rule: RULES.writable, id: 'journal', expected: 'a journal that can be posted', found }]
  }
}

/** Of events and attempts those that ended, or began, before the cut. */
async function servedFindings(
  served: readonly ServedRow[],
  { mark }: Cut,
  cut_ms: number,
  facts: AuditFacts,
  { ledger }: Pick<AuditDeps, 'ledger'>,
): Promise<Finding[]> {
  await ledger.post()
  const later = new Set<string>()
  async function* before(): AsyncGenerator<UsageEvent> {
    for await (const event of allEvents(ledger)) {
      if (event.node !== mark.node || event.seq <= mark.event_seq) yield event
      else later.add(event.id)
    }
  }
  const open = new Set([...facts.open_requests, ...served.map(({ request_id }) => request_id).filter((id) => (madeAt(id) ?? 0) >= cut_ms)])
  const findings = await compareServed(served, before(), open)
  return findings.filter(({ id }) => !later.has(id))
}

async function* allEvents(ledger: Pick<Ledger, 'events'>): AsyncGenerator<UsageEvent> {
  let cursor: string | null = null
  do {
    const page: EventPage = await ledger.events({ limit: PAGE_EVENTS, ...(cursor === null ? {} : { cursor }) })
    yield* page.events
    cursor = page.next_cursor
  } while (cursor !== null)
}

const RULES = {
  balances: 'admission and ledger agree on balances',
  holds: 'every open hold has its open request',
  requests: 'every open request has its hold',
  writable: 'the journal can be posted',
} as const

function factFindings(facts: AuditFacts): Finding[] {
  const each = (rule: string, ids: readonly string[], expected: string, found: string): Finding[] =>
    ids.map((id) => ({ rule, id, expected, found }))
  return [
    ...each('transactions balance', facts.unbalanced, 'entries of each unit sum to zero', 'they do not'),
    ...each('every journal event is posted', facts.missing_events, 'an event in the ledger', 'none'),
    ...each('every event has its journal row', facts.unexplained_events, 'a closing row in the journal', 'none'),
    ...each('ledger and journal hold the same event', facts.differing_events, 'one event, equal in both', 'another body, or more than one'),
    ...each('no event number is missing', facts.gaps, 'an event in the ledger or an archive', 'none'),
    ...each('events sum to entries', facts.wrong_sums, 'equal sums', 'different sums'),
    ...each('every transaction is as it was posted', facts.wrong_transactions, 'what was posted', 'something else, or nothing'),
    ...each('records of grants are what was given', facts.wrong_grants, 'the amount, unit and kind that were given', 'others'),
    ...each('events sum to rollups', facts.wrong_rollups, 'equal sums', 'different sums'),
  ]
}

function openFindings(facts: AuditFacts, { holds }: Cut, offline: boolean): Finding[] {
  const [first] = facts.open_requests
  if (offline) {
    if (first === undefined) return []
    const found = `${facts.open_requests.length} left open by a process that died; the next start of the gateway closes what it left`
    return [{ rule: 'no request is open while no gateway runs', id: first, expected: 'every request closed', found }]
  }
  const open = new Set(facts.open_requests)
  const without_row = [...holds].filter((id) => !open.has(id))
  const without_hold = facts.open_requests.filter((id) => !holds.has(id))
  const left = 'neither: its end could not be written, and the next start of the gateway closes it'
  return [
    ...without_row.map((id) => ({ rule: RULES.holds, id, expected: 'an open row in the journal', found: 'none' })),
    ...without_hold.map((id) => ({ rule: RULES.requests, id, expected: 'a hold, or a closing row in the journal', found: left })),
  ]
}

const MONEY_ACCOUNTS: ReadonlySet<string> = new Set(['wallet_liability', 'prepaid_grant', 'contract_commitment'])

/** What the ledger says is left of each grant, and owed on the credit line. */
interface TenantBooks {
  readonly left: Map<string, { readonly unit: GrantUnit; amount: bigint }>
  owed: bigint
}

/** What admission believed at the cut against what the ledger said then, grant by grant, and what the credit line had paid. */
function balanceFindings({ balances }: Cut, facts: AuditFacts, cut_ms: number): Finding[] {
  const books = booksOf(facts.balances)
  const tenants = [...new Set([...balances.keys(), ...books.keys()])].toSorted()
  return tenants.flatMap((tenant) => {
    const { left, owed } = books.get(tenant) ?? { left: new Map(), owed: 0n }
    return tenantFindings(tenant, balances.get(tenant) ?? NOBODY, left, owed, cut_ms)
  })
}

const NOBODY: BalanceView = { available_nano: 0n, held_nano: 0n, open_holds: 0, grants: [] }

export function booksOf(entries: readonly LedgerEntry[]): ReadonlyMap<string, TenantBooks> {
  const books = new Map<string, TenantBooks>()
  for (const { account, amount } of entries) {
    const { code, owner, ref, unit } = account
    const owes = code === 'receivable' && unit === 'nano_cny' && ref === ''
    if (!owes && !MONEY_ACCOUNTS.has(code)) continue
    const book = books.get(owner) ?? { left: new Map(), owed: 0n }
    books.set(owner, book)
    if (owes) book.owed += amount
    else book.left.set(ref, { unit, amount: (book.left.get(ref)?.amount ?? 0n) - amount })
  }
  return books
}

function tenantFindings(tenant: string, view: BalanceView, left: TenantBooks['left'], owed: bigint, cut_ms: number): Finding[] {
  const rule = RULES.balances
  const findings: Finding[] = []
  for (const { id, unit, balance } of view.grants) {
    const expected = left.get(id)?.amount ?? 0n
    if (balance !== expected) findings.push({ rule, id: `${tenant} ${id}`, expected: inUnit(expected, unit), found: inUnit(balance, unit) })
  }
  const known = new Set(view.grants.map(({ id }) => id))
  for (const [id, { unit, amount }] of left) {
    if (known.has(id) || amount === 0n) continue
    findings.push({ rule, id: `${tenant} ${id}`, expected: inUnit(amount, unit), found: 'a grant that admission does not know' })
  }
  const used = creditUsed(view, cut_ms)
  if (used !== owed) {
    findings.push({ rule, id: `${tenant} credit line`, expected: inUnit(owed, 'nano_cny'), found: inUnit(used, 'nano_cny') })
  }
  return findings
}

function inUnit(amount: bigint, unit: GrantUnit): string {
  return unit === 'nano_cny' ? `${cnyFromNano(amount)} CNY` : `${amount} ${unit}`
}

/** What is missing between the free money of the grants and what is available was paid, or is held, by the credit line. */
export function creditUsed(view: BalanceView, now_ms: number): bigint {
  let free = 0n
  let held = 0n
  for (const grant of view.grants) {
    if (grant.unit !== 'nano_cny') continue
    const unheld = grant.balance - grant.held
    held += grant.held
    if (unheld < 0n || grant.expires_at === null || grant.expires_at > now_ms) free += unheld
  }
  return free - view.available_nano - (view.held_nano - held)
}
