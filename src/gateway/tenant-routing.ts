import type { TenantRouting } from '../routing/tenant.ts'
import type { Caller } from './call.ts'

const NOTHING: TenantRouting = Object.freeze({ evidence: null, models: new Map() })

/** What a caller's tenant says of its own traffic. */
export function tenantRoutingOf({ routing }: Caller): TenantRouting {
  return routing ?? NOTHING
}
