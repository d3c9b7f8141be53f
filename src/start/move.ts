import { randomBytes } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import type { Configuration } from '../config/model.ts'
import { audit, type AuditReport } from '../control/audit.ts'
import { KeyTable } from '../gateway/keys.ts'
import { windowAround } from '../money/window.ts'
import type { Logger } from '../observe/log.ts'
import type { OnProgress } from '../storage/books.ts'
import { BUCKETS } from '../storage/cluster-ports.ts'
import { createMemoryLimits } from '../storage/memory/limits.ts'
import { rebuildLimits } from '../storage/memory/rebuild.ts'
import { archiveDirectory, type EmbeddedStorage, setAside } from '../storage/open.ts'
import { MoveRefused } from '../storage/postgres/move.ts'
import { openPostgres, type PostgresBooks } from '../storage/postgres/open.ts'
import { MOVED, numbersOf, pageAfter, pageRows, positionOf, readPosition, shapeOf, writePosition } from '../storage/sql/moved.ts'
import { readVersion } from '../version.ts'
import { EmbeddedMode } from './embedded.ts'

export interface MoveOptions {
  readonly configuration: Configuration
  readonly clock: Clock
  readonly logger: Logger
  /** Goes on although an audit of what is to be moved has findings: they are moved as they are. */
  readonly despite_findings: boolean
  readonly on_progress: OnProgress
}

/** What a move did. `refused`: the audit before it has findings, and nothing was moved. `differs`: the audit after it has others. */
export interface MoveReport {
  readonly state: 'moved' | 'already moved' | 'refused' | 'differs'
  readonly rows: number
  readonly audit: AuditReport | null
}

/**
 * Moves an embedded installation's books into the PostgreSQL of its configuration: closes what is open, posts what is not, audits, copies
 * every table, audits what has arrived, and sets the database aside. Killed at any moment, it is run again and goes on. Redis is filled
 * from the books by the first process that starts.
 *
 * @throws MoveRefused, DataDirectoryInUse, DataDirectoryMoved, SchemaError, LedgerUnavailable
 */
export async function moveToCluster(options: MoveOptions): Promise<MoveReport> {
  const { configuration, clock, logger } = options
  const { settings, prices } = configuration
  if (settings.cluster === null) {
    throw new MoveRefused('set WEIR_REDIS_URL and WEIR_DATABASE_URL to the servers that the cluster will have')
  }
  const mode = await EmbeddedMode.open(settings, clock, logger)
  let report: MoveReport
  try {
    await mode.prepare(new KeyTable(), () => prices.calendar)
    const books = await openPostgres({ url: settings.cluster.database_url, clock, moving: true })
    try {
      report = await new Move(mode, books, options).run()
    } finally {
      await books.close()
    }
  } finally {
    await mode.storage.close()
  }
  if (report.state === 'moved' || report.state === 'already moved') setAside(settings.data_dir)
  return report
}

class Move {
  readonly #mode: EmbeddedMode
  readonly #source: EmbeddedStorage
  readonly #books: PostgresBooks
  readonly #options: MoveOptions

  constructor(mode: EmbeddedMode, books: PostgresBooks, options: MoveOptions) {
    this.#mode = mode
    this.#source = mode.storage
    this.#books = books
    this.#options = options
  }

  async run(): Promise<MoveReport> {
    const report = await this.#books.ledger.ifAlone('move', () => this.#alone())
    if (report === null) throw new MoveRefused('another process is moving an installation into this database')
    return report
  }

  async #alone(): Promise<MoveReport> {
    const { node } = this.#source
    const target = this.#books.move_target
    const before = await this.#auditSource()
    if (!before.ok && !this.#options.despite_findings) return { state: 'refused', rows: 0, audit: before }
    await this.#refuseHalfArchived()
    if (!(await target.begin(node))) return { state: 'already moved', rows: 0, audit: null }
    let rows = 0
    for (const table of MOVED) rows += await this.#moveTable(table)
    await this.#moveSecret()
    const { mark } = await this.#source.cut()
    const numbers = await numbersOf(this.#source.database)
    await target.complete({ node, version: readVersion(), event_seq: mark.event_seq, numbers })
    const after = await this.#auditTarget()
    if (!agree(before, after)) return { state: 'differs', rows, audit: after }
    // Whatever Redis may believe already was said by other books.
    await this.#books.ledger.beginEpoch(Array.from({ length: BUCKETS }, (_, bucket) => bucket))
    await target.finish(node)
    return { state: 'moved', rows, audit: after }
  }

  async #auditSource(): Promise<AuditReport> {
    const { records, ledger, archive, cut } = this.#source
    const { clock, on_progress } = this.#options
    return await audit({ records, ledger, archive, cut, clock, offline: true, served: null }, on_progress)
  }

  /** Rows of a day whose file is written are being deleted: the rest of them has no place to go to. */
  async #refuseHalfArchived(): Promise<void> {
    const half = (await this.#source.archive.list()).find(({ state }) => state === 'written')
    if (half !== undefined) throw new MoveRefused(`the archive of ${half.day} was not finished: run "weir archive" first`)
  }

  /** @returns how many rows the table has */
  async #moveTable(table: (typeof MOVED)[number]): Promise<number> {
    const { on_progress } = this.#options
    const target = this.#books.move_target
    const shape = await shapeOf(table, this.#source.database)
    const reached = await target.position(table)
    let position = reached === null ? null : readPosition(reached)
    for (let done = position === null ? 0 : await target.rows(table); ;) {
      on_progress({ doing: `moving ${table}`, done, of: shape.rows })
      const page = await pageAfter(shape, position, pageRows(table), this.#source.database)
      const last = page.at(-1)
      if (last === undefined) break
      position = positionOf(shape, last)
      await target.put(shape, page, writePosition(position))
      done += page.length
    }
    const arrived = await target.rows(table)
    if (arrived < shape.rows) throw new MoveRefused(`of ${shape.rows} rows of ${table} only ${arrived} have arrived`)
    return shape.rows
  }

  async #moveSecret(): Promise<void> {
    const secret = (await this.#mode.endUserSecret(randomBytes)).toString('hex')
    const kept = await this.#books.ledger.keptSecret('end_user', secret)
    if (kept !== secret) throw new MoveRefused('this database has a secret for end users already that is not the one of this installation')
  }

  /** The books that have arrived, with admission computed from them. */
  async #auditTarget(): Promise<AuditReport> {
    const { clock, on_progress } = this.#options
    const { records, ledger } = this.#books
    const { data_dir, journal } = this.#options.configuration.settings
    const limits = createMemoryLimits({ clock })
    await rebuildLimits(limits, records, ledger, { clock, windowAt: windowAround })
    const { node, event_seq, row_seq } = (await this.#source.cut()).mark
    const cut = { mark: { node, event_seq, row_seq }, ...limits.views([]) }
    const archive = this.#books.archiveIn(archiveDirectory(data_dir), journal.keep_days)
    return await audit({ records, ledger, archive, cut: () => Promise.resolve(cut), clock, offline: true, served: null }, on_progress)
  }
}

/** As much as before is there, and nothing is wrong that was not. */
function agree(before: AuditReport, after: AuditReport): boolean {
  const known = new Set(before.findings.map(({ rule, id }) => `${rule} ${id}`))
  const sums = (['events', 'amount_nano', 'tenants', 'archives'] as const).every((name) => before.checked[name] === after.checked[name])
  return sums && after.findings.every(({ rule, id }) => known.has(`${rule} ${id}`))
}
