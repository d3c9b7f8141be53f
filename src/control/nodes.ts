import type { ControlDeps } from './deps.ts'
import { AdminProblem, isoOf } from './problem.ts'
import { isSilent, type NodeState } from '../storage/nodes.ts'

type NodeDeps = Pick<ControlDeps, 'nodes'>

/** Every process that posts to this ledger, by name. */
export async function listNodes({ nodes }: NodeDeps): Promise<object> {
  return { object: 'list', data: (await nodes.list()).map(nodeView) }
}

/**
 * Takes a node for stopped whose machine is gone for good.
 * @throws AdminProblem `not_found`, or `conflict` while it lives
 */
export async function retireNode(name: string, { nodes }: NodeDeps): Promise<object> {
  if (!(await nodes.retire(name))) {
    const known = (await nodes.list()).some(({ node }) => node === name)
    if (known) throw new AdminProblem('conflict', `the node ${name} lives: stop it instead.`)
    throw new AdminProblem('not_found', `There is no node ${name}.`)
  }
  const node = (await nodes.list()).find((other) => other.node === name)
  return node === undefined ? { object: 'node', node: name } : nodeView(node)
}

function nodeView(state: NodeState): object {
  const { node, roles, version, last_seq, unposted, stopped, beat_at } = state
  return {
    object: 'node',
    node,
    state: stopped ? 'stopped' : isSilent(state) ? 'silent' : 'live',
    roles,
    version,
    last_event: last_seq,
    unposted,
    heard_at: isoOf(beat_at),
  }
}
