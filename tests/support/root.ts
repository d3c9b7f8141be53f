import { resolve } from 'node:path'

/** Absolute path of the repository. */
export const REPO_ROOT = resolve(import.meta.dirname, '..', '..')
