import * as z from 'zod'
import { JSON_OPTION, printJson, withClient } from './accounts.ts'
import type { AdminClient } from './client.ts'
import type { Arguments, Command, OptionSpec } from './command.ts'
import { UsageError, type CliContext } from './io.ts'
import { grouped, table } from './table.ts'

const MAX_TRANSACTIONS = 10_000
const PAGE_TRANSACTIONS = 200
const PAGE_ACCOUNTS = '10000'

const Entry = z.object({
  account: z.string(),
  owner: z.string(),
  ref: z.string(),
  unit: z.string(),
  debit: z.string().nullable(),
  credit: z.string().nullable(),
})
const Totals = z.array(z.object({ unit: z.string(), debit: z.string(), credit: z.string() }))
const BalancePage = z.object({ data: z.array(Entry), next_cursor: z.string().nullable(), totals: Totals })
const Transaction = z.object({ id: z.string(), at: z.string(), kind: z.string(), note: z.string(), entries: z.array(Entry) })
const TransactionPage = z.object({ data: z.array(Transaction), next_cursor: z.string().nullable() })

const ENTRY_COLUMNS = ['ACCOUNT', 'OWNER', 'REF', 'UNIT', 'DEBIT', 'CREDIT']

function entryCells({ account, owner, ref, unit, debit, credit }: z.infer<typeof Entry>): string[] {
  return [account, owner, ref, unit === 'cny' ? 'CNY' : unit, debit === null ? '' : grouped(debit), credit === null ? '' : grouped(credit)]
}

function queryOf(fields: Readonly<Record<string, string | undefined>>): string {
  return new URLSearchParams(Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))).toString()
}

const balances: Command = {
  name: 'ledger balances',
  summary: "Show the balances of the ledger's accounts; in each unit, debits equal credits.",
  positionals: [],
  options: { tenant: { value: 'ID', help: 'only accounts of this tenant' }, json: JSON_OPTION },
  run: (args, context) =>
    withClient(context, async (client) => {
      const entries: z.infer<typeof Entry>[] = []
      let totals: z.infer<typeof Totals> = []
      for (let cursor: string | null | undefined; cursor !== null;) {
        const query = queryOf({ tenant: args.text('tenant'), limit: PAGE_ACCOUNTS, cursor })
        const page: z.infer<typeof BalancePage> = BalancePage.parse(await client.request('GET', `/admin/v1/ledger/balances?${query}`))
        entries.push(...page.data)
        totals = page.totals
        cursor = page.next_cursor
      }
      if (args.flag('json')) printJson({ balances: entries, totals }, context)
      else {
        const sums = totals.map(({ unit, debit, credit }) => entryCells({ account: 'total', owner: '', ref: '', unit, debit, credit }))
        context.out(table(ENTRY_COLUMNS, [...entries.map(entryCells), ...sums]))
      }
      return 0
    }),
}

const transactions: Command = {
  name: 'ledger transactions',
  summary: "Show the ledger's transactions with their entries, newest first.",
  positionals: [],
  options: {
    tenant: { value: 'ID', help: "only those that touch this tenant's accounts" },
    kind: { value: 'KIND', help: 'usage, top_up, promo, grant, expiry, reversal or adjustment' },
    from: { value: 'TIME', help: 'a date (2026-11-23) or an instant (2026-11-23T08:00:00+08:00)' },
    to: { value: 'TIME', help: 'the same; a date is included whole' },
    limit: { value: 'N', help: 'at most so many (20)' },
    json: JSON_OPTION,
  },
  run: (args, context) =>
    withClient(context, async (client) => {
      const { found, more } = await readTransactions(args, client)
      if (args.flag('json')) printJson({ transactions: found, more }, context)
      else {
        const rows = found.flatMap(({ id, at, kind, entries }) =>
          entries.map((entry, index) => [...(index === 0 ? [at, kind, id] : ['', '', '']), ...entryCells(entry)]),
        )
        context.out(table(['TIME', 'KIND', 'TRANSACTION', ...ENTRY_COLUMNS], rows))
        if (more) context.out('\nThere are older ones: raise --limit, or narrow them with --to.\n')
      }
      return 0
    }),
}

