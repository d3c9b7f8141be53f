import { setImmediate as turn } from 'node:timers/promises'
import { expect, it, vi } from 'vitest'
import type { Admission } from '../../src/gateway/admit.ts'
import { Lease } from '../../src/gateway/lease.ts'
import { newProgress, NOTHING_EARLIER } from '../../src/gateway/progress.ts'
import { StreamTicker } from '../../src/gateway/ticker.ts'
import { createLogger } from '../../src/observe/log.ts'
import type { ExtendRequest, Limits, UsageLog } from '../../src/storage/ports.ts'
import { testClock } from '../support/clock.ts'
import { openRow } from '../support/storage.ts'

const SLICE = 100

/** A ticker whose extensions are all granted, and what it asked for. */
function tickerOf(): { ticker: StreamTicker; asked: ExtendRequest[][] } {
  const asked: ExtendRequest[][] = []
  const extend: Limits['extend'] = async (requests) => {
    asked.push([...requests])
    return requests.map(({ id }) => ({ id, state: 'extended', receipt: openRow(id).hold }))
  }
  const [limits, log] = [{ extend } as Partial<Limits>, {} as Partial<UsageLog>]
  const ticker = new StreamTicker(limits as Limits, log as UsageLog, testClock(), createLogger({ level: 'error' }))
  return { ticker, asked }
}

function leaseOf(id: string, ticker: StreamTicker): Lease {
  const quote = { prompt_bound: 10, output_limit: 10 * SLICE, output_held: SLICE, choices: 1, price: { rules: [] } }
  const admission: unknown = { quote, capped_tokens: null, receipt: openRow(id).hold }
  return new Lease(admission as Admission, newProgress(NOTHING_EARLIER), ticker)
}

it('an extension between two ticks looks at the streams that ask, not at every open one', async () => {
  const { ticker, asked } = tickerOf()
  const leases = Array.from({ length: 1000 }, (_, number) => leaseOf(`request-${number}`, ticker))
  const looked = vi.spyOn(Lease.prototype, 'dueExtension')
  for (const lease of [leases[3], leases[700]]) expect(lease?.allowance(SLICE)).toBe('wait')
  await turn()
  expect(asked.map((batch) => batch.map(({ id }) => id))).toEqual([['request-3', 'request-700']])
  expect(looked).toHaveBeenCalledTimes(2)
  await turn()
  expect([leases[3]?.allowance(SLICE), leases[3]?.allowance(2 * SLICE)]).toEqual(['go', 'wait'])
  await turn()
  expect(asked[1]).toMatchObject([{ id: 'request-3', tokens: 10 + 3 * SLICE }])
  looked.mockRestore()
})

it('a request that ends before its turn asks for nothing', async () => {
  const { ticker, asked } = tickerOf()
  const [ended, open] = [leaseOf('ended', ticker), leaseOf('open', ticker)]
  ended.allowance(SLICE)
  open.allowance(SLICE)
  ended.end()
  await turn()
  expect(asked.map((batch) => batch.map(({ id }) => id))).toEqual([['open']])
})
