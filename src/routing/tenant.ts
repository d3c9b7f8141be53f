/** What a tenant says of its own traffic, ready to be asked for each request. Pure. */
import type { RoutingRecord } from '../storage/records.ts'
import { prepareEvidence, type TenantEvidence } from './evidence.ts'
import type { VirtualModel } from './virtual.ts'

export interface TenantRouting {
  /** Null where it has neither rules nor samples. */
  readonly evidence: TenantEvidence | null
  /** By the name that callers ask for. */
  readonly models: ReadonlyMap<string, VirtualModel>
}

/**
 * Prepared once, when a process takes the record: hundreds of samples take milliseconds. Null where there is nothing in it.
 */
export function prepareRouting({ rules, samples, models }: RoutingRecord): TenantRouting | null {
  const evidence = rules.length + samples.length === 0 ? null : prepareEvidence(rules, samples)
  if (evidence === null && models.length === 0) return null
  return { evidence, models: new Map(models.map((model) => [model.id, model])) }
}
