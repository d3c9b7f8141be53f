import type { Clock } from '../base/clock.ts'
import type { MasterKeys } from '../base/envelope.ts'
import type { RandomBytes } from '../base/ids.ts'
import type { ConfigIssue, Configuration, Model } from '../config/model.ts'
import type { Logger } from '../observe/log.ts'
import type { Metrics } from '../observe/metrics.ts'
import type { Cut, EventArchive, Rebuilder } from '../storage/books.ts'
import type { Nodes } from '../storage/nodes.ts'
import type { Changes, Credits, Ledger, LimitRule, Limits, Turns } from '../storage/ports.ts'
import type { Records } from '../storage/records.ts'
import type { KeyPhase } from '../upstream/key-pool.ts'

/** What became of a reload that was asked for. After mistakes the old configuration stays in force. */
export type ReloadOutcome = { readonly ok: true; readonly digest: string } | { readonly ok: false; readonly issues: readonly ConfigIssue[] }

/** Everything the control plane needs, made once at start. */
export interface ControlDeps {
  readonly records: Records
  readonly ledger: Ledger
  readonly limits: Limits
  readonly credits: Credits
  readonly turns: Turns
  readonly changes: Changes
  readonly nodes: Nodes
  readonly archive: EventArchive
  readonly rebuilder: Rebuilder
  /** Admission and journal at one moment. */
  readonly cut: (rules?: readonly LimitRule[]) => Promise<Cut>
  readonly clock: Clock
  readonly random: RandomBytes
  readonly metrics: Pick<Metrics, 'render' | 'content_type'>
  readonly logger: Pick<Logger, 'error'>
  /** Every `/admin/v1` call must carry it as a bearer token. */
  readonly token: string
  /** The configuration in force; null where the command line opened storage by itself and cannot read one. */
  readonly configuration: () => Configuration | null
  /** Does a catalogue model or alias of this name exist? */
  readonly knowsModel: (name: string) => boolean
  /** The catalogue model that a name, which may be an alias, stands for; null when there is none. */
  readonly modelOf: (name: string) => string | null
  /** What a catalogue model is; null when there is none of this id. */
  readonly kindOf: (model: string) => Model['kind'] | null
  /** True where the command line opened storage by itself, because no gateway runs. */
  readonly offline?: boolean
  /** What secrets are sealed with; null or absent where there is no master key. */
  readonly master_keys?: MasterKeys | null
  /** How this process sees the keys that it serves with. */
  readonly keyStates?: () => readonly { readonly key: string; readonly state: KeyPhase }[]
  readonly reload: () => Promise<ReloadOutcome>
  /** Resolves when this process's data plane has applied every published change, so that a key works once its secret was answered. */
  readonly caughtUp?: () => Promise<void>
}
