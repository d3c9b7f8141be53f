/** A text file of the repository. */
export interface TextFile {
  readonly path: string
  readonly text: string
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length
}

/** Paths below src that a document names but `exists` does not know. `*` and `{a,b}` and `…` name more than one and are not checked. */
export function deadPaths(document: TextFile, exists: (path: string) => boolean): string[] {
  return [...document.text.matchAll(/(?<![\w/.-])src\/[\w./*{},…-]*/g)].flatMap((match) => {
    const path = match[0].replace(/[.,…]+$/, '')
    if (/[*{…]/.test(match[0]) || exists(path)) return []
    return [`${document.path}:${lineAt(document.text, match.index)} names ${path}, which does not exist`]
  })
}

interface DocumentedError {
  readonly code: string
  readonly statuses: readonly number[]
}

/** The rows of every table with the columns `status` and `code`, in that order, of a Markdown text. */
export function documentedErrors(markdown: string): DocumentedError[] {
  const lines = markdown.split('\n')
  return lines.flatMap((line, index) => {
    if (!/^\|\s*status\s*\|\s*code\s*\|/i.test(line)) return []
    const end = lines.findIndex((other, at) => at > index && !other.startsWith('|'))
    return lines.slice(index + 2, end === -1 ? undefined : end).flatMap(errorsOfRow)
  })
}

function errorsOfRow(row: string): DocumentedError[] {
  const [, status = '', codes = ''] = row.split('|')
  const statuses = [...status.matchAll(/\d{3}/g)].map((match) => Number(match[0]))
  return [...codes.matchAll(/`([a-z_]+)`/g)].map((match) => ({ code: match[1] ?? '', statuses }))
}

/** How a documented table of errors differs from the one in the code. */
export function errorTableDifferences(
  path: string,
  documented: readonly DocumentedError[],
  actual: ReadonlyArray<{ readonly code: string; readonly status: number }>,
): string[] {
  const known = new Map(actual.map((row) => [row.code, row.status]))
  const named = new Set(documented.map((row) => row.code))
  return [
    ...actual.filter((row) => !named.has(row.code)).map((row) => `${path} lacks ${row.code} (${row.status})`),
    ...documented.filter((row) => !known.has(row.code)).map((row) => `${path} names ${row.code}, which base/errors.ts does not have`),
    ...documented
      .filter((row) => known.has(row.code) && !row.statuses.includes(known.get(row.code) ?? 0))
      .map((row) => `${path} gives ${row.code} as ${row.statuses.join('/')}, base/errors.ts as ${known.get(row.code)}`),
  ]
}

// Put together from pieces, so that this file does not contain what it looks for.
const REGISTRY_HOST = new RegExp(
  String.raw`\b(?:registry|npm|mirror|mirrors|proxy|index)\.[a-z0-9-]+\.(?:org|com|net|io|cn|dev|local|internal)\b`,
  'i',
)
const NPM_MIRROR = new RegExp(['npm', 'mirror'].join(''), 'i')
const PRIVATE_PATH = new RegExp(`(?<![\\w.:~/-])/(?:home|Users|root|work)/[\\w.-]+|\\b[A-Z]:\\\\Users\\\\`)

/** Host names of package registries: which registry a machine uses is its own business. */
export const registryHosts = (files: readonly TextFile[]): string[] => [
  ...linesMatching(files, REGISTRY_HOST, 'names a registry host: leave that to the configuration of the machine'),
  ...linesMatching(files, NPM_MIRROR, 'names a mirror: leave that to the configuration of the machine'),
]

/** Absolute paths of somebody's machine. */
export const machinePaths = (files: readonly TextFile[]): string[] =>
  linesMatching(files, PRIVATE_PATH, 'has a path of one machine: write it relative to the repository, or take it from a setting')

function linesMatching(files: readonly TextFile[], pattern: RegExp, complaint: string): string[] {
  return files.flatMap((file) =>
    file.text.split('\n').flatMap((line, index) => (pattern.test(line) ? [`${file.path}:${index + 1} ${complaint}`] : [])),
  )
}

/** Packages of a lock file that carry the address they came from. */
export function resolvedAddresses(lock: TextFile): string[] {
  return linesMatching([lock], /"resolved"\s*:\s*"https?:/, 'records a registry host: keep omit-lockfile-registry-resolved in .npmrc')
}
