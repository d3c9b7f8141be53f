import { DatabaseSync } from 'node:sqlite'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/base/clock.ts'
import { createLogger } from '../../src/observe/log.ts'
import { startWeir } from '../../src/weir.ts'
import { atEnd } from '../support/cleanup.ts'
import { type Outcome, runCommand } from '../support/command.ts'
import { REPO_ROOT } from '../support/root.ts'
import { tempDir } from '../support/temp.ts'

const CONFIG_DIR = join(REPO_ROOT, 'config')

async function weir(data_dir: string, command: string): Promise<Outcome> {
  const env = { WEIR_DATA_DIR: data_dir, WEIR_CONFIG_DIR: CONFIG_DIR, WEIR_PORT: '0', WEIR_ADMIN_PORT: '0' }
  return await runCommand(command.split(' '), env)
}

function spoil(data_dir: string): void {
  const database = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
  database.exec("UPDATE ledger_balances SET amount = amount - 3000000000 WHERE code = 'wallet_liability'")
  database.close()
}

it.each(['no server', 'a server'])(
  'with %s: a wrong balance is named first by the audit, told by the check, put right by the rebuild',
  async (which) => {
    const data_dir = tempDir()
    expect(await weir(data_dir, 'tenant create acme --audience internal')).toMatchObject({ code: 0 })
    expect(await weir(data_dir, 'tenant credit acme 12.5 --id t1')).toMatchObject({ code: 0 })
    if (which === 'a server') {
      const env = { WEIR_PORT: '0', WEIR_ADMIN_PORT: '0', WEIR_DATA_DIR: data_dir }
      const logger = createLogger({ level: 'error', destination: { write: () => {} } })
      const server = await startWeir({ config_dir: CONFIG_DIR, env, clock: systemClock(), logger })
      atEnd(() => server.drain())
    }
    expect(await weir(data_dir, 'rebuild --check')).toMatchObject({ code: 0, out: 'Everything is as it should be; nothing has changed.\n' })
    spoil(data_dir)
    const audited = await weir(data_dir, 'audit')
    expect(audited.code).toBe(1)
    expect(audited.out).toMatch(/^The first difference: it should hold that events sum to entries, but for balance of wallet_liability/m)
    const checked = await weir(data_dir, 'rebuild --check')
    expect(checked).toMatchObject({
      code: 1,
      out: expect.stringContaining('running balance\n  wallet_liability acme wallet:acme') as unknown,
    })
    expect((await weir(data_dir, 'rebuild --check')).code).toBe(1)
    expect(await weir(data_dir, 'rebuild')).toMatchObject({
      code: 0,
      out: expect.stringContaining('Was wrong and is right now') as unknown,
    })
    expect((await weir(data_dir, 'rebuild --check')).code).toBe(0)
    expect(await weir(data_dir, 'audit')).toMatchObject({ code: 0, out: expect.stringContaining('Everything agrees.') as unknown })
  },
)

it('archive says what it would do, lists and verifies, and refuses a date that is none', async () => {
  const data_dir = tempDir()
  expect(await weir(data_dir, 'archive --dry-run')).toMatchObject({ code: 0, out: 'Nothing would be archived.\n' })
  expect(await weir(data_dir, 'archive --before 2026-01-01')).toMatchObject({ code: 0, out: 'Nothing was archived.\n' })
  expect(await weir(data_dir, 'archive --before yesterday')).toMatchObject({
    code: 1,
    err: expect.stringContaining('write a date such as 2026-11-01') as unknown,
  })
  expect((await weir(data_dir, 'archive list')).out).toContain('SHA-256')
  expect(await weir(data_dir, 'archive verify')).toMatchObject({ code: 0, out: '0 archived days: every file is as it was written.\n' })
})
