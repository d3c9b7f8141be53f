import type { Role } from './config/model.ts'
import { metricsTogether, startGateways, type Gateways } from './start/primary.ts'
import { configurationOrThrow, startWeir, type Weir, type WeirOptions } from './weir.ts'

/** Everything that this machine runs. */
export interface Machine extends Omit<Weir, 'url' | 'admin_url' | 'metrics'> {
  readonly url: string | null
  readonly admin_url: string | null
}

/**
 * Starts what a machine is to run: all of it in this process or, where the settings want several gateways, those in processes of their
 * own, looked after by this one, which has the other roles.
 *
 * @throws as {@link startWeir}, and Error if a gateway does not start
 */
export async function startMachine(options: WeirOptions): Promise<Machine> {
  const { roles, workers } = configurationOrThrow(options).settings
  if (workers <= 1 || !roles.includes('gateway')) return await startWeir(options)
  return await startMany(options, roles, workers)
}

async function startMany(options: WeirOptions, roles: readonly Role[], workers: number): Promise<Machine> {
  const { clock, logger } = options
  let gateways: Gateways | null = null
  const measured = async (): ReturnType<Gateways['metrics']> => (gateways === null ? [] : await gateways.metrics())
  const own = await startWeir({
    ...options,
    roles: roles.filter((role) => role !== 'gateway'),
    metricsOf: (metrics) => metricsTogether(metrics, measured),
  })
  try {
    const sandbox = own.sandbox_url === null ? {} : { WEIR_SANDBOX_URL: own.sandbox_url }
    gateways = await startGateways({
      count: workers,
      envOf: () => ({ WEIR_ROLES: 'gateway', WEIR_WORKERS: '1', ...sandbox }),
      clock,
      logger,
    })
  } catch (error) {
    await own.drain()
    throw error
  }
  const started = gateways
  return {
    ...own,
    url: started.url,
    reload: async () => {
      started.reload()
      return await own.reload()
    },
    drain: async () => {
      await started.drain()
      await own.drain()
    },
  }
}
