import { DatabaseSync } from 'node:sqlite'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { spawnNode } from '../support/processes.ts'
import { openTest } from '../support/storage.ts'
import { propertySeed } from '../support/seed.ts'
import { tempDir } from '../support/temp.ts'

const ROUNDS = 6
const CHILD = 'tests/integration/journal-child.ts'
const PAUSE_MS = 250

function idsOf(output: string, what: 'opened' | 'closed'): readonly string[] {
  // The last line may be cut by the kill.
  return output
    .split('\n')
    .slice(0, -1)
    .filter((line) => line.startsWith(`${what} `))
    .map((line) => line.slice(what.length + 1))
}

it('metered before finished, exactly once: kill -9 at any moment loses and doubles nothing', async () => {
  const data_dir = tempDir()
  let state = propertySeed()
  const closed: string[] = []
  const opened: string[] = []
  for (let round = 0; round < ROUNDS; round += 1) {
    const child = spawnNode(CHILD, [data_dir, `r${round}`])
    await child.waitForOutput(/closed /, 30_000)
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    await new Promise((resolve) => setTimeout(resolve, state % PAUSE_MS))
    await child.stop('SIGKILL')
    closed.push(...idsOf(child.stdout(), 'closed'))
    opened.push(...idsOf(child.stdout(), 'opened'))
  }
  expect(closed.length).toBeGreaterThan(ROUNDS)
  const storage = await openTest(data_dir)
  await storage.ledger.post()
  const events = new Map<string, number>()
  let cursor: string | null = null
  do {
    const page = await storage.ledger.events({ limit: 1000, ...(cursor === null ? {} : { cursor }) })
    for (const event of page.events) events.set(event.id, (events.get(event.id) ?? 0) + 1)
    cursor = page.next_cursor
  } while (cursor !== null)
  expect(closed.filter((id) => events.get(id) !== 1)).toEqual([])
  expect([...events.values()].every((count) => count === 1)).toBe(true)
  const unfinished = new Set((await storage.log.unfinished()).map(({ open }) => open.hold.id))
  expect(opened.filter((id) => events.has(id) === unfinished.has(id))).toEqual([])
  const facts = await storage.ledger.auditFacts()
  expect({ ...facts, open_requests: [] }).toMatchObject({
    unbalanced: [],
    missing_events: [],
    unexplained_events: [],
    differing_events: [],
    wrong_sums: [],
    open_requests: [],
    events: events.size,
    amount_nano: 1000n * BigInt(events.size),
  })
  await storage.close()
  const database = new DatabaseSync(join(data_dir, 'weir.db'))
  const numbers = database.prepare('SELECT COUNT(*) AS count, MAX(seq) AS last FROM events').get()
  expect(numbers?.['count']).toBe(numbers?.['last'])
  database.close()
})
