import type { Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const LOOK_EVERY_MS = 50

/**
 * Ends a server politely: keeps accepting for `delay_ms` (readiness already says no), then closes idle connections and
 * lets open requests finish, up to `timeout_ms`; what is still open then is cut.
 */
export async function drainServer(
  server: Server,
  limits: { readonly delay_ms: number; readonly timeout_ms: number },
  open: () => number,
): Promise<void> {
  await sleep(limits.delay_ms)
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  for (let waited_ms = 0; open() > 0 && waited_ms < limits.timeout_ms; waited_ms += LOOK_EVERY_MS) await sleep(LOOK_EVERY_MS)
  server.closeAllConnections()
  await closed
}
