import type { Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const LOOK_EVERY_MS = 50
/** A stopped request still writes its event and says why it ended. */
const STOP_TIMEOUT_MS = 2000

/**
 * Ends a server politely: keeps accepting for `delay_ms` (readiness already says no), then closes idle connections and
 * lets open requests finish, up to `timeout_ms`; what is still open then is told to stop and, if it will not, cut.
 */
export async function drainServer(
  server: Server,
  limits: { readonly delay_ms: number; readonly timeout_ms: number },
  open: { readonly total: number; stopAll(): void },
): Promise<void> {
  await sleep(limits.delay_ms)
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const empty = async (timeout_ms: number): Promise<void> => {
    for (let waited_ms = 0; open.total > 0 && waited_ms < timeout_ms; waited_ms += LOOK_EVERY_MS) await sleep(LOOK_EVERY_MS)
  }
  await empty(limits.timeout_ms)
  open.stopAll()
  await empty(STOP_TIMEOUT_MS)
  server.closeAllConnections()
  await closed
}
