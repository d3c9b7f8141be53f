import type { Clock } from '../base/clock.ts'
import { startLoop } from '../base/loop.ts'
import { applyTransaction } from '../control/apply.ts'
import type { Logger } from '../observe/log.ts'
import type { Storage } from '../storage/open.ts'
import { expireGrants } from '../worker/expire.ts'
import type { Troubles } from './troubles.ts'
import type { Undo } from './undo.ts'

const EXPIRE_EVERY_MS = 60_000
/** Grants that expired longer ago are looked at once an hour: something came back to them only by a reversal. */
const EXPIRED_LATELY_MS = 2 * 86_400_000
const EXPIRE_ALL_EVERY = 60

export interface ExpiringDeps {
  readonly storage: Storage
  readonly clock: Clock
  readonly logger: Logger
  readonly troubles: Troubles
}

/** Lets grants lapse: at once, for what expired while nothing ran, and every minute. */
export function startExpiring(deps: ExpiringDeps, undo: Undo): void {
  const { clock, logger, troubles } = deps
  let runs = 0
  const loop = startLoop({
    every_ms: EXPIRE_EVERY_MS,
    work: async () => {
      const all = runs++ % EXPIRE_ALL_EVERY === 0
      const lapsed = await expireOnce(all ? 0 : clock.now_ms() - EXPIRED_LATELY_MS, deps)
      if (lapsed > 0) logger.info({ lapsed }, 'the unused rest of expired grants lapsed')
    },
    on_trouble: troubles.of('letting grants lapse'),
  })
  undo.add(() => loop.stop())
}

async function expireOnce(from_ms: number, { storage, clock, logger }: ExpiringDeps): Promise<number> {
  const { records, ledger, limits, credits, turns } = storage
  await credits.makeUpAll()
  return await expireGrants(from_ms, {
    records,
    ledger,
    limits,
    owes: (tenant) => credits.owes(tenant),
    clock,
    turns,
    apply: (transaction) => applyTransaction(transaction, { ledger, credits }),
    on_trouble: (error, grant) => logger.error({ err: error, grant }, 'a grant could not lapse; trying again'),
  })
}
