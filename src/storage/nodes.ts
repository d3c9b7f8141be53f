/** Processes that share one ledger, and what each says of itself. */

/** What a process says of itself every few seconds. */
export interface NodeBeat {
  /** Name of its journal. */
  readonly node: string
  readonly roles: readonly string[]
  readonly version: string
  /** Number of the last event that its journal has committed: every number up to it must be found in the ledger in the end. */
  readonly last_seq: number
  /** Events in its journal that are not in the ledger, as far as it knows. */
  readonly unposted: number
  readonly stopped: boolean
}
export interface NodeState extends NodeBeat {
  /** By the database's clock, Unix ms. */
  readonly beat_at: number
  /** How long ago that was, by the same clock. */
  readonly silent_ms: number
}

/** A node that says nothing for so long has stopped serving: nobody waits for it. */
export const SILENT_MS = 10_000

/** Neither stopped nor heard of: what only its journal has is missing from the ledger until it is back. */
export function isSilent({ stopped, silent_ms }: Pick<NodeState, 'stopped' | 'silent_ms'>): boolean {
  return !stopped && silent_ms >= SILENT_MS
}

export function isLiveGateway(node: Pick<NodeState, 'roles' | 'stopped' | 'silent_ms'>): boolean {
  return node.roles.includes('gateway') && !node.stopped && !isSilent(node)
}

/** This process's place among those that serve: what limits that nobody keeps together are divided by. */
export interface ProcessShare {
  readonly processes: number
  /** From 0, below `processes`. */
  readonly rank: number
}

/** A process that has everything to itself. */
export const ALONE: ProcessShare = Object.freeze({ processes: 1, rank: 0 })

/** The share of a gateway by what it last heard of the others; before that it counts itself alone. */
export function processShare(nodes: readonly Pick<NodeState, 'node' | 'roles' | 'stopped' | 'silent_ms'>[], own: string): ProcessShare {
  const serving = nodes
    .filter((node) => node.node === own || isLiveGateway(node))
    .map(({ node }) => node)
    .toSorted()
  const rank = serving.indexOf(own)
  return rank < 0 ? { processes: serving.length + 1, rank: serving.length } : { processes: serving.length, rank }
}

/** What is known of every process that posts to a ledger. */
export interface Nodes {
  list(): Promise<readonly NodeState[]>
  /**
   * Takes a node for stopped whose machine is gone for good: nobody waits for it any more. Numbers of its events that are nowhere stay
   * missing, and audits name them.
   * @returns false if there is none of this name, or it lives
   */
  retire(node: string): Promise<boolean>
}

/** Of a ledger that a command has opened by itself, because no process runs. */
export const NO_NODES: Nodes = { list: () => Promise.resolve([]), retire: () => Promise.resolve(false) }
