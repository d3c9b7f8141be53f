import { dottedName, member, type Rule, type SourceFile, type SyntaxNode } from './source.ts'

/** One thing that must not be written, where, and what to write instead. */
interface Ban {
  readonly what: string
  readonly instead: string
  readonly found: (node: SyntaxNode, file: SourceFile) => boolean
  /** Files that it does not concern. */
  readonly except?: RegExp
  /** Files that it concerns; all of src without it. */
  readonly only?: RegExp
}

const PROGRAMS = /^src\/((main|cli)\.ts$|(main|cli)\/|sandbox\/main\.ts$)/
const MONEY_CODE = /^src\/(money|control|worker|gateway|storage)\//
const MONEY_NAME = /(_nano|_pico|_fen|balance)\b/
/** Gateway files that may parse a whole JSON text: once per request, or once per refusal, never per streamed event. */
const GATEWAY_JSON = /^src\/gateway\/(request|lookup|authenticate)\.ts$/

const calls = (name: string) => (node: SyntaxNode) => node.type === 'CallExpression' && dottedName(member(node, 'callee')) === name
const mentions = (name: string) => (node: SyntaxNode) => node.type === 'MemberExpression' && dottedName(node) === name
const is = (type: string) => (node: SyntaxNode) => node.type === type

function argumentsOf(node: SyntaxNode): SyntaxNode[] {
  return Array.isArray(node['arguments']) ? (node['arguments'] as SyntaxNode[]) : []
}

function emptyCatch(node: SyntaxNode): boolean {
  const body = node.type === 'CatchClause' ? member(node, 'body')?.['body'] : null
  return Array.isArray(body) && body.length === 0
}

const BANS: readonly Ban[] = [
  {
    what: 'process.env',
    instead: 'read the setting in src/config/load.ts and pass it in',
    found: mentions('process.env'),
    except: /^src\/config\/load\.ts$/,
  },
  { what: 'Date.now()', instead: 'take a Clock (base/clock.ts)', found: mentions('Date.now'), except: /^src\/(base\/clock\.ts|sandbox\/)/ },
  {
    what: 'performance.now()',
    instead: 'take a Clock and use monotonic_ms()',
    found: mentions('performance.now'),
    except: /^src\/(base\/clock\.ts|sandbox\/)/,
  },
  {
    what: 'new Date() of now',
    instead: 'take a Clock and write new Date(clock.now_ms())',
    found: (node) => node.type === 'NewExpression' && dottedName(member(node, 'callee')) === 'Date' && argumentsOf(node).length === 0,
  },
  {
    what: 'Math.random()',
    instead: 'take the source of randomness as an argument',
    found: mentions('Math.random'),
    // The files at the top of src put the parts together: that is where the real one is passed in.
    except: /^src\/([\w-]+\.ts$|base\/ids\.ts|sandbox\/)/,
  },
  {
    what: 'randomUUID()',
    instead: 'use uuidv7 (base/ids.ts), which sorts by time',
    found: (node) => /(^|\.)randomUUID$/.test(dottedName(node.type === 'CallExpression' ? member(node, 'callee') : null)),
  },
  {
    what: 'parseFloat()',
    instead: 'use the decimal parser of money/amount.ts',
    found: (node) => calls('parseFloat')(node) || calls('Number.parseFloat')(node),
    only: MONEY_CODE,
  },
  {
    what: 'toFixed()',
    instead: 'use the decimal printer of money/amount.ts',
    found: (node) => node.type === 'CallExpression' && dottedName(member(member(node, 'callee') ?? node, 'property')) === 'toFixed',
    only: MONEY_CODE,
  },
  {
    what: 'Number() of money',
    instead: 'keep the bigint, and print it with money/amount.ts',
    found: (node, file) => calls('Number')(node) && MONEY_NAME.test(file.text.slice(node.start, node.end)),
    // Prometheus has nothing but doubles.
    except: /^src\/observe\//,
  },
  {
    what: 'console',
    instead: 'use the Log that is passed in (observe/log.ts)',
    found: (node) => node.type === 'MemberExpression' && dottedName(node).startsWith('console.'),
    except: PROGRAMS,
  },
  { what: 'process.exit()', instead: 'throw, and let main or cli end the process', found: calls('process.exit'), except: PROGRAMS },
  {
    what: 'JSON.parse() on the hot path',
    instead: 'use base/json-spans.ts, or list the file in tests/tidy/constructs.ts with its reason',
    found: calls('JSON.parse'),
    only: /^src\/gateway\//,
    except: GATEWAY_JSON,
  },
  { what: 'an empty catch', instead: 'handle the error, count it, or say in code what happens instead', found: emptyCatch },
  { what: 'a default export', instead: 'export it by name', found: is('ExportDefaultDeclaration') },
  { what: 'export *', instead: 'import from the file that has it', found: is('ExportAllDeclaration') },
  { what: 'any', instead: 'use unknown and narrow it', found: is('TSAnyKeyword') },
  { what: '! (non-null assertion)', instead: 'handle the missing case, or assert() it', found: is('TSNonNullExpression') },
  { what: 'an enum', instead: 'use a union of strings', found: is('TSEnumDeclaration') },
  { what: 'a parameter property', instead: 'declare the field and assign it', found: is('TSParameterProperty') },
  { what: 'eval', instead: 'write a function', found: (node) => calls('eval')(node) || dottedName(member(node, 'callee')) === 'Function' },
]

