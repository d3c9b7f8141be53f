import { describe, expect, it } from 'vitest'
import type { PaymentPart } from '../../src/money/grant.ts'
import {
  type Change,
  chargedSince,
  firstPosted,
  firstSuperseded,
  OutboxSums,
  secondPosted,
  secondSuperseded,
} from '../../src/storage/postgres/charges.ts'

const parts = (amount: bigint): readonly PaymentPart[] => [{ grant: 'wallet', unit: 'nano_cny', amount }]
/** What changes come to. */
function told(changes: readonly Change[]): bigint {
  const sums = new OutboxSums()
  sums.add('acme', changes)
  return sums.deltas().reduce((sum, { delta }) => sum + delta, 0n)
}

/** The epoch in force is 7. */
const [NOW, EARLIER, NEVER] = [7, 6, null]
const [FIRST, SECOND, OTHER] = [100n, 30n, 60n]

describe('what limits must be told of a posting', () => {
  it.each([
    ['they have charged it in this epoch', NOW, null, 0n],
    ['they have charged it in an epoch that is over', EARLIER, null, -FIRST],
    ['they have never charged it', NEVER, null, -FIRST],
    ['its second revision is there, and both are charged in this epoch', NOW, NOW, 0n],
    ['its second revision is there, was charged in this epoch and gave back what an earlier one had charged', EARLIER, NOW, -FIRST],
    ['its second revision is there and not charged in this epoch, which it is itself', NOW, EARLIER, FIRST],
    ['its second revision is there, and neither is charged in this epoch', EARLIER, EARLIER, 0n],
    ['its second revision is there, and neither is ever charged', NEVER, NEVER, 0n],
  ] as const)('a first revision where %s', (...[title, charged, second, expected]) => {
    const early = title.startsWith('its second') ? { charged: second, early: true } : null
    expect(told(firstPosted(parts(FIRST), charged, NOW, early))).toBe(expected)
  })

  it.each([
    ['they have replaced the first by it', NOW, FIRST, null, 0n],
    ['they have not heard of it', NEVER, FIRST, null, FIRST - SECOND],
    ['they have heard of it in an epoch that is over', EARLIER, FIRST, null, FIRST - SECOND],
    ['its first is not there yet, and they have heard of it', NOW, null, null, 0n],
    ['its first is not there yet, nor have they heard of it', NEVER, null, null, -SECOND],
    ['they have replaced another first than the ledger has', NOW, FIRST, OTHER, FIRST - OTHER],
    ['they have not heard of it, and given back the other first', NEVER, FIRST, OTHER, FIRST - SECOND],
  ] as const)('a second revision where %s', (...[, charged, first, other, expected]) => {
    const partsOrNone = (amount: bigint | null) => (amount === null ? null : parts(amount))
    expect(told(secondPosted(parts(SECOND), charged, NOW, partsOrNone(first), partsOrNone(other)))).toBe(expected)
  })

  it.each([
    ['is a first one', FIRST, null, FIRST],
    ['is a second one, in place of the first', SECOND, FIRST, SECOND - FIRST],
    ['is a second one whose first is not there yet', SECOND, null, SECOND],
  ] as const)('a revision whose settle has arrived since, and that %s', (...[, own, replaced, expected]) => {
    expect(told(chargedSince(parts(own), replaced === null ? null : parts(replaced)))).toBe(expected)
  })

  it.each([
    ['they have charged it in this epoch', NOW, null, OTHER],
    ['they have charged it in an epoch that is over', EARLIER, null, 0n],
    ['they have never charged it', NEVER, null, 0n],
    ['they have replaced it by a second one', NOW, NOW, FIRST],
    ['the second one is not charged in this epoch', NOW, EARLIER, OTHER],
  ] as const)('a first revision whose place another has, where %s', (...[, charged, second, expected]) => {
    const posted = second === null ? null : { charged: second, early: false }
    expect(told(firstSuperseded(parts(OTHER), charged, NOW, parts(FIRST), posted))).toBe(expected)
  })

  it.each([
    ['they have charged it in this epoch', NOW, FIRST, SECOND - FIRST],
    ['they have charged it in this epoch, and there is no first one', NOW, null, SECOND],
    ['they have not', NEVER, FIRST, 0n],
  ] as const)('a second revision whose place another has, where %s', (...[, charged, first, expected]) => {
    expect(told(secondSuperseded(parts(SECOND), charged, NOW, first === null ? null : parts(first)))).toBe(expected)
  })

  it('many changes of a grant are told once, tenants in order, and what comes to nothing is not', () => {
    const sums = new OutboxSums()
    for (const tenant of ['b', 'a', 'b']) sums.add(tenant, [{ parts: parts(5n), sign: -1n }])
    sums.add('c', [
      { parts: parts(5n), sign: -1n },
      { parts: parts(5n), sign: 1n },
    ])
    expect(sums.deltas()).toEqual([
      { tenant: 'a', grant: 'wallet', unit: 'nano_cny', delta: -5n },
      { tenant: 'b', grant: 'wallet', unit: 'nano_cny', delta: -10n },
    ])
  })
})
