import { describe, expect, test } from 'vitest'
import { compareServed, type ServedRow } from '../../src/control/served.ts'
import type { UsageEvent } from '../../src/money/event.ts'
import { NO_TOKENS } from '../../src/money/usage.ts'
import { closingEvent } from '../support/storage.ts'

const ROW: ServedRow = {
  request_id: 'r',
  attempt: 1,
  path: '/v1/chat/completions',
  prompt_tokens: 120,
  cached_tokens: 20,
  sent_tokens: 50,
  finished: true,
  ended_at: 1,
  status: 200,
}

function event(overrides: Parameters<typeof closingEvent>[1] = {}): UsageEvent {
  return { ...closingEvent('r', overrides), node: 'n', seq: 1 }
}

async function findings(rows: readonly ServedRow[], events: readonly UsageEvent[], open: readonly string[] = []): Promise<string[]> {
  async function* all(): AsyncGenerator<UsageEvent> {
    yield* events
    await Promise.resolve()
  }
  return (await compareServed(rows, all(), new Set(open))).map(({ rule, found }) => `${rule}: ${found}`)
}

describe('what was served against what was billed', () => {
  test('agrees for an answer billed exactly', async () => {
    expect(await findings([ROW], [event()])).toEqual([])
  })

  test.each([
    ['a token too many', { input: 100, cached_input: 20, cache_write: 0, output: 51, reasoning: 0 }],
    ['a token too few', { input: 100, cached_input: 20, cache_write: 0, output: 49, reasoning: 0 }],
    ['a prompt token counted twice', { input: 120, cached_input: 20, cache_write: 0, output: 50, reasoning: 0 }],
    ['cached tokens billed as fresh', { input: 120, cached_input: 0, cache_write: 0, output: 50, reasoning: 0 }],
  ])('finds %s in a completed answer', async (_, tokens) => {
    const [first] = await findings([ROW], [event({ tokens })])
    expect(first).toContain('a completed answer is billed exactly')
  })

  test('a broken answer may be billed up to what was sent, and no further', async () => {
    const cut = { ...ROW, finished: false, sent_tokens: 10 }
    const tokens = { input: 100, cached_input: 20, cache_write: 0, output: 8, reasoning: 0 }
    expect(await findings([cut], [event({ status: 'aborted', usage_source: 'estimated', tokens })])).toEqual([])
    expect(await findings([cut], [event({ status: 'truncated', tokens: NO_TOKENS })])).toEqual([])
    expect(await findings([cut], [event({ status: 'aborted', tokens: { ...tokens, output: 11 } })])).toHaveLength(1)
  })

  test('what the sandbox refused or never saw bills nothing', async () => {
    const nothing = event({ status: 'failed', tokens: NO_TOKENS, amount_nano: 0n })
    expect(await findings([{ ...ROW, status: 500 }], [nothing])).toEqual([])
    expect(await findings([], [nothing])).toEqual([])
    expect(await findings([{ ...ROW, status: 500 }], [event()])).toEqual(['what the sandbox refused bills nothing: 170 tokens'])
    expect(await findings([], [event()])).toEqual(['what the sandbox never saw bills nothing: 170 tokens'])
  })

  test('an answered request without an event is found, unless it is still open or was refused', async () => {
    expect(await findings([ROW], [])).toEqual(['an answered request has its event: none'])
    expect(await findings([ROW], [], ['r'])).toEqual([])
    expect(
      await findings(
        [
          { ...ROW, status: 429 },
          { ...ROW, status: null },
        ],
        [],
      ),
    ).toEqual([])
  })

  test('the last answered try is the one that counts', async () => {
    const first = { ...ROW, sent_tokens: 0, finished: false }
    expect(await findings([{ ...ROW, attempt: 2 }, first], [event()])).toEqual([])
  })

  test('calls that did not come through a gateway are left alone', async () => {
    expect(
      await findings(
        [
          { ...ROW, request_id: '' },
          { ...ROW, path: '/v1/models' },
        ],
        [],
      ),
    ).toEqual([])
  })
})
