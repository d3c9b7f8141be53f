import { expect, it } from 'vitest'
import type { RowMessage } from '../../src/storage/journal/protocol.ts'
import { endsOf, OwedRows } from '../../src/storage/journal/owed.ts'
import { atEnd } from '../support/cleanup.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { refuseCommits } from '../support/refuse-commits.ts'
import { closingEvent, openRow, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

const SOON_MS = 20_000

it('ends of requests that the journal refused are in it once it can be written, without a restart and once', async () => {
  const data_dir = tempDir()
  const storage = await openTest(data_dir)
  atEnd(() => storage.close())
  const { log, ledger } = storage
  for (const id of ['a', 'b', 'released', 'going on']) await log.open(openRow(id))
  const allow = refuseCommits(data_dir)
  const refused = { name: 'JournalUnavailable', reason: 'io' }
  const closes = ['a', 'b', 'b'].map((id) => expect(log.close(closingEvent(id))).rejects.toMatchObject(refused))
  await Promise.all(closes)
  log.release('released')
  await expect(log.open(openRow('never began'))).rejects.toMatchObject(refused)
  await expect(log.close(closingEvent('b', { revision: 2 }))).rejects.toMatchObject(refused)
  expect(log.health().ok).toBe(false)
  allow()
  const open = async (): Promise<readonly string[]> => (await ledger.auditFacts()).open_requests
  await waitFor(async () => (await open()).join() === 'going on', { timeout_ms: SOON_MS, what: 'the ends to be written' })
  expect(await log.close(closingEvent('going on'))).toBe(4)
  await ledger.post()
  const { events } = await ledger.events({ limit: 100 })
  const numbered = events.toSorted((a, b) => a.seq - b.seq).map(({ id, revision, seq }) => [id, revision, seq])
  expect(numbered).toEqual([
    ['a', 1, 1],
    ['b', 2, 3],
    ['going on', 1, 4],
  ])
  expect(await ledger.auditFacts()).toMatchObject({ open_requests: [], missing_events: [], unexplained_events: [], gaps: [] })
})

it('a first revision that was refused is not written after the second', async () => {
  const data_dir = tempDir()
  const storage = await openTest(data_dir)
  atEnd(() => storage.close())
  const { log, ledger } = storage
  await log.open(openRow('a'))
  const allow = refuseCommits(data_dir)
  await expect(log.close(closingEvent('a'))).rejects.toMatchObject({ reason: 'io' })
  allow()
  const nothing = { revision: 2, amount_nano: 0n, parts: [] } as const
  expect(await log.close(closingEvent('a', nothing))).toBe(1)
  expect(await log.close(closingEvent('b'))).toBe(2)
  await ledger.post()
  expect(await ledger.event('a')).toMatchObject({ revision: 2, amount_nano: 0n })
  expect(await ledger.auditFacts()).toMatchObject({ open_requests: [], differing_events: [], wrong_sums: [], wrong_rollups: [], gaps: [] })
})

it('what was refused is written by an orderly close at the latest', async () => {
  const data_dir = tempDir()
  const storage = await openTest(data_dir)
  await storage.log.open(openRow('a'))
  const allow = refuseCommits(data_dir)
  await expect(storage.log.close(closingEvent('a'))).rejects.toMatchObject({ reason: 'io' })
  allow()
  await storage.close()
  const again = await openTest(data_dir)
  atEnd(() => again.close())
  expect(await again.log.unfinished()).toEqual([])
  expect(await again.ledger.event('a')).toMatchObject({ id: 'a', seq: 1 })
})

it('a stream whose end was refused ends with an error, and is on the books as charged once there is room', async () => {
  const gateway = await startGateway({ sandbox: { tokens: 30, token_delay_ms: 5 } })
  const response = await gateway.chat({ stream: true })
  const allow = refuseCommits(gateway.data_dir)
  const text = await response.text()
  expect(text).toContain('admission_unavailable')
  expect(text).not.toContain('[DONE]')
  expect((await gateway.chat({})).status).toBe(503)
  const { available_nano } = await balanceOf(gateway)
  allow()
  expect((await gateway.audit()).events).toBe(1)
  const event = await gateway.event(response.headers.get('x-request-id'))
  expect(event).toMatchObject({ revision: 1, tokens: { output: 30 } })
  expect(await balanceOf(gateway)).toMatchObject({ available_nano, held_nano: 0n, open_holds: 0 })
  expect((await gateway.chat({})).status).toBe(200)
})

it('a whole answer whose end was refused costs nothing: nothing of it left', async () => {
  const gateway = await startGateway()
  const before = await balanceOf(gateway)
  const response = gateway.chat({ sandbox: { tokens: 10, first_token_delay_ms: 500 } })
  await waitFor(() => gateway.sandbox.served().totals.open === 1, { timeout_ms: SOON_MS, what: 'the request to be at its upstream' })
  const allow = refuseCommits(gateway.data_dir)
  expect((await response).status).toBe(503)
  allow()
  expect((await gateway.audit()).events).toBe(1)
  const event = await gateway.event((await response).headers.get('x-request-id'))
  expect(event).toMatchObject({ revision: 2, status: 'failed', amount_nano: 0n, parts: [], flags: ['sandbox', 'withdrawn'] })
  expect(await balanceOf(gateway)).toEqual(before)
})

function balanceOf({ storage, tenant }: TestGateway): ReturnType<typeof storage.limits.balance> {
  return storage.limits.balance(tenant)
}

it('keeps so many and no more, each once, and nothing of requests that never began', () => {
  const owed = new OwedRows(2)
  const event: RowMessage = ['U', 'a', '{}', 1, '2026-11-23']
  expect([owed.keep(event), owed.keep(event), owed.keep(['R', 'b']), owed.keep(['R', 'c'])]).toEqual([true, true, true, false])
  expect(owed.next()).toEqual([event, ['R', 'b']])
  owed.settle([['S', 'x', '{}'], event])
  expect(owed.all()).toEqual([['R', 'b']])
  expect(owed.keep(event)).toBe(true)
  owed.settle([['U', 'a', '{}', 2, '2026-11-23']])
  expect(owed.all()).toEqual([['R', 'b']])
  expect(endsOf([['S', 'n', '{}'], ['C', 'a', '{}'], ['R', 'n'], event])).toEqual([event])
})