async function readTransactions(
  args: Arguments,
  client: AdminClient,
): Promise<{ readonly found: readonly z.infer<typeof Transaction>[]; readonly more: boolean }> {
  const most = args.number('limit', 1, MAX_TRANSACTIONS) ?? 20
  const filters = Object.fromEntries(['tenant', 'kind', 'from', 'to'].map((name) => [name, args.text(name)]))
  const found: z.infer<typeof Transaction>[] = []
  let cursor: string | null | undefined
  while (cursor !== null && found.length < most) {
    const query = queryOf({ ...filters, limit: String(Math.min(PAGE_TRANSACTIONS, most - found.length)), cursor })
    const page: z.infer<typeof TransactionPage> = TransactionPage.parse(await client.request('GET', `/admin/v1/transactions?${query}`))
    found.push(...page.data)
    cursor = page.next_cursor
  }
  return { found, more: cursor !== null }
}

const Reversal = z.object({
  id: z.string(),
  tenant: z.string(),
  state: z.enum(['posted', 'duplicate']),
  parts: z.array(z.object({ grant: z.string(), unit: z.string(), amount: z.string(), expired: z.boolean() })),
  below_zero: z.array(z.object({ grant: z.string(), unit: z.string(), balance: z.string() })),
})

const REASON: OptionSpec = { value: 'TEXT', help: 'why; kept with the ledger transaction' }

const reverseEvent: Command = {
  name: 'reverse event',
  summary: 'Give back what a request cost: the payment returns to the grants that paid. Once for each event.',
  details:
    'The event itself stays as it is, and so does what we owe the supplier, unless --reverse-cost is given. Budgets and windows keep what they counted.',
  positionals: ['event'],
  options: {
    reason: REASON,
    amount: { value: 'CNY', help: 'only so much of the money paid' },
    'reverse-cost': { help: "the supplier's cost too: it does not charge us" },
    json: JSON_OPTION,
  },
  run: (args, context) =>
    runReversal(args, context, {
      event: args.positional(0),
      keep_cost: !args.flag('reverse-cost'),
      ...(args.text('amount') === undefined ? {} : { amount_cny: args.text('amount') }),
    }),
}

const reverseTransaction: Command = {
  name: 'reverse transaction',
  summary: 'Take back a top-up, promotional credit or grant, whole, also if it has been spent. Once for each.',
  details: '"weir ledger transactions" lists their ids.',
  positionals: ['transaction'],
  options: { reason: REASON, json: JSON_OPTION },
  run: (args, context) => runReversal(args, context, { transaction: args.positional(0) }),
}

async function runReversal(args: Arguments, context: CliContext, what: object): Promise<number> {
  const reason = args.text('reason')
  if (reason === undefined) throw new UsageError('say why: --reason "…"')
  return await withClient(context, async (client) => {
    const answer = await client.request('POST', '/admin/v1/reversals', { ...what, reason })
    if (args.flag('json')) printJson(answer, context)
    else context.out(reversalText(Reversal.parse(answer)))
    return 0
  })
}

function reversalText({ id, tenant, state, parts, below_zero }: z.infer<typeof Reversal>): string {
  const word = (unit: string): string => (unit === 'cny' ? 'CNY' : unit)
  const lines = [state === 'posted' ? `Reversed for ${tenant}: ${id}.` : `Nothing changed: ${id} had been posted before.`]
  for (const { grant, unit, amount, expired } of parts) {
    const name = grant === 'credit' ? 'the credit line' : grant
    const lapse = expired ? ' (it has expired: what came back lapses)' : ''
    lines.push(`  ${amount.startsWith('-') ? '' : '+'}${grouped(amount)} ${word(unit)} ${name}${lapse}`)
  }
  for (const { grant, unit, balance } of below_zero) lines.push(`${grant} is below zero now: ${grouped(balance)} ${word(unit)}.`)
  return `${lines.join('\n')}\n`
}

/** Commands about the books, and corrections in them. */
export const LEDGER_COMMANDS: readonly Command[] = [balances, transactions, reverseEvent, reverseTransaction]
