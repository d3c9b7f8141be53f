import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'

const SCRIPT_NAMES = [
  'announce',
  'applied',
  'await',
  'balance',
  'begin',
  'block',
  'count',
  'credit',
  'cut',
  'due',
  'extend',
  'fill-account',
  'fill-meters',
  'hold',
  'mark',
  'open',
  'publish',
  'release',
  'report',
  'settle',
  'shift',
  'states',
  'sweep',
  'wipe',
] as const
export type ScriptName = (typeof SCRIPT_NAMES)[number]

/** A script as it is sent, and the SHA-1 by which servers know it. */
export interface Script {
  readonly text: string
  readonly sha: string
}
export type Scripts = Readonly<Record<ScriptName, Script>>

/** Reads every script of `scripts/`, with what its `-- include: …` line names (files of `scripts/lib/`) between its first line and the rest. */
export function loadScripts(): Scripts {
  const libraries = new Map<string, string>()
  const library = (name: string): string => {
    const text = libraries.get(name) ?? read(`lib/${name}`)
    libraries.set(name, text)
    return text
  }
  const entries = SCRIPT_NAMES.map((name) => [name, scriptOf(assemble(read(name), library))] as const)
  return Object.fromEntries(entries) as Scripts
}

function read(name: string): string {
  return readFileSync(new URL(`scripts/${name}.lua`, import.meta.url), 'utf8')
}

/** The line that names the language and its flags must stay the first one. */
function assemble(source: string, library: (name: string) => string): string {
  const [first = '', ...rest] = source.split('\n')
  const names = rest.flatMap((line) => /^-- include: (.+)$/.exec(line)?.[1]?.split(', ') ?? [])
  return [first, ...names.map(library), ...rest].join('\n')
}

function scriptOf(text: string): Script {
  return { text, sha: hash('sha1', text, 'hex') }
}
