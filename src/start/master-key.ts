import { readFileSync, statSync } from 'node:fs'
import { masterKeyFrom, type MasterKeys } from '../base/envelope.ts'

const MAX_FILE_BYTES = 4096
/** Others may not read it, and nobody but its owner may write it. A group may read it: that is how secrets are mounted into containers. */
const FORBIDDEN_MODE = 0o027

/**
 * The master keys of `WEIR_MASTER_KEY_FILE` and, while one takes the place of another, `WEIR_OLD_MASTER_KEY_FILE`; null without them.
 *
 * @throws Error naming the file that cannot be used, and why
 */
export function readMasterKeys(env: Readonly<Record<string, string | undefined>>): MasterKeys | null {
  const file = env['WEIR_MASTER_KEY_FILE'] ?? ''
  const old_file = env['WEIR_OLD_MASTER_KEY_FILE'] ?? ''
  if (file === '' && old_file !== '') throw new Error('WEIR_OLD_MASTER_KEY_FILE is set, but WEIR_MASTER_KEY_FILE is not')
  if (file === '') return null
  const current = readOne('WEIR_MASTER_KEY_FILE', file)
  return { current, all: old_file === '' ? [current] : [current, readOne('WEIR_OLD_MASTER_KEY_FILE', old_file)] }
}

function readOne(variable: string, file: string): MasterKeys['current'] {
  const refuse = (why: string, cause?: unknown): Error => new Error(`${variable}: ${file} ${why}`, { cause })
  try {
    const { mode, size } = statSync(file)
    if (process.platform !== 'win32' && (mode & FORBIDDEN_MODE) !== 0) throw refuse('may be read by others: give it the mode 0600')
    if (size > MAX_FILE_BYTES) throw refuse('is too large for a key')
    return masterKeyFrom(readFileSync(file, 'utf8'))
  } catch (error) {
    if (!(error instanceof Error) || error.message.startsWith(variable)) throw error
    throw 'code' in error ? refuse(`cannot be read (${String(error.code)})`, error) : refuse(error.message)
  }
}
