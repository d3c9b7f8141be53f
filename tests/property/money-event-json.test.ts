import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { HoldReceipt } from '../../src/money/event.ts'
import type { GrantUnit } from '../../src/money/grant.ts'
import {
  decodeCheckpointRow,
  decodeOpenRow,
  decodeReceipt,
  encodeCheckpointRow,
  encodeOpenRow,
  encodeReceipt,
} from '../../src/money/event-json.ts'
import { propertySeed } from '../support/seed.ts'

const PARAMETERS = { seed: propertySeed(), numRuns: 500 }

const amount = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const text = fc.string({ unit: 'binary' })
const tags = fc.dictionary(fc.oneof(text, fc.constantFrom('amount', 'amount_nano', 'cost_nano', '__proto__', 'toJSON')), text)
const receipt: fc.Arbitrary<HoldReceipt> = fc.record({
  v: fc.constant(1 as const),
  id: fc.uuid(),
  tenant: text,
  project: text,
  key: text,
  model: text,
  admitted_at: fc.maxSafeNat(),
  expires_at: fc.maxSafeNat(),
  tokens: fc.maxSafeNat(),
  amount_nano: amount,
  parts: fc.array(
    fc.record(
      { grant: text, unit: fc.constantFrom<GrantUnit>('nano_cny', 'tokens', 'requests'), amount, weight_micro: fc.nat(100_000_000) },
      { requiredKeys: ['grant', 'unit', 'amount'] },
    ),
    { maxLength: 4 },
  ),
})
const attempt = fc.record({
  endpoint: text,
  outcome: text,
  http_status: fc.option(fc.nat(599)),
  duration_ms: fc.nat(),
  cost_nano: amount,
})

describe('what the journal writes', () => {
  test('comes back as it was, whatever the amounts, names and tags, and is written the same again', () => {
    fc.assert(
      fc.property(receipt, tags, fc.array(attempt, { maxLength: 4 }), (hold, labels, attempts) => {
        expect(decodeReceipt(encodeReceipt(hold))).toStrictEqual({ ...hold, parts: hold.parts.map((part) => ({ ...part })) })
        const open = { v: 1 as const, hold, tags: labels }
        const open_json = encodeOpenRow(open)
        const open_back = decodeOpenRow<typeof open>(open_json)
        expect(open_back.hold.amount_nano).toBe(hold.amount_nano)
        expect(Object.entries(open_back.tags)).toEqual(Object.entries(labels))
        expect(encodeOpenRow(open_back)).toBe(open_json)
        const checkpoint = { v: 1 as const, attempts }
        expect(decodeCheckpointRow<typeof checkpoint>(encodeCheckpointRow(checkpoint)).attempts).toEqual(attempts)
      }),
      PARAMETERS,
    )
  })
})
