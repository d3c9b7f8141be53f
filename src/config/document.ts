import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, stringify, visit } from 'yaml'
import type { Document, Scalar, YAMLError, YAMLMap } from 'yaml'
import type { ConfigIssue } from './model.ts'

/** Keys and list positions from the top of a file. */
export type Path = readonly (string | number)[]

/** Something issues can point into: a file, or the environment. */
export interface Place {
  readonly name: string
  /** Line of the nearest existing part of `path`, from 1; null where there are no lines. */
  lineOf(path: Path): number | null
}

/** One configuration file, parsed. */
export interface SourceFile extends Place {
  readonly contents: Buffer
  /** Plain values as written: references unresolved, entries without a value left out. */
  readonly raw: unknown
}

/** Collects every mistake, so that all are reported at once. */
export class IssueList {
  readonly issues: ConfigIssue[] = []

  add(place: Place, path: Path, message: string, expected: string): void {
    this.issues.push({ file: place.name, path: formatPath(path), line: place.lineOf(path), message, expected })
  }
}

/** The environment as a place of issues. */
export const ENVIRONMENT: Place = { name: 'environment', lineOf: () => null }

/** Largest configuration file that is read. */
export const MAX_FILE_BYTES = 8 * 1024 * 1024
/** Deepest nesting; also what ends a document whose aliases contain themselves. */
const MAX_DEPTH = 32

