import type { NodeBeat, NodeState } from '../nodes.ts'
import { numberOf, textOf } from '../sql/executor.ts'
import type { Database } from './database.ts'
import { NOW_MS } from './entries.ts'

/** A node's number never goes back: an older beat that comes late says nothing of what was committed since. */
const BEAT =
  'INSERT INTO nodes (node, roles, version, last_seq, unposted, stopped, beat_at) ' +
  `VALUES ($1, $2, $3, $4, $5, $6, ${NOW_MS}) ON CONFLICT (node) DO UPDATE SET roles = excluded.roles, version = excluded.version, ` +
  'last_seq = GREATEST(nodes.last_seq, excluded.last_seq), unposted = excluded.unposted, stopped = excluded.stopped, beat_at = excluded.beat_at'

export async function beat({ node, roles, version, last_seq, unposted, stopped }: NodeBeat, database: Database): Promise<void> {
  await database.transaction((session) => session.prepared(BEAT, [node, JSON.stringify(roles), version, last_seq, unposted, stopped]))
}

const NODES = `SELECT *, ${NOW_MS} AS now_ms FROM nodes ORDER BY node`

export async function readNodes(database: Pick<Database, 'read'>): Promise<readonly NodeState[]> {
  const [rows = []] = await database.read([{ sql: NODES, params: [] }])
  return rows.map((row) => ({
    node: textOf(row, 'node'),
    roles: JSON.parse(textOf(row, 'roles')) as readonly string[],
    version: textOf(row, 'version'),
    last_seq: numberOf(row, 'last_seq'),
    unposted: numberOf(row, 'unposted'),
    stopped: row['stopped'] === 1n,
    beat_at: numberOf(row, 'beat_at'),
    silent_ms: Math.max(0, numberOf(row, 'now_ms') - numberOf(row, 'beat_at')),
  }))
}
