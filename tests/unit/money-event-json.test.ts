import { describe, expect, test } from 'vitest'
import { InvariantError } from '../../src/base/assert.ts'
import type { UsageEvent } from '../../src/money/event.ts'
import {
  decodeCheckpointRow,
  decodeEvent,
  decodeOpenRow,
  decodeReceipt,
  encodeCheckpointRow,
  encodeEvent,
  encodeOpenRow,
  encodeReceipt,
  encodeUnnumbered,
  EncodingError,
  numberEvent,
} from '../../src/money/event-json.ts'
import type { CheckpointRow, OpenRow } from '../../src/storage/ports.ts'

const EVENT: UsageEvent = {
  v: 1,
  id: '0199a1b2-1111-7abc-8abc-0123456789ab',
  revision: 1,
  admitted_at: 1_790_000_000_000,
  day: '2026-09-21',
  ended_at: 1_790_000_001_000,
  tenant: 'acme',
  project: 'default',
  key: 'key_1',
  end_user: null,
  tags: { amount: '12', amount_nano: 'not a number', parts: '[]', ['__proto__']: 'x', 门店: '上海"\\\u2028' },
  protocol: 'chat_completions',
  audience: 'public',
  zone: 'domestic',
  model_asked: 'auto',
  route: 'auto',
  domain: 'general',
  model: 'deepseek-chat',
  endpoint: 'deepseek',
  provider: 'deepseek',
  filing: 'Beijing-DeepSeek-20240101',
  registry_date: '2026-07-01',
  dialect: 'openai',
  stream: true,
  status: 'completed',
  code: null,
  finish_reason: 'stop',
  usage_source: 'reported',
  tokens: { input: 100, cached_input: 10, cache_write: 0, output: 200, reasoning: 20 },
  calls: { search: 0, image: 0 },
  ttfe_ms: 120,
  duration_ms: 1000,
  attempts: [
    { endpoint: 'other', outcome: 'dial_failed', http_status: null, duration_ms: 3, cost_nano: 0n },
    { endpoint: 'deepseek', outcome: 'answered', http_status: 200, duration_ms: 997, cost_nano: 9_007_199_254_740_993n },
  ],
  price_version: 'sell:deepseek-chat@2026-08-17',
  price_rule: 'base',
  amount_nano: 9_007_199_254_740_993n,
  cost_nano: 9_007_199_254_740_993n,
  parts: [{ grant: 'wallet:acme', unit: 'nano_cny', amount: 9_007_199_254_740_993n }],
  hold: {
    v: 1,
    id: '0199a1b2-1111-7abc-8abc-0123456789ab',
    tenant: 'acme',
    project: 'default',
    key: 'key_1',
    model: 'deepseek-chat',
    admitted_at: 1_790_000_000_000,
    expires_at: 1_790_000_030_000,
    tokens: 1200,
    amount_nano: 9_007_199_254_740_995n,
    parts: [{ grant: 'wallet:acme', unit: 'nano_cny', amount: 9_007_199_254_740_995n }],
  },
  overrun_nano: 0n,
  flags: ['late'],
  node: 'n-12345678',
  seq: 7,
}

const OPEN: OpenRow = {
  v: 1,
  hold: EVENT.hold,
  day: '2026-09-21',
  end_user: 'f00d',
  tags: EVENT.tags,
  protocol: 'chat_completions',
  audience: 'internal',
  registry_date: null,
  model_asked: 'auto',
  route: 'auto',
  domain: 'general',
  stream: false,
  thinking: true,
  prompt_tokens: 17,
  targets: [
    {
      endpoint: 'deepseek',
      provider: 'deepseek',
      model: 'deepseek-chat',
      zone: 'domestic',
      filing: null,
      dialect: 'openai',
      price_version: 'sell:deepseek-chat@2026-08-17',
      cost_version: null,
    },
  ],
}

const CHECKPOINT: CheckpointRow = {
  v: 1,
  id: EVENT.id,
  at: 1_790_000_000_500,
  endpoint: 'deepseek',
  tokens: EVENT.tokens,
  ttfe_ms: null,
  attempts: EVENT.attempts,
}

function changed(change: (plain: Record<string, unknown>) => void): string {
  const plain = JSON.parse(encodeEvent(EVENT)) as Record<string, unknown>
  change(plain)
  return JSON.stringify(plain)
}

