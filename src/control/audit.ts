import type { UsageEvent } from '../money/event.ts'
import type { AuditFacts, BalanceView, EventPage, Ledger, LedgerEntry, Limits, Records } from '../storage/ports.ts'
import { compareServed, type ServedRow } from './served.ts'

/** One thing that does not agree. Amounts are nano-yuan, or the grant's own unit. */
export interface Finding {
  readonly rule: string
  readonly id: string
  readonly expected: string
  readonly found: string
}

export interface AuditReport {
  readonly ok: boolean
  readonly checked: { readonly events: number; readonly amount_nano: bigint; readonly tenants: number; readonly served: number | null }
  /** In order of the rules; the first is where to begin. */
  readonly findings: readonly Finding[]
}

export interface AuditDeps {
  readonly records: Pick<Records, 'tenants'>
  readonly ledger: Pick<Ledger, 'post' | 'auditFacts' | 'balances' | 'events'>
  readonly limits: Pick<Limits, 'balance' | 'openHolds'>
  readonly now_ms: () => number
  /** No gateway runs: whatever is open was left open. */
  readonly offline: boolean
  /** What the sandbox served, in order; null leaves that comparison out. @throws whatever keeps it from being read */
  readonly served: (() => Promise<readonly ServedRow[]>) | null
}

/** A request that ends during the audit is charged a moment before it is posted: differences count only if they stay. */
const MAX_ROUNDS = 10
const ROUND_DELAY_MS = 200
const MAX_FINDINGS = 100
const PAGE_EVENTS = 1000

/**
 * Does everything agree? Transactions balance, the ledger has exactly the journal's events, sums of events are sums of entries, balances
 * that admission uses are those of the ledger, every open hold belongs to an open request, and (given its count) what the sandbox
 * served is what was billed. Meant for a gateway at rest; under traffic a difference is looked at for two seconds before it counts.
 */
export async function audit(deps: AuditDeps): Promise<AuditReport> {
  let report = await auditOnce(deps)
  for (let round = 1; round < MAX_ROUNDS && !report.ok; round++) {
    await new Promise((resolve) => setTimeout(resolve, ROUND_DELAY_MS))
    report = await auditOnce(deps)
  }
  return report
}

async function auditOnce(deps: AuditDeps): Promise<AuditReport> {
  await deps.ledger.post()
  const served = deps.served === null ? null : await deps.served()
  await deps.ledger.post()
  const facts = await deps.ledger.auditFacts()
  const tenants = await deps.records.tenants()
  const balances = await deps.ledger.balances()
  const findings = [...factFindings(facts), ...(await openFindings(facts, deps))]
  for (const { id } of tenants) findings.push(...balanceFindings(id, await deps.limits.balance(id), balances, deps.now_ms()))
  if (served !== null) findings.push(...(await compareServed(served, allEvents(deps.ledger), new Set(facts.open_requests))))
  return {
    ok: findings.length === 0,
    checked: { events: facts.events, amount_nano: facts.amount_nano, tenants: tenants.length, served: served?.length ?? null },
    findings: findings.slice(0, MAX_FINDINGS),
  }
}

async function* allEvents(ledger: Pick<Ledger, 'events'>): AsyncGenerator<UsageEvent> {
  let cursor: string | null = null
  do {
    const page: EventPage = await ledger.events({ limit: PAGE_EVENTS, ...(cursor === null ? {} : { cursor }) })
    yield* page.events
    cursor = page.next_cursor
  } while (cursor !== null)
}

function factFindings(facts: AuditFacts): Finding[] {
  const each = (rule: string, ids: readonly string[], expected: string, found: string): Finding[] =>
    ids.map((id) => ({ rule, id, expected, found }))
  return [
    ...each('transactions balance', facts.unbalanced, 'entries of each unit sum to zero', 'they do not'),
    ...each('every journal event is posted', facts.missing_events, 'an event in the ledger', 'none'),
    ...each('every event has its journal row', facts.unexplained_events, 'a closing row in the journal', 'none'),
    ...each('ledger and journal hold the same event', facts.differing_events, 'one event, equal in both', 'another body, or more than one'),
    ...each('events sum to entries', facts.wrong_sums, 'equal sums', 'different sums'),
  ]
}

async function openFindings(facts: AuditFacts, { limits, offline }: Pick<AuditDeps, 'limits' | 'offline'>): Promise<Finding[]> {
  const open = facts.open_requests.length
  const [first] = facts.open_requests
  if (offline && first !== undefined) {
    const found = `${open} left open by a process that died; the next start of the gateway closes what it left`
    return [{ rule: 'no request is open while no gateway runs', id: first, expected: 'every request closed', found }]
  }
  const holds = await limits.openHolds()
  if (holds === open) return []
  return [
    {
      rule: 'every open hold has its open request',
      id: facts.open_requests[0] ?? 'holds',
      expected: `${open} holds, as requests open in the journal`,
      found: `${holds}`,
    },
  ]
}

const MONEY_ACCOUNTS: ReadonlySet<string> = new Set(['wallet_liability', 'prepaid_grant', 'contract_commitment'])

/** What admission believes against what the ledger says, grant by grant, and what the credit line has paid. */
function balanceFindings(tenant: string, view: BalanceView, entries: readonly LedgerEntry[], now_ms: number): Finding[] {
  const left = new Map<string, bigint>()
  let owed = 0n
  for (const { account, amount } of entries) {
    if (account.owner !== tenant) continue
    if (account.code === 'receivable' && account.ref === '' && account.unit === 'nano_cny') owed += amount
    if (MONEY_ACCOUNTS.has(account.code)) left.set(account.ref, (left.get(account.ref) ?? 0n) - amount)
  }
  const rule = 'admission and ledger agree on balances'
  const findings: Finding[] = []
  for (const { id, balance } of view.grants) {
    const expected = left.get(id) ?? 0n
    left.delete(id)
    if (balance !== expected) findings.push({ rule, id: `${tenant} ${id}`, expected: String(expected), found: String(balance) })
  }
  for (const [id, expected] of left) {
    if (expected !== 0n)
      findings.push({ rule, id: `${tenant} ${id}`, expected: String(expected), found: 'a grant that admission does not know' })
  }
  const used = creditUsed(view, now_ms)
  if (used !== owed) findings.push({ rule, id: `${tenant} credit line`, expected: String(owed), found: String(used) })
  return findings
}

/** What is missing between the free money of the grants and what is available was paid, or is held, by the credit line. */
function creditUsed(view: BalanceView, now_ms: number): bigint {
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
