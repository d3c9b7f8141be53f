import { beforeEach, describe, expect, it } from 'vitest'
import { AwayLimits } from '../../src/storage/cluster/away.ts'
import { LimitsUnavailable, type SharedLimits } from '../../src/storage/cluster-ports.ts'
import type { ExtendRequest, HoldRequest } from '../../src/storage/ports.ts'
import { testClock, type TestClock } from '../support/clock.ts'

const LINE_NANO = 1000n

function request(id: string, amount_nano: bigint): HoldRequest {
  return {
    v: 1,
    id,
    tenant: 'acme',
    project: 'acme/default',
    key: 'key',
    model: 'tide',
    lease_ms: 30_000,
    tokens: 10,
    grant_tokens: 10,
    minimum_tokens: 1,
    amount_nano,
    minimum_nano: amount_nano,
    rules: [],
    credit_line_nano: LINE_NANO,
    when_away: 'open',
  }
}

const extension = (id: string, amount_nano: bigint): ExtendRequest => ({ id, tenant: 'acme', tokens: 20, amount_nano, lease_ms: 30_000 })

describe('what a process lends while limits are away', () => {
  let away = true
  let forgotten: string[] = []
  let clock: TestClock
  let limits: AwayLimits

  beforeEach(() => {
    away = true
    forgotten = []
    clock = testClock()
    const answer = <Result>(result: Result): Promise<Result> =>
      away ? Promise.reject(new LimitsUnavailable('away', 'away')) : Promise.resolve(result)
    const refusal = { reason: 'balance', rule: null, available: 0n, held: 0n, needed: 0n, frees_at_ms: null } as const
    const shared: Pick<SharedLimits, 'hold' | 'extend' | 'forget' | 'isMine'> = {
      hold: () => answer({ ok: false, refusal, rates: { requests: null, tokens: null } } as const),
      extend: (requests) => answer(requests.map(({ id }) => ({ id, state: 'lapsed' }) as const)),
      forget: (id) => void forgotten.push(id),
      isMine: () => false,
    }
    limits = new AwayLimits({ shared: shared as SharedLimits, clock, liveNodes: () => 2 })
  })

  const lent = async (id: string, amount_nano: bigint): Promise<boolean> => (await limits.hold(request(id, amount_nano))).ok

  it('is its part of the credit line, however often limits answer in between', async () => {
    expect(await lent('one', 400n)).toBe(true)
    expect(await lent('two', 200n)).toBe(false)
    away = false
    await limits.hold(request('asked', 1n))
    away = true
    expect(await lent('three', 200n)).toBe(false)
    expect(await lent('four', 100n)).toBe(true)
  })

  it('begins anew when limits have answered for a while and what was lent has come to its end', async () => {
    expect(await lent('one', 500n)).toBe(true)
    away = false
    clock.advance(60_000)
    await limits.hold(request('asked', 1n))
    away = true
    expect(await lent('two', 500n)).toBe(false)
    await limits.settleEvent({ id: 'one', tenant: 'acme', admitted_at: 0, tokens: 1, amount_nano: 500n, parts: [] })
    away = false
    clock.advance(60_000)
    await limits.hold(request('asked', 1n))
    away = true
    expect(await lent('three', 500n)).toBe(true)
  })

  it('is extended though the holds of others in the same batch cannot be', async () => {
    await lent('one', 100n)
    expect(await limits.extend([extension('one', 200n), extension('elsewhere', 200n)])).toMatchObject([{ id: 'one', state: 'extended' }])
    await expect(limits.extend([extension('elsewhere', 200n)])).rejects.toMatchObject({ kind: 'away' })
  })

  it('of a request that is forgotten stays used, and is no longer its own', async () => {
    await lent('one', 500n)
    limits.forget('one')
    expect(limits.isMine('one')).toBe(false)
    expect(forgotten).toEqual(['one'])
    expect(await lent('two', 1n)).toBe(false)
  })
})