describe('the JSON of an event', () => {
  test('comes back as it was, amounts above 2^53 and tags named like amounts included', () => {
    const back = decodeEvent(encodeEvent(EVENT))
    expect(back).toEqual(EVENT)
    expect(back.amount_nano).toBe(9_007_199_254_740_993n)
    expect(Object.entries(back.tags)).toEqual(Object.entries(EVENT.tags))
  })

  test('has its amounts as decimal strings', () => {
    const plain = JSON.parse(encodeEvent(EVENT)) as { amount_nano: unknown; hold: { parts: { amount: unknown }[] } }
    expect(plain.amount_nano).toBe('9007199254740993')
    expect(plain.hold.parts[0]?.amount).toBe('9007199254740995')
  })

  test('is the same whether the journal numbers it or the whole event is encoded', () => {
    const { node, seq, ...unnumbered } = EVENT
    expect(numberEvent(encodeUnnumbered(unnumbered), node, seq)).toBe(encodeEvent(EVENT))
    expect(decodeEvent(numberEvent(encodeUnnumbered(unnumbered), 'n-"\\', 8))).toEqual({ ...EVENT, node: 'n-"\\', seq: 8 })
    expect(() => encodeUnnumbered(EVENT)).toThrow(InvariantError)
  })

  test('keeps, byte for byte, members that this release does not know', () => {
    const json = changed((plain) => Object.assign(plain, { later_member: { a: ['1'] } }))
    expect(encodeEvent(decodeEvent(json))).toBe(json)
  })

  test.each([
    ['text that is not JSON', '{"v":1', 'event: not JSON'],
    ['no object', 'null', 'event: not an object with a version'],
    ['no version', '{}', 'event: not an object with a version'],
    ['another version', changed((plain) => (plain['v'] = 2)), 'event: version 2 is not one'],
    ['a hold of another version', changed((plain) => (plain['hold'] = { v: 3 })), 'hold: version 3 is not one'],
    ['no hold', changed((plain) => delete plain['hold']), 'hold: not an object'],
    ['an amount that is a number', changed((plain) => (plain['amount_nano'] = 12)), 'amount_nano: not a decimal integer in a string'],
    ['a missing amount', changed((plain) => delete plain['cost_nano']), 'cost_nano: not a decimal integer'],
    ['an empty amount', changed((plain) => (plain['overrun_nano'] = '')), 'overrun_nano: not a decimal integer'],
    ['a hexadecimal amount', changed((plain) => (plain['overrun_nano'] = '0x10')), 'overrun_nano: not a decimal integer'],
    ['a fraction', changed((plain) => (plain['amount_nano'] = '1.5')), 'amount_nano: not a decimal integer'],
    ['an amount without end', changed((plain) => (plain['amount_nano'] = '9'.repeat(41))), 'amount_nano: not a decimal integer'],
    ['attempts that are no list', changed((plain) => (plain['attempts'] = {})), 'attempts: not a list of objects'],
    ['a part that is nothing', changed((plain) => (plain['parts'] = [null])), 'parts: not a list of objects'],
  ])('is refused with %s', (_, json, message) => {
    expect(() => decodeEvent(json)).toThrow(EncodingError)
    expect(() => decodeEvent(json)).toThrow(message)
  })

  test('is refused without quoting what it held', () => {
    const json = changed((plain) => (plain['amount_nano'] = 'sk-weir-secret'))
    expect(() => decodeEvent(json)).toThrow(expect.objectContaining({ message: expect.not.stringContaining('secret') }))
    expect(() => decodeEvent('sk-weir-secret')).toThrow(expect.objectContaining({ message: expect.not.stringContaining('secret') }))
  })
})

describe('the JSON of the other journal rows', () => {
  test('a receipt comes back as it was', () => {
    expect(decodeReceipt(encodeReceipt(EVENT.hold))).toEqual(EVENT.hold)
  })

  test('a held part keeps its weight, and one without a weight is written as before there were any', () => {
    const part = { grant: 'pack', unit: 'tokens', amount: 9n } as const
    const json = encodeReceipt({ ...EVENT.hold, parts: [part, { ...part, weight_micro: 500_000 }] })
    expect(json).toContain(
      '"parts":[{"grant":"pack","unit":"tokens","amount":"9"},{"grant":"pack","unit":"tokens","amount":"9","weight_micro":500000}]',
    )
    expect(decodeReceipt(json).parts).toStrictEqual([part, { ...part, weight_micro: 500_000 }])
    expect(encodeReceipt(decodeReceipt(json))).toBe(json)
  })

  test('a receipt that was written before grants had weights is read', () => {
    const old =
      '{"v":1,"id":"0199a1b2-1111-7abc-8abc-0123456789ab","tenant":"acme","project":"default","key":"key_1","model":"m",' +
      '"admitted_at":1790000000000,"expires_at":1790000030000,"tokens":1200,"amount_nano":"9007199254740993",' +
      '"parts":[{"grant":"pack","unit":"tokens","amount":"30"},{"grant":"wallet:acme","unit":"nano_cny","amount":"9007199254740993"}]}'
    expect(decodeReceipt(old).parts).toStrictEqual([
      { grant: 'pack', unit: 'tokens', amount: 30n },
      { grant: 'wallet:acme', unit: 'nano_cny', amount: 9_007_199_254_740_993n },
    ])
    expect(encodeReceipt(decodeReceipt(old))).toBe(old)
  })

  test('an open row comes back as it was', () => {
    expect(decodeOpenRow<OpenRow>(encodeOpenRow(OPEN))).toEqual(OPEN)
  })

  test('a checkpoint comes back as it was', () => {
    expect(decodeCheckpointRow<CheckpointRow>(encodeCheckpointRow(CHECKPOINT))).toEqual(CHECKPOINT)
  })

  test('a checkpoint keeps the receipt of a hold that was extended', () => {
    const extended: CheckpointRow = { ...CHECKPOINT, hold: { ...EVENT.hold, tokens: 9000 } }
    const json = encodeCheckpointRow(extended)
    expect(decodeCheckpointRow<CheckpointRow>(json)).toEqual(extended)
    expect(encodeCheckpointRow(decodeCheckpointRow<CheckpointRow>(json))).toBe(json)
    expect(encodeCheckpointRow(CHECKPOINT)).not.toContain('hold')
  })

  test('each is refused in another version', () => {
    expect(() => decodeReceipt('{"v":2}')).toThrow('receipt: version 2')
    expect(() => decodeOpenRow<OpenRow>('{"v":2}')).toThrow('open row: version 2')
    expect(() => decodeCheckpointRow<CheckpointRow>('{"v":2}')).toThrow('checkpoint row: version 2')
  })
})
