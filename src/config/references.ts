import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import type { IssueList, Path, SourceFile } from './document.ts'

/** Stands where a reference names something that is not set. */
export class Unset {
  readonly reason: string
  constructor(reason: string) {
    this.reason = reason
  }
}

/** What references may draw on. */
export interface ReferenceSources {
  readonly config_dir: string
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Largest secret file. */
const MAX_SECRET_BYTES = 64 * 1024

/** `$${` (a literal `${`), `${file:path}`, `${NAME}`, `${NAME:-default}`, or anything else that starts like one. */
const REFERENCE = /\$\$\{|\$\{file:([^}]+)\}|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{/g

/**
 * Resolves the references in every string value of a file. An empty variable counts as not set.
 * An unset one leaves {@link Unset} in its place, and is an issue everywhere but in an `api_key`, or a `key` of `api_keys`.
 */
export function resolveReferences(source: SourceFile, sources: ReferenceSources, issues: IssueList): unknown {
  const walk = (value: unknown, path: Path): unknown => {
    if (typeof value === 'string') return value.includes('${') ? resolveText(value, path) : value
    if (Array.isArray(value)) return value.map((item, index) => walk(item, [...path, index]))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, walk(item, [...path, key])]))
  }
  const resolveText = (text: string, path: Path): unknown => {
    let unset: Unset | null = null
    const resolved = text.replaceAll(REFERENCE, (match: string, file?: string, name?: string, fallback?: string) => {
      if (match === '$${') return '${'
      const part = resolveOne({ file, name, fallback }, sources)
      if ('text' in part) return part.text
      unset ??= new Unset(part.reason)
      const allowed = name !== undefined && isKey(path)
      if (!allowed) issues.add(source, path, part.reason, part.expected)
      return ''
    })
    return unset ?? resolved
  }
  return walk(source.raw, [])
}

function isKey(path: Path): boolean {
  return path.at(-1) === 'api_key' || (path.at(-1) === 'key' && path.at(-3) === 'api_keys')
}

/** The secret that a reference names: the whole text is one. */
export function resolveSecret(text: string, sources: ReferenceSources): { readonly secret: string } | { readonly reason: string } {
  const [, file, name, fallback] = new RegExp(REFERENCE.source).exec(text) ?? []
  const resolved = resolveOne({ file, name, fallback }, sources)
  return 'text' in resolved ? { secret: resolved.text } : { reason: resolved.reason }
}

interface Reference {
  readonly file: string | undefined
  readonly name: string | undefined
  readonly fallback: string | undefined
}
type Resolved = { readonly text: string } | { readonly reason: string; readonly expected: string }

function resolveOne(reference: Reference, sources: ReferenceSources): Resolved {
  if (reference.file !== undefined) return readSecret(resolve(sources.config_dir, reference.file))
  if (reference.name === undefined) return { reason: 'has a malformed reference', expected: '${NAME}, ${NAME:-default} or ${file:/path}' }
  const value = sources.env[reference.name]
  if (value !== undefined && value !== '') return { text: value }
  if (reference.fallback !== undefined) return { text: reference.fallback }
  return {
    reason: `${reference.name} is not set`,
    expected: `the environment variable ${reference.name}, or a default: \${${reference.name}:-…}`,
  }
}

function readSecret(path: string): Resolved {
  try {
    if (statSync(path).size > MAX_SECRET_BYTES) return { reason: `${path} is too large`, expected: `at most ${MAX_SECRET_BYTES} bytes` }
    const text = readFileSync(path, 'utf8').trim()
    return text === '' ? { reason: `${path} is empty`, expected: 'a file with the secret' } : { text }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'error'
    return { reason: `${path} cannot be read (${code})`, expected: 'a readable file with the secret' }
  }
}
