import { DatabaseSync } from 'node:sqlite'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { audit, type AuditReport } from '../../src/control/audit.ts'
import { creditWallet } from '../../src/control/credit.ts'
import { rebuild } from '../../src/control/rebuild.ts'
import { seededRandom } from '../support/random.ts'
import { startGateway, type TestGateway } from '../support/gateway.ts'
import { openRow } from '../support/storage.ts'

const CLIENTS = 6
const LOAD_MS = 6000

/** Streams, whole answers, clients that leave and top-ups, without a pause, until `over` aborts. */
async function load(gateway: TestGateway, over: AbortSignal, seed: number): Promise<void> {
  const random = seededRandom(seed)
  const client = async (): Promise<void> => {
    while (!over.aborted) {
      const stream = random.next() < 0.7
      const leaves = stream && random.next() < 0.3
      const sandbox = { tokens: random.whole(1, 40), ...(random.next() < 0.5 ? { token_delay_ms: random.whole(1, 8) } : {}) }
      const answer = await gateway.chat({ ...(stream ? { stream } : {}), max_tokens: 100, sandbox })
      if (leaves) {
        const reader = answer.body?.getReader()
        await reader?.read()
        await reader?.cancel()
      } else await answer.text()
    }
  }
  const topUps = async (): Promise<void> => {
    for (let number = 1; !over.aborted; number += 1) {
      const credit = { id: `live-${number}`, amount_nano: BigInt(random.whole(1, 1_000_000)), kind: 'top_up', note: '' } as const
      await creditWallet(gateway.tenant, credit, { ...gateway.storage, clock: gateway.plane.clock })
    }
  }
  await Promise.all([...Array.from({ length: CLIENTS }, client), topUps()])
}

function auditOf({ storage, plane }: TestGateway): Promise<AuditReport> {
  const { records, ledger, archive, cut } = storage
  return audit({ records, ledger, archive, cut: () => cut(), clock: plane.clock, offline: false, served: null })
}

function database(gateway: TestGateway): DatabaseSync {
  return new DatabaseSync(join(gateway.data_dir, 'weir.db'), { timeout: 5000 })
}

async function underLoad(gateway: TestGateway, seed: number, work: () => Promise<void>): Promise<void> {
  const over = new AbortController()
  const loaded = load(gateway, over.signal, seed)
  try {
    await sleep(500)
    await work()
  } finally {
    over.abort()
    await loaded
  }
}

it('audits taken one after the other under streams, leaving clients and top-ups all agree, and so does the last one at rest', async () => {
  const gateway = await startGateway()
  let audits = 0
  await underLoad(gateway, 20_261_124, async () => {
    const end = Date.now() + LOAD_MS
    while (Date.now() < end) {
      const { ok, findings, checked } = await auditOf(gateway)
      expect(findings).toEqual([])
      expect(ok).toBe(true)
      expect(checked.events).toBeGreaterThan(0)
      audits += 1
    }
  })
  expect(audits).toBeGreaterThan(3)
  await gateway.audit()
  expect((await auditOf(gateway)).findings).toEqual([])
})

it('a wallet changed behind its back and a deleted event are found under load, named, and put right by a rebuild beside the load', async () => {
  const gateway = await startGateway()
  const { tenant, storage, plane } = gateway
  const deps = { ...storage, clock: plane.clock }
  await underLoad(gateway, 20_261_125, async () => {
    const [wallet] = (await storage.limits.balance(tenant)).grants
    if (wallet === undefined) throw new Error('the account has no wallet')
    await storage.limits.credit({ grant: wallet, delta: 7_000_000_000n, seq: storage.limits.appliedSeq(tenant) + 1 })
    const [changed] = (await auditOf(gateway)).findings
    expect(changed).toMatchObject({ rule: 'admission and ledger agree on balances', id: `${tenant} ${wallet.id}` })
    const [expected, found] = [changed?.expected ?? '', changed?.found ?? ''].map((text) => Number(text.replace(' CNY', '')))
    // A difference that stays is told as it was in the last look, which a request that just ended may be in on one side only.
    expect((found ?? 0) - (expected ?? 0)).toBeCloseTo(7, 1)
    expect(await rebuild(true, deps, () => undefined)).toMatchObject({ changes: [{ what: 'balance that admission uses' }] })
    expect((await auditOf(gateway)).ok).toBe(false)
    expect(await rebuild(false, deps, () => undefined)).toMatchObject({ changes: [{ what: 'balance that admission uses' }] })
    expect((await auditOf(gateway)).findings).toEqual([])

    const { events } = await storage.ledger.events({ limit: 5 })
    const gone = events.at(-1)?.id ?? ''
    const books = database(gateway)
    expect(books.prepare('DELETE FROM events WHERE id = ?').run(gone).changes).toBe(1)
    books.close()
    const findings = (await auditOf(gateway)).findings
    expect(findings[0]).toEqual({ rule: 'every journal event is posted', id: gone, expected: 'an event in the ledger', found: 'none' })
    expect(findings.map(({ rule }) => rule)).toContain('no event number is missing')
    expect(await rebuild(false, deps, () => undefined)).toMatchObject({ changes: [{ what: 'event', id: gone }] })
    expect((await auditOf(gateway)).findings).toEqual([])
    expect(await rebuild(true, deps, () => undefined)).toMatchObject({ changes: [] })
  })
  await gateway.audit()
})

it('a request whose end could not be written, and a hold without its row, are named', async () => {
  const gateway = await startGateway()
  const { storage, tenant, main_account } = gateway
  await storage.log.open(openRow('left-open'))
  const { key } = main_account
  const none = { tokens: 0, grant_tokens: 0, minimum_tokens: 0, amount_nano: 0n, minimum_nano: 0n, rules: [], credit_line_nano: 0n }
  await storage.limits.hold({ v: 1, id: 'held', tenant, project: key.project, key: key.id, model: 'solo', lease_ms: 60_000, ...none })
  expect((await auditOf(gateway)).findings).toMatchObject([
    { rule: 'every open hold has its open request', id: 'held' },
    { rule: 'every open request has its hold', id: 'left-open' },
  ])
})
