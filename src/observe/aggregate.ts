import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue } from 'prom-client'

/** Everything that one process has measured, as it travels between processes. */
export type MetricsSnapshot = readonly MetricObjectWithValues<MetricValue<string>>[]

/** One text for all processes of a machine: each metric's own rule (sum, unless it says otherwise) joins what they say of it. */
export async function renderTogether(snapshots: readonly MetricsSnapshot[]): Promise<string> {
  return await AggregatorRegistry.aggregate(snapshots.map((snapshot) => [...snapshot])).metrics()
}
