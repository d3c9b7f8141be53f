import { describe, expect, test } from 'vitest'
import type { GrantUnit } from '../../src/money/grant.ts'
import { checkBalanced, givingEntries, grantDeltas, lapseEntries, reversedEntries, sameEntries } from '../../src/storage/accounts.ts'
import type { LedgerEntry } from '../../src/storage/ports.ts'
import type { GrantRecord } from '../../src/storage/records.ts'

type Kind = GrantRecord['kind']

/** Entries as `code ref amount`. */
function told(entries: readonly LedgerEntry[]): readonly string[] {
  return entries.map(({ account: { code, ref }, amount }) => `${code} ${ref === '' ? '-' : ref} ${amount}`)
}

function grantOf(kind: Kind, unit: GrantUnit): { id: string; tenant: string; kind: Kind; unit: GrantUnit } {
  return { id: 'acme/g', tenant: 'acme', kind, unit }
}

const TABLE: readonly (readonly [Kind, GrantUnit, readonly string[], readonly string[]])[] = [
  ['pack', 'nano_cny', ['cash_clearing - 10', 'prepaid_grant acme/g -10'], ['prepaid_grant acme/g 4', 'breakage - -4']],
  ['subscription', 'nano_cny', ['cash_clearing - 10', 'prepaid_grant acme/g -10'], ['prepaid_grant acme/g 4', 'breakage - -4']],
  ['subscription', 'tokens', ['cash_clearing - 10', 'prepaid_grant acme/g -10'], ['prepaid_grant acme/g 4', 'breakage - -4']],
  ['promo', 'nano_cny', ['promo - 10', 'wallet_liability acme/g -10'], ['wallet_liability acme/g 4', 'breakage - -4']],
  ['promo', 'requests', ['promo - 10', 'prepaid_grant acme/g -10'], ['prepaid_grant acme/g 4', 'breakage - -4']],
  [
    'contract',
    'nano_cny',
    ['receivable acme/g 10', 'contract_commitment acme/g -10'],
    ['contract_commitment acme/g 4', 'receivable acme/g -4'],
  ],
  ['contract', 'tokens', ['cash_clearing - 10', 'prepaid_grant acme/g -10'], ['prepaid_grant acme/g 4', 'breakage - -4']],
]

describe('entries of a grant', () => {
  test.each(TABLE)('a %s of %s: given, and its rest lapsed, balances on the right accounts', (kind, unit, giving, lapsing) => {
    const [given, lapsed] = [givingEntries(grantOf(kind, unit), 10n), lapseEntries(grantOf(kind, unit), 4n)]
    expect(told(given)).toEqual(giving)
    expect(told(lapsed)).toEqual(lapsing)
    for (const entries of [given, lapsed]) expect(() => checkBalanced('t', entries)).not.toThrow()
    expect(grantDeltas(given)).toEqual([{ tenant: 'acme', grant: 'acme/g', unit, delta: 10n }])
    expect(grantDeltas(lapsed)).toEqual([{ tenant: 'acme', grant: 'acme/g', unit, delta: -4n }])
    expect(grantDeltas([...given, ...reversedEntries(given)])).toEqual([])
  })

  test('the credit line is the receivable without a grant; what is paid back to it is positive', () => {
    const account = { code: 'receivable', owner: 'acme', unit: 'nano_cny' } as const
    const revenue = { account: { code: 'usage_revenue', owner: 'acme', ref: '', unit: 'nano_cny' }, amount: 5n } as const
    expect(grantDeltas([revenue, { account: { ...account, ref: '' }, amount: -5n }])).toEqual([
      { tenant: 'acme', grant: 'credit', unit: 'nano_cny', delta: 5n },
    ])
    expect(grantDeltas([revenue, { account: { ...account, ref: 'acme/g' }, amount: -5n }])).toEqual([])
  })

  test('the order of entries does not matter, nor whether a sum is split; everything else does', () => {
    const entries = givingEntries(grantOf('pack', 'tokens'), 10n)
    const split = [...givingEntries(grantOf('pack', 'tokens'), 3n), ...givingEntries(grantOf('pack', 'tokens'), 7n)]
    expect(sameEntries(entries, split.toReversed())).toBe(true)
    expect(sameEntries(entries, givingEntries(grantOf('pack', 'tokens'), 11n))).toBe(false)
    expect(sameEntries(entries, givingEntries(grantOf('promo', 'tokens'), 10n))).toBe(false)
    expect(sameEntries(entries, givingEntries({ ...grantOf('pack', 'tokens'), id: 'acme/h' }, 10n))).toBe(false)
  })
})
