import { dayOf } from '../../src/base/clock.ts'
import type { Storage } from '../../src/storage/open.ts'
import type { ClosingEvent } from '../../src/storage/ports.ts'
import { closingEvent, openRow } from './storage.ts'

export const DAY_MS = 86_400_000

/** Serves requests of one day: opened, closed and posted; one in ten was swept first and then settled late. */
export async function serveDay({ log, ledger }: Pick<Storage, 'log' | 'ledger'>, noon_ms: number, requests: number): Promise<void> {
  const day = dayOf(noon_ms)
  for (let from = 0; from < requests; from += 500) {
    const numbers = Array.from({ length: Math.min(500, requests - from) }, (_, index) => from + index)
    await Promise.all(numbers.map((number) => serve(log, day, noon_ms, number)))
  }
  await ledger.post()
}

async function serve(log: Storage['log'], day: string, noon_ms: number, number: number): Promise<void> {
  const id = `${day}-${String(number).padStart(6, '0')}`
  const admitted_at = noon_ms + number * 100
  const parts: ClosingEvent['parts'] = [
    { grant: 'wallet-acme', unit: 'nano_cny', amount: BigInt(1000 + number) },
    ...(number % 7 === 0 ? [{ grant: 'pack-1', unit: 'tokens', amount: 5n } as const] : []),
  ]
  const event = closingEvent(id, { day, admitted_at, ended_at: admitted_at + 900, amount_nano: BigInt(1000 + number), parts })
  await log.open({ ...openRow(id), day, hold: { ...openRow(id).hold, admitted_at } })
  if (number % 10 === 0) {
    await log.close({
      ...event,
      status: 'swept',
      usage_source: 'swept',
      amount_nano: 1n,
      parts: [{ grant: 'wallet-acme', unit: 'nano_cny', amount: 1n }],
    })
    await log.close({ ...event, revision: 2, flags: ['late'] })
  } else await log.close(event)
}

/** What an audit finds wrong, by name; empty if nothing. */
export async function wrongFacts({ ledger }: Pick<Storage, 'ledger'>): Promise<Record<string, unknown>> {
  const { events: _, amount_nano: __, balances: ___, ...lists } = await ledger.auditFacts()
  return Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0))
}
