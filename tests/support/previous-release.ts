import { spawnSync } from 'node:child_process'
import { existsSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { REPO_ROOT } from './root.ts'
import { tempDir } from './temp.ts'

/** The commit of the release before this one: what a rolling upgrade begins with. */
const PREVIOUS_RELEASE = '4cac926db3a544e10da1ea2c23f3b16d4ff617cc'
const MOST_BYTES = 256 * 1024 * 1024

/** Why there is no previous release to run here; null where there is one. `WEIR_PREVIOUS_RELEASE` names the folder of a checkout instead. */
export const noPreviousRelease: string | null = whyNone()

function whyNone(): string | null {
  const given = process.env['WEIR_PREVIOUS_RELEASE']
  if (given !== undefined) return existsSync(join(given, 'src/main.ts')) ? null : 'WEIR_PREVIOUS_RELEASE names no checkout'
  const found = spawnSync('git', ['cat-file', '-e', `${PREVIOUS_RELEASE}^{commit}`], { cwd: REPO_ROOT })
  return found.status === 0 ? null : `the previous release, commit ${PREVIOUS_RELEASE}, is not in this clone (is it shallow?)`
}

/** The previous release's sources in a folder that the test takes away, with the libraries of this one. */
export function checkOutPreviousRelease(): string {
  const given = process.env['WEIR_PREVIOUS_RELEASE']
  if (given !== undefined) return given
  const folder = tempDir()
  const archive = spawnSync('git', ['archive', PREVIOUS_RELEASE], { cwd: REPO_ROOT, maxBuffer: MOST_BYTES })
  const unpacked = spawnSync('tar', ['-x', '-C', folder], { input: archive.stdout })
  if (archive.status !== 0 || unpacked.status !== 0) throw new Error(`the previous release cannot be unpacked: ${String(archive.stderr)}`)
  symlinkSync(join(REPO_ROOT, 'node_modules'), join(folder, 'node_modules'))
  return folder
}
