import type { Configuration, Endpoint, Model } from '../config/model.ts'

/** What the data plane reads of the configuration: one frozen object, swapped whole. */
export interface Snapshot {
  readonly configuration: Configuration
  /** Models that have at least one callable endpoint, a chat model first. */
  readonly callable: readonly Model[]
  readonly endpoints: ReadonlyMap<string, Endpoint>
}

/** Builds the snapshot of a configuration. Computed at a change, never per request. */
export function buildSnapshot(configuration: Configuration): Snapshot {
  const models = [...configuration.catalogue.models.values()].filter((model) => model.endpoints.length > 0)
  const callable = models.toSorted((a, b) => Number(b.kind === 'chat') - Number(a.kind === 'chat'))
  const endpoints = new Map(models.flatMap((model) => model.endpoints.map((endpoint) => [endpoint.id, endpoint] as const)))
  return Object.freeze({ configuration, callable, endpoints })
}
