/** What was asked of the benchmark, and what all of its parts share. */
import { join } from 'node:path'
import { seed, type Seed } from './seed.ts'
import type { Client, Subject } from './subjects.ts'

export interface Plan {
  readonly quick: boolean
  readonly parts: ReadonlySet<string>
  readonly entry: string
  readonly beside: string | null
}

export interface Bench {
  readonly plan: Plan
  /** A directory that is deleted at the end. */
  readonly dir: string
  readonly upstream_port: number
  readonly client: Client
  readonly nginx: Subject | null
}

/** Configuration and data for a gateway with so many keys and models, in a directory of that name. */
export function seedAs(bench: Bench, name: string, keys: number, models: number): Promise<Seed> {
  return seed({ dir: join(bench.dir, name), upstream_port: bench.upstream_port, keys, models })
}