/** Nothing of the table above is written. */
export const constructs: Rule = (files) => files.flatMap((file) => file.nodes.flatMap((node) => bannedAt(file, node)))

function bannedAt(file: SourceFile, node: SyntaxNode): string[] {
  return BANS.filter((ban) => concerns(ban, file) && ban.found(node, file)).map(
    (ban) => `${file.path}:${file.lineOf(node.start)} ${ban.what}: ${ban.instead}`,
  )
}

function concerns(ban: Ban, file: SourceFile): boolean {
  return (ban.only?.test(file.path) ?? true) && ban.except?.test(file.path) !== true
}

/** No barrels by name, and no notes to oneself. */
export const names: Rule = (files) =>
  files.flatMap((file) => {
    const barrel = file.path.endsWith('/index.ts') ? [`${file.path} is a barrel: import from the file that has it`] : []
    const notes = [...file.text.matchAll(/\b(TODO|FIXME|XXX|HACK)\b/g)].map(
      (match) => `${file.path}:${file.lineOf(match.index)} ${match[0]}: do it, or write it down where work is planned`,
    )
    return [...barrel, ...notes]
  })

const PURE =
  /^src\/(money\/|gateway\/(quote|route|meter|choose|consider|hint|tenant-routing)\.ts$|upstream\/(breaker|capacity|fair-queue|key-pool|places|sse)\.ts$|upstream\/dialects\/|routing\/)/
const PURE_BUILTINS = new Set(['node:buffer', 'node:crypto', 'node:string_decoder', 'node:util'])
const IMPURE_CALLS = /^(fetch|setTimeout|setInterval|setImmediate|queueMicrotask|process\..+)$/

/** Pure files compute: no await, no I/O, no timers, no clock of their own. */
export const purity: Rule = (files) => files.filter((file) => PURE.test(file.path)).flatMap(impurities)

function impurities(file: SourceFile): string[] {
  const imported = file.imports
    .filter(({ specifier }) => specifier.startsWith('node:') && !PURE_BUILTINS.has(specifier))
    .map(({ specifier, line }) => `${file.path}:${line} ${specifier} in a pure file: take the result as an argument`)
  const written = file.nodes.flatMap((node) => {
    const at = `${file.path}:${file.lineOf(node.start)}`
    const called = node.type === 'CallExpression' ? dottedName(member(node, 'callee')) : ''
    if (IMPURE_CALLS.test(called)) return [`${at} ${called} in a pure file: let the caller do it`]
    const waits = node.type === 'AwaitExpression' || node['async'] === true
    return waits ? [`${at} async in a pure file: let the caller wait, and pass the result in`] : []
  })
  return [...imported, ...written]
}

const FUNCTION_LIMIT_LINES = 70
const FILE_LIMIT_LINES = 400
const FUNCTIONS = new Set(['FunctionDeclaration', 'FunctionExpression', 'ArrowFunctionExpression'])

/** Functions fit on a screen; files have at most 400 lines that are neither blank nor comment. */
export const sizes: Rule = (files) =>
  files.flatMap((file) => {
    const long = file.nodes.filter((node) => FUNCTIONS.has(node.type) && linesOf(file, node) > FUNCTION_LIMIT_LINES)
    const code_lines = file.text
      .replaceAll(/\/\*[\s\S]*?\*\//g, '')
      .split('\n')
      .filter((line) => !/^\s*(\/\/|$)/.test(line)).length
    return [
      ...long.map(
        (node) =>
          `${file.path}:${file.lineOf(node.start)} a function of ${linesOf(file, node)} lines: cut its stages apart (limit ${FUNCTION_LIMIT_LINES})`,
      ),
      ...(code_lines > FILE_LIMIT_LINES
        ? [`${file.path} has ${code_lines} lines of code: split it by what changes together (limit ${FILE_LIMIT_LINES})`]
        : []),
    ]
  })

function linesOf(file: SourceFile, node: SyntaxNode): number {
  return file.lineOf(node.end) - file.lineOf(node.start) + 1
}
