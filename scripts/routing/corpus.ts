/**
 * The texts that the domain classifier is trained on: the shared data (read in place, never copied), the project's own lines in
 * config/routing/*.jsonl, and phrases made of its terms and templates there.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Domain, DOMAINS } from '../../src/base/domains.ts'
import type { DomainInput } from '../../src/routing/features.ts'
import { seededRandom } from './random.ts'

export interface Text {
  readonly input: DomainInput
  readonly domain: Domain
  /** Where it is from: `data set/part` of shared lines, `own/<domain>` or `phrases/<domain>`. */
  readonly source: string
  readonly kind: 'shared' | 'own' | 'phrase'
}

const REPO_ROOT = join(import.meta.dirname, '../..')
export const OWN_DIR = join(REPO_ROOT, 'config/routing')
export const WEIGHTS_PATH = join(REPO_ROOT, 'src/routing/domain-weights.bin')

/** A file of the shared routing data: under `shared_dir`, else beside the repository. */
export function sharedPath(file: 'train.jsonl' | 'evaluate.jsonl', shared_dir: string | undefined): string {
  return join(shared_dir ?? join(REPO_ROOT, '../shared'), 'data/routing', file)
}

function isDomain(value: unknown): value is Domain {
  return DOMAINS.some((domain) => domain === value)
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string')
}

function field(line: unknown, name: string): unknown {
  return typeof line === 'object' && line !== null ? Reflect.get(line, name) : undefined
}

/** One line: `{text, domain}`, or `{turns, domain}` with a `system` or without. Throws an Error that names `place`. */
export function parseLine(json: string, place: string): { readonly input: DomainInput; readonly domain: Domain; readonly source: unknown } {
  const line: unknown = JSON.parse(json)
  const domain = field(line, 'domain')
  const text = field(line, 'text')
  const turns = typeof text === 'string' ? [text] : field(line, 'turns')
  const system = field(line, 'system') ?? null
  if (!isDomain(domain)) throw new Error(`${place}: domain must be one of ${DOMAINS.join(' ')}`)
  if (!isStrings(turns)) throw new Error(`${place}: expected a text, or turns`)
  if (system !== null && typeof system !== 'string') throw new Error(`${place}: system must be a text`)
  return { input: { system, turns }, domain, source: field(line, 'source') }
}

function readLines(path: string): ReturnType<typeof parseLine>[] {
  const lines = readFileSync(path, 'utf8').split('\n')
  return lines.flatMap((line, at) => (line === '' ? [] : [parseLine(line, `${path}:${at + 1}`)]))
}

/** The lines of a shared file. Throws an Error that says where it was looked for. */
export function readShared(path: string): Text[] {
  if (!existsSync(path)) throw new Error(`no routing data at ${path}: set WEIR_SHARED_DIR to the folder that holds data/routing`)
  return readLines(path).map(({ input, domain, source }) => {
    if (typeof source !== 'string') throw new Error(`${path}: every line needs a source`)
    return { input, domain, source, kind: 'shared' }
  })
}

/** The project's own lines. */
export function readOwn(dir = OWN_DIR): Text[] {
  const files = readdirSync(dir).filter((name) => name.endsWith('.jsonl'))
  return files
    .toSorted()
    .flatMap((name) =>
      readLines(join(dir, name)).map(({ input, domain }) => ({ input, domain, source: `own/${domain}`, kind: 'own' as const })),
    )
}

type Language = 'zh' | 'en'
const SEPARATORS: Readonly<Record<Language, RegExp>> = { zh: /[，\n]/, en: /; |\n/ }

/** The terms of a domain in one language. */
export function readTerms(domain: Domain, language: Language, dir = OWN_DIR): string[] {
  const text = readFileSync(join(dir, 'terms', `${domain}.${language}.txt`), 'utf8')
  return text.split(SEPARATORS[language]).filter((term) => term !== '')
}

export function readTemplates(language: Language, dir = OWN_DIR): string[] {
  const lines = readFileSync(join(dir, `templates.${language}.txt`), 'utf8').split('\n')
  return lines.filter((line) => line !== '').map((line) => line.replaceAll('⏎', '\n'))
}

/** How many phrases are made of every term. */
const PHRASES_PER_TERM = 3

/**
 * Phrases: every term of a domain set into templates that are the same for all domains, so that their wording says nothing and their
 * terms everything. `{a}` is the term, `{b}` to `{e}` are others of its domain.
 */
export function composePhrases(seed: number, dir = OWN_DIR): Text[] {
  const random = seededRandom(seed)
  const templates = { zh: readTemplates('zh', dir), en: readTemplates('en', dir) }
  const languages = ['zh', 'en'] as const
  return DOMAINS.flatMap((domain) =>
    languages.flatMap((language) => {
      const terms = readTerms(domain, language, dir)
      const rounds = Array.from({ length: PHRASES_PER_TERM }, () => terms).flat()
      return rounds.map((term): Text => {
        const text = random.pick(templates[language]).replaceAll('{a}', term)
        const filled = text.replaceAll(/\{[bcde]\}/g, () => random.pick(terms))
        return { input: { system: null, turns: [filled] }, domain, source: `phrases/${domain}`, kind: 'phrase' }
      })
    }),
  )
}
