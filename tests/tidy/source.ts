import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { parseAst } from 'vitest/node'
import { REPO_ROOT } from '../support/root.ts'

/** A node of the syntax tree (ESTree with TypeScript), reduced to what the rules read. */
export interface SyntaxNode {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly [member: string]: unknown
}

/** One `import`, `export … from` or `new URL(…, import.meta.url)` of a file. */
export interface Import {
  /** As written: `./x.ts`, `zod`, `node:fs`. */
  readonly specifier: string
  /** Path from the repository's root where the specifier is relative, else null. */
  readonly path: string | null
  readonly type_only: boolean
  readonly line: number
}

/** A parsed TypeScript file. `path` is relative to the repository's root, with forward slashes. */
export interface SourceFile {
  readonly path: string
  readonly text: string
  readonly nodes: readonly SyntaxNode[]
  readonly imports: readonly Import[]
  lineOf(offset: number): number
}

/** What a rule gives for one file or for all; each finding reads `path:line what to do instead`. */
export type Rule = (files: readonly SourceFile[]) => string[]

/** Parses a file, or a snippet that pretends to be one. @throws SyntaxError */
export function parseSource(path: string, text: string): SourceFile {
  const nodes = allNodes(parseAst(text, { lang: 'ts' }))
  const line_starts = [0, ...[...text.matchAll(/\n/g)].map((match) => match.index + 1)]
  const lineOf = (offset: number): number => line_starts.findLastIndex((start) => start <= offset) + 1
  const imports = nodes.flatMap((node) => importOf(path, node, lineOf) ?? [])
  return { path, text, nodes, imports, lineOf }
}

/** Every TypeScript file below a folder of the repository, parsed. */
export function sourcesIn(folder: string): SourceFile[] {
  return readdirSync(join(REPO_ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `${folder}/${name.replaceAll('\\', '/')}`)
    .toSorted()
    .map((path) => parseSource(path, readFileSync(join(REPO_ROOT, path), 'utf8')))
}

/** Text files of the repository: what git tracks or would track, or every file where there is no git. */
export function repositoryFiles(): Array<{ path: string; text: string }> {
  return repositoryPaths()
    .filter((path) => existsSync(join(REPO_ROOT, path)) && statSync(join(REPO_ROOT, path)).isFile())
    .map((path) => ({ path, text: readFileSync(join(REPO_ROOT, path), 'utf8') }))
    .filter(({ text }) => !text.includes('\0'))
}

function repositoryPaths(): string[] {
  if (existsSync(join(REPO_ROOT, '.git'))) {
    const args = ['-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    const listing = execFileSync('git', args, { cwd: REPO_ROOT, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
    return listing.split('\0').filter((path) => path !== '')
  }
  const skipped = /(^|\/)(node_modules|data|coverage)(\/|$)/
  return readdirSync(REPO_ROOT, { recursive: true, encoding: 'utf8' }).filter((path) => !skipped.test(path))
}

function isNode(value: unknown): value is SyntaxNode {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'
}

/** The direct children of a node, in source order. */
function childrenOf(node: SyntaxNode): SyntaxNode[] {
  return Object.values(node).flat().filter(isNode)
}

function allNodes(root: unknown): SyntaxNode[] {
  const found: SyntaxNode[] = []
  const waiting = isNode(root) ? [root] : []
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    found.push(node)
    waiting.push(...childrenOf(node).toReversed())
  }
  return found
}

/** A member of a node that is a node itself, or null. */
export function member(node: SyntaxNode, name: string): SyntaxNode | null {
  const value = node[name]
  return isNode(value) ? value : null
}

/** `a.b` of a plain member expression, the name of an identifier, else ''. */
export function dottedName(node: SyntaxNode | null): string {
  if (node === null) return ''
  if (node.type === 'Identifier') return String(node['name'])
  if (node.type === 'ChainExpression') return dottedName(member(node, 'expression'))
  if (node.type !== 'MemberExpression' || node['computed'] === true) return ''
  const object = dottedName(member(node, 'object'))
  return object === '' ? '' : `${object}.${dottedName(member(node, 'property'))}`
}

function importOf(path: string, node: SyntaxNode, lineOf: (offset: number) => number): Import | null {
  const specifier = specifierOf(node)
  if (specifier === null) return null
  const relative = specifier.startsWith('.')
  return {
    specifier,
    path: relative ? normalize(join(dirname(path), specifier)).replaceAll('\\', '/') : null,
    type_only: node['importKind'] === 'type' || node['exportKind'] === 'type',
    line: lineOf(node.start),
  }
}

const FROM = new Set(['ImportDeclaration', 'ExportNamedDeclaration', 'ExportAllDeclaration', 'ImportExpression'])

function specifierOf(node: SyntaxNode): string | null {
  if (FROM.has(node.type)) return textOf(member(node, 'source'))
  if (node.type === 'TSImportType') return textOf(member(node, 'source')) ?? textOf(member(node, 'argument'))
  if (node.type !== 'NewExpression' || dottedName(member(node, 'callee')) !== 'URL') return null
  const [first, second] = Array.isArray(node['arguments']) ? node['arguments'].filter(isNode) : []
  const specifier = textOf(first ?? null)
  const base = second?.type === 'MemberExpression' && member(second, 'object')?.type === 'MetaProperty'
  return base && specifier?.endsWith('.ts') === true ? specifier : null
}

function textOf(literal: SyntaxNode | null): string | null {
  if (literal?.type === 'TSLiteralType') return textOf(member(literal, 'literal'))
  return literal?.type === 'Literal' && typeof literal['value'] === 'string' ? literal['value'] : null
}
