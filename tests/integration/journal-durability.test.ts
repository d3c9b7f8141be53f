import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, it } from 'vitest'
import { REPO_ROOT } from '../support/root.ts'
import { closingEvent, openTest } from '../support/storage.ts'
import { tempDir } from '../support/temp.ts'
import { waitFor } from '../support/wait.ts'

const HAS_STRACE = spawnSync('strace', ['-V']).status === 0
const TIMEOUT_MS = 60_000

function module(path: string): string {
  return JSON.stringify(`file://${join(REPO_ROOT, path)}`)
}

/** Syscalls named fsync or fdatasync between two marks that the script makes by looking for a file that is not there. */
function syncsBetween(trace: string, from: string, to: string): number {
  const lines = trace.split('\n')
  const [start, end] = [lines.findIndex((line) => line.includes(from)), lines.findIndex((line) => line.includes(to))]
  expect(start).toBeGreaterThanOrEqual(0)
  expect(end).toBeGreaterThan(start)
  return lines.slice(start, end).filter((line) => /\b(fsync|fdatasync)\(/.test(line)).length
}

describe('durability', () => {
  it.skipIf(!HAS_STRACE)('[needs strace] an open row costs no fsync, a close costs one before it resolves', () => {
    const directory = tempDir()
    const script = join(directory, 'script.ts')
    const trace = join(directory, 'trace')
    const body = `
      import { existsSync, readFileSync } from 'node:fs'
      import { closingEvent, openRow, openTest } from ${module('tests/support/storage.ts')}
      const mark = (name) => existsSync('/no-such-file-' + name)
      const storage = await openTest(${JSON.stringify(join(directory, 'data'))})
      await storage.log.close(closingEvent('warm'))
      await storage.ledger.post()
      mark('opens')
      for (let i = 0; i < 10; i += 1) await storage.log.open(openRow('a' + i))
      mark('closes')
      for (let i = 0; i < 10; i += 1) await storage.log.close(closingEvent('a' + i))
      mark('group')
      await Promise.all(Array.from({ length: 50 }, (_, i) => storage.log.close(closingEvent('g' + i))))
      mark('end')
      process.exit(0)
    `
    writeFileSync(script, body)
    const traced = ['-f', '-e', 'trace=fsync,fdatasync,/stat.*,access,faccessat,faccessat2', '-o', trace]
    const run = spawnSync('strace', [...traced, process.execPath, script], { encoding: 'utf8', timeout: TIMEOUT_MS })
    expect(run.stderr).toBe('')
    const text = spawnSync('cat', [trace], { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 }).stdout
    expect(syncsBetween(text, 'no-such-file-opens', 'no-such-file-closes')).toBe(0)
    expect(syncsBetween(text, 'no-such-file-closes', 'no-such-file-group')).toBe(10)
    expect(syncsBetween(text, 'no-such-file-group', 'no-such-file-end')).toBe(1)
  })

  it('a full disk rejects, turns the node unready, and crashes nothing; what had resolved is kept', async () => {
    const data_dir = join(tempDir(), 'data')
    // bash counts in blocks of 1024 bytes; past the limit writes fail with EFBIG, as on a full disk with ENOSPC.
    const command = `ulimit -f 1500; exec "$0" tests/integration/journal-child.ts "$1" full 100000`
    const run = spawnSync('bash', ['-c', command, process.execPath, data_dir], {
      cwd: REPO_ROOT,
      encoding: 'utf8',
      timeout: TIMEOUT_MS,
      maxBuffer: 64 * 1024 * 1024,
    })
    const lines = run.stdout.split('\n')
    expect(lines.filter((line) => line.startsWith('rejected JournalUnavailable')).length).toBeGreaterThan(0)
    expect(run.stdout).toContain('healthy=false')
    expect(run.stdout).toContain('end closed')
    const closed = lines.filter((line) => line.startsWith('closed ') && line.includes('full-')).map((line) => line.slice(7))
    expect(closed.length).toBeGreaterThan(0)
    const storage = await openTest(data_dir)
    await storage.ledger.post()
    const missing: string[] = []
    for (const id of closed) if ((await storage.ledger.event(id)) === null) missing.push(id)
    expect(missing).toEqual([])
    await storage.close()
  })

  it('a close that is not durable in time rejects, and health recovers with the next commit', async () => {
    const data_dir = tempDir()
    const storage = await openTest(data_dir, { commit_timeout_ms: 100 })
    // Another writer's lock makes the commit wait: what a stalled disk looks like from outside.
    const other = new DatabaseSync(join(data_dir, 'weir.db'))
    other.exec('BEGIN IMMEDIATE')
    await expect(storage.log.close(closingEvent('a'))).rejects.toMatchObject({ name: 'JournalUnavailable', reason: 'timeout' })
    expect(storage.log.health().ok).toBe(false)
    other.exec('ROLLBACK')
    other.close()
    await waitFor(() => storage.log.health().ok, { timeout_ms: 10_000, what: 'the late commit' })
    expect(await storage.log.close(closingEvent('a'))).toBe(1)
    expect(await storage.log.close(closingEvent('b'))).toBe(2)
    await storage.close()
    await expect(storage.log.close(closingEvent('c'))).rejects.toMatchObject({ reason: 'closed' })
  })
})