/** `models.deepseek-flash.endpoints[0].provider`; keys that contain punctuation of paths are quoted. */
export function formatPath(path: Path): string {
  let text = ''
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`
    else if (/[.[\]"\s]/.test(part)) text += `[${JSON.stringify(part)}]`
    else text += text === '' ? part : `.${part}`
  }
  return text
}

/** The value at a path of plain data, or undefined. */
export function valueAt(value: unknown, path: Path): unknown {
  let current = value
  for (const part of path) {
    if (typeof current !== 'object' || current === null || !Object.hasOwn(current, part)) return undefined
    current = Reflect.get(current, part)
  }
  return current
}

/**
 * Reads and parses one file (UTF-8, YAML 1.2). Mistakes of the syntax go to `issues`.
 * @returns null when nothing in the file can be checked further
 */
export function readSource(config_dir: string, name: string, issues: IssueList): SourceFile | null {
  const contents = readContents(join(config_dir, name), name, issues)
  if (contents === null) return null
  const lines = new LineCounter()
  // Keys that are given twice are found by reportSyntax: the parser compares each key with all before it.
  const options = { lineCounter: lines, prettyErrors: false, logLevel: 'silent', uniqueKeys: false } as const
  const document = parseDocument(contents.toString('utf8'), options)
  const place: Place = { name, lineOf: (path) => lineOfPath(document, lines, path) }
  if (!reportSyntax(document, lines, name, issues)) return null
  try {
    return { ...place, contents, raw: plain(document.toJS(), 0) ?? {} }
  } catch (error) {
    // toJS refuses documents whose aliases multiply; plain refuses those that never end.
    issues.add(place, [], error instanceof Error ? error.message : String(error), `at most ${MAX_DEPTH} levels and few aliases`)
    return null
  }
}

/** The same for a file that need not be there: null without an issue where it is not. */
export function readOptionalSource(config_dir: string, name: string, issues: IssueList): SourceFile | null {
  const absent = statSync(join(config_dir, name), { throwIfNoEntry: false }) === undefined
  return absent ? null : readSource(config_dir, name, issues)
}

/** Plain data as YAML that {@link readSource} reads back as the same. */
export function yamlOf(value: unknown): string {
  return stringify(value, { lineWidth: 0 })
}

/** The bytes of a file, if they are UTF-8 and not too many; else null, and an issue. */
export function readContents(path: string, name: string, issues: IssueList): Buffer | null {
  const place: Place = { name, lineOf: () => null }
  try {
    if (statSync(path).size > MAX_FILE_BYTES) {
      issues.add(place, [], 'is too large', `at most ${MAX_FILE_BYTES} bytes`)
      return null
    }
    const contents = readFileSync(path)
    new TextDecoder('utf-8', { fatal: true }).decode(contents)
    return contents
  } catch (error) {
    const wrong_encoding = error instanceof TypeError
    const reason = error instanceof Error && 'code' in error ? String(error.code) : 'error'
    issues.add(
      place,
      [],
      wrong_encoding ? 'is not UTF-8' : `cannot be read (${reason})`,
      wrong_encoding ? 'text in UTF-8' : `a file at ${path}`,
    )
    return null
  }
}

const EXPECTED_SYNTAX: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: 'spaces for indentation',
  MULTIPLE_DOCS: 'one document per file',
  TAG_RESOLVE_FAILED: 'plain values without tags',
}

/** @returns whether the document is sound enough to look at its values: a key given twice is, a broken structure is not */
function reportSyntax(document: Document, lines: LineCounter, name: string, issues: IssueList): boolean {
  let sound = true
  const broken_lines = new Set<number>()
  for (const error of [...document.errors, ...document.warnings] as readonly YAMLError[]) {
    const line = lines.linePos(error.pos[0]).line
    const expected = EXPECTED_SYNTAX[error.code] ?? 'valid YAML'
    sound = false
    // Whatever else is wrong with a broken line follows from the first error.
    if (!broken_lines.has(line)) issues.issues.push({ file: name, path: '', line, message: error.message, expected })
    broken_lines.add(line)
  }
  visit(document, {
    Map(_, map, ancestors) {
      for (const { value, range } of keysGivenTwice(map)) {
        const path = formatPath([...pathOfAncestors(ancestors, map), String(value)])
        const line = lines.linePos(range?.[0] ?? 0).line
        issues.issues.push({ file: name, path, line, message: `the key "${String(value)}" is given twice`, expected: 'each key once' })
      }
    },
    Pair(_, pair) {
      if (isScalar(pair.key)) return
      sound = false
      const offset = isMap(pair.key) || isSeq(pair.key) ? (pair.key.range?.[0] ?? 0) : 0
      issues.issues.push({
        file: name,
        path: '',
        line: lines.linePos(offset).line,
        message: 'a key is not plain text',
        expected: 'a plain key',
      })
    },
  })
  return sound
}

function keysGivenTwice({ items }: YAMLMap): readonly Scalar[] {
  const known = new Set<unknown>()
  return items.flatMap(({ key }) => {
    if (!isScalar(key)) return []
    if (known.has(key.value)) return [key]
    known.add(key.value)
    return []
  })
}

function pathOfAncestors(ancestors: readonly unknown[], last: unknown): (string | number)[] {
  const path: (string | number)[] = []
  const chain = [...ancestors, last]
  for (let index = 0; index < chain.length - 1; index++) {
    const node = chain[index]
    const child = chain[index + 1]
    if (isSeq(node)) path.push(node.items.indexOf(child))
    else if (isMap(node) && index < chain.length - 2) {
      const key = node.items.find((item) => item === child)?.key
      if (isScalar(key)) path.push(String(key.value))
    }
  }
  return path
}

function lineOfPath(document: Document, lines: LineCounter, path: Path): number | null {
  let node: unknown = document.contents
  let offset = document.contents?.range?.[0] ?? 0
  for (const part of path) {
    if (isAlias(node)) node = node.resolve(document)
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(part))
      if (pair === undefined) break
      offset = isScalar(pair.key) ? (pair.key.range?.[0] ?? offset) : offset
      node = pair.value
    } else if (isSeq(node) && typeof part === 'number' && part < node.items.length) {
      const item: unknown = node.items[part]
      if (isMap(item) || isScalar(item) || isSeq(item) || isAlias(item)) offset = item.range?.[0] ?? offset
      node = item
    } else break
  }
  return lines.linePos(offset).line
}

/** Copies plain data, leaving out map entries without a value: `limits:` alone means the same as no `limits`. */
function plain(value: unknown, depth: number): unknown {
  if (depth > MAX_DEPTH) throw new RangeError('is nested too deeply')
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1))
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).filter(([, item]) => item !== null && item !== undefined)
  return Object.fromEntries(entries.map(([key, item]) => [key, plain(item, depth + 1)]))
}
