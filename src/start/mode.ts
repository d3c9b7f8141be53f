import type { RandomBytes } from '../base/ids.ts'
import type { TradingCalendar } from '../money/price.ts'
import type { KeyTable } from '../gateway/keys.ts'
import type { MetricsSources } from '../observe/metrics.ts'
import type { Nodes, ProcessShare } from '../storage/nodes.ts'
import type { Storage } from '../storage/open.ts'
import type { Undo } from './undo.ts'

/** What differs between embedded and cluster mode, beside the storage itself. */
export interface Mode {
  readonly storage: Storage
  readonly nodes: Nodes
  /** Numbers of this mode's own for `/metrics`. */
  readonly metrics: MetricsSources
  /** This process's part of what upstreams take of all processes together. */
  share(): ProcessShare
  /** Why this process must not serve now, or null: what it knows of keys and tenants may be out of date, for example. */
  unready(): string | null
  /**
   * Reads keys and tenants, closes what an earlier owner of the data directory left open, and sees to it that limits are what the ledger
   * says. Before anything is served.
   * @returns how many requests were closed
   */
  prepare(keys: KeyTable, calendar: () => TradingCalendar): Promise<number>
  /** The secret of the keyed hash that stands for end users in events: the same for every process that shares a ledger. */
  endUserSecret(random: RandomBytes): Promise<Buffer>
  /** Starts what is to be done beside requests. */
  work(keys: KeyTable, calendar: () => TradingCalendar, undo: Undo): void
}
