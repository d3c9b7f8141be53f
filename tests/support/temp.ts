import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { atEnd } from './cleanup.ts'

/** A fresh empty directory, removed when the current test ends (or the file's last test, when made outside a test). */
export function tempDir(): string {
  const path = mkdtempSync(join(tmpdir(), 'weir-test-'))
  atEnd(() => {
    rmSync(path, { recursive: true, force: true, maxRetries: 5 })
  })
  return path
}
