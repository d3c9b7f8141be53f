import type { TenantEvidence } from '../routing/evidence.ts'
import type { VirtualModel } from '../routing/virtual.ts'
import type { Caller } from './call.ts'

/** What a tenant says of its own traffic. */
export interface TenantRouting {
  /** Null where it has neither rules nor samples. */
  readonly evidence: TenantEvidence | null
  /** Its own virtual models, by the name that callers ask for. */
  readonly models: ReadonlyMap<string, VirtualModel>
}

const NOTHING: TenantRouting = Object.freeze({ evidence: null, models: new Map() })

/** The routing of a caller's tenant. Tenants have none of their own in this release. */
export function tenantRoutingOf(_caller: Caller): TenantRouting {
  return NOTHING
}
