/** Values of the files against their schemas, and every mistake with its place and what would have been right. */
import type { z } from 'zod'
import { formatPath, valueAt } from './document.ts'
import type { IssueList, Path, SourceFile } from './document.ts'
import { Unset } from './references.ts'
import { expectedOneOf, nearest } from './suggest.ts'

/**
 * Checks `value`, found at `at` of a file, against a schema; every mistake goes to `issues`.
 * Unknown keys are reported and then ignored, so that the rest can still be checked.
 * @returns the parsed value, or null when it has other mistakes
 */
export function parseShape<T extends z.ZodType>(
  schema: T,
  value: unknown,
  source: SourceFile,
  at: Path,
  issues: IssueList,
): z.output<T> | null {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const meant = reportUnknownKeys(result.error.issues, value, source, at, issues)
  let only_unknown_keys = true
  for (const issue of result.error.issues) {
    if (issue.code === 'unrecognized_keys') continue
    only_unknown_keys = false
    const path = [...at, ...(issue.path as Path)]
    const found = valueAt(value, issue.path as Path)
    // An unset reference was reported where it was resolved; a misspelled key where it stands.
    if (found instanceof Unset || (found === undefined && meant.has(formatPath(path)))) continue
    reportLeaf(issue.message, found, source, path, issues)
  }
  return only_unknown_keys ? (schema.safeParse(withoutUnknownKeys(value, result.error.issues)).data ?? null) : null
}

/** @returns the paths that misspelled keys were probably meant to be */
function reportUnknownKeys(
  found: readonly z.core.$ZodIssue[],
  value: unknown,
  source: SourceFile,
  at: Path,
  issues: IssueList,
): ReadonlySet<string> {
  const meant = new Set<string>()
  for (const issue of found) {
    if (issue.code !== 'unrecognized_keys') continue
    const known = issue.message.split(' ')
    const owner = valueAt(value, issue.path as Path)
    const missing = known.filter((key) => valueAt(owner, [key]) === undefined)
    for (const key of issue.keys) {
      const path = [...at, ...(issue.path as Path)]
      const near = nearest(key, missing)
      if (near !== null) meant.add(formatPath([...path, near]))
      issues.add(source, [...path, key], `unknown key "${key}"`, near === null ? expectedOneOf(key, known) : expectedOneOf(key, missing))
    }
  }
  return meant
}

function reportLeaf(expected: string, found: unknown, source: SourceFile, path: Path, issues: IssueList): void {
  const raw = valueAt(source.raw, path)
  const choices = expected.split(' | ')
  const hint = choices.length > 1 && typeof found === 'string' ? expectedOneOf(found, choices) : expected
  issues.add(source, path, describe(found === undefined ? undefined : (raw ?? found), path), hint)
}

const CONFIDENTIAL = new Set(['api_key', 'key', 'proxy', 'base_url', 'system'])

/** What was found, as written (references unresolved); never the value of a confidential member. */
function describe(raw: unknown, path: Path): string {
  if (raw === undefined) return 'is missing'
  if (Array.isArray(raw)) return raw.length === 0 ? 'is an empty list' : 'is a list'
  if (typeof raw === 'object') return 'is a mapping'
  if (CONFIDENTIAL.has(String(path.at(-1)))) return 'has a value that cannot be used'
  if (typeof raw === 'string') return `is ${JSON.stringify(raw.slice(0, 60))}`
  return `is the ${typeof raw} ${JSON.stringify(raw)}`
}

function withoutUnknownKeys(value: unknown, found: readonly z.core.$ZodIssue[]): unknown {
  const unknown = new Set(
    found.flatMap((issue) =>
      issue.code === 'unrecognized_keys' ? issue.keys.map((key) => formatPath([...(issue.path as Path), key])) : [],
    ),
  )
  const walk = (part: unknown, path: Path): unknown => {
    if (Array.isArray(part)) return part.map((item, index) => walk(item, [...path, index]))
    if (typeof part !== 'object' || part === null || part instanceof Unset) return part
    const entries = Object.entries(part).filter(([key]) => !unknown.has(formatPath([...path, key])))
    return Object.fromEntries(entries.map(([key, item]) => [key, walk(item, [...path, key])]))
  }
  return walk(value, [])
}
