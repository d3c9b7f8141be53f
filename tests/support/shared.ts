import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { REPO_ROOT } from './root.ts'

/**
 * Absolute path of a file of the shared data folder (`streams/…`, `providers.json`), or null where it is absent:
 * `$WEIR_SHARED_DIR/data`, else `../shared/data` beside the repository. A null is printed, so that a skip is seen.
 */
export function sharedData(path: string): string | null {
  const shared = process.env['WEIR_SHARED_DIR'] ?? resolve(REPO_ROOT, '..', 'shared')
  const found = resolve(shared, 'data', path)
  if (existsSync(found)) return found
  console.warn(`shared data ${path} is absent: tests that read it are skipped (set WEIR_SHARED_DIR to have them run)`)
  return null
}
