import type { Clock } from '../base/clock.ts'
import type { RandomBytes } from '../base/ids.ts'
import type { ProjectRecord, Records, TenantRecord } from '../storage/records.ts'
import { creditWallet } from './credit.ts'
import type { ControlDeps } from './deps.ts'
import { makeKey } from './keys.ts'
import { DEFAULT_TIME_ZONE, projectId } from './find.ts'

const DEMO_TENANT = 'demo'
/** 100 CNY: enough for days of trying, and little enough to see it run out. */
const DEMO_CREDIT_NANO = 100_000_000_000n

export interface DemoDeps extends Pick<ControlDeps, 'ledger' | 'credits' | 'turns'> {
  readonly records: Records
  readonly clock: Clock
  readonly random: RandomBytes
  /** Whether there is any key at all. */
  readonly has_keys: boolean
}

/**
 * At the very first start, when there is no tenant at all: a tenant `demo` with a project, 100 CNY of promotional credit and a key.
 * The key is written last, so that a start killed half-way leaves no key that nobody has seen. For demo mode only: the caller's to judge.
 *
 * @returns the key's secret, to be shown once, or null when there are tenants already
 */
export async function createDemo(deps: DemoDeps): Promise<{ readonly secret: string } | null> {
  const { records, clock } = deps
  const tenants = await records.tenants()
  const unfinished = tenants.length === 1 && tenants[0]?.id === DEMO_TENANT && !deps.has_keys
  if (tenants.length > 0 && !unfinished) return null
  const created_at = clock.now_ms()
  const project: ProjectRecord = {
    id: projectId(DEMO_TENANT, 'default'),
    tenant: DEMO_TENANT,
    name: 'default',
    limits: [],
    zones: null,
    created_at,
  }
  await records.put({ kind: 'tenant', record: demoTenant(created_at) })
  await records.put({ kind: 'project', record: project })
  await creditWallet(DEMO_TENANT, { id: 'opening', amount_nano: DEMO_CREDIT_NANO, kind: 'promo', note: 'opening credit of the demo' }, deps)
  const { record, secret } = makeKey(
    { tenant: DEMO_TENANT, project: project.id, name: 'demo', models: null, zones: null, limits: [], expires_at: null },
    deps,
  )
  await records.put({ kind: 'key', record })
  return { secret }
}

function demoTenant(created_at: number): TenantRecord {
  return {
    id: DEMO_TENANT,
    name: 'Demo',
    audience: 'internal',
    status: 'active',
    locale: 'en',
    time_zone: DEFAULT_TIME_ZONE,
    zones: ['private', 'domestic'],
    on_client_abort: 'cancel',
    on_limits_away: 'closed',
    credit_line_nano: 0n,
    limits: [],
    priority: 'normal',
    queue_weight: 1,
    created_at,
  }
}
