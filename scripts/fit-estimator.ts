/**
 * Refits the token estimator on texts with real token counts and prints the coefficients of src/money/estimate-coefficients.ts, then how
 * well each class of text is estimated by coefficients fitted without its source (leave one source out).
 *
 *   node scripts/fit-estimator.ts [--data token-counts.jsonl]
 *
 * The data are lines of {source, text, qwen3, deepseek_v3}; by default ../shared/data/token-counts.jsonl, or the same file under
 * WEIR_SHARED_DIR. The result is deterministic.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { FEATURES, createScanner } from '../src/money/estimate-features.ts'
import type { Feature } from '../src/money/estimate-features.ts'

/** A tokenizer whose real counts the data have. */
export type FittedTokenizer = 'qwen3' | 'deepseek_v3'

export const FITTED: readonly FittedTokenizer[] = ['qwen3', 'deepseek_v3']

export interface Sample {
  readonly source: string
  readonly real: Readonly<Record<FittedTokenizer, number>>
  /** Counts in the order of FEATURES. */
  readonly features: readonly number[]
}

/** Held-out figures: every text estimated by coefficients fitted without its source. Errors are signed fractions. */
export interface HeldOut {
  readonly total_error: number
  /** Texts of at least {@link LONG_TEXT_TOKENS} real tokens, and how many of them are within {@link TEXT_TOLERANCE}. */
  readonly long_texts: number
  readonly long_texts_within: number
  readonly by_class: ReadonlyMap<string, { readonly real: number; readonly error: number }>
  readonly by_source: ReadonlyMap<string, { readonly real: number; readonly error: number }>
}

export const LONG_TEXT_TOKENS = 100
export const TEXT_TOLERANCE = 0.2

/** Texts above about this many tokens weigh the same: their error grows with their length, that of short ones with its root. */
const EVEN_WEIGHT_TOKENS = 500
/** How strongly a coefficient is pulled to its expectation: as by three occurrences of the feature alone in a one-token text. */
const PRIOR_WEIGHT = 3
/**
 * Features whose cost the splitting rules settle (a single space joins the word or mark after it, but never a Chinese word), while the
 * data, full of spaces that line ends of scanned exams left inside words, would let them stand in for something else.
 */
const SETTLED: ReadonlySet<Feature> = new Set<Feature>(['space_first', 'han_after_space'])
const SETTLED_WEIGHT = 3000
const MAX_SWEEPS = 20_000
const CONVERGED = 1e-9

/**
 * What each feature should cost by the published splitting rules alone. It decides where the data say little (scripts, emoji and layouts
 * that hardly occur in them) and hardly matters elsewhere.
 */
const EXPECTED: Readonly<Record<Feature, number>> = {
  word_after_space: 1,
  name_after_space: 1.2,
  word_after_mark: 0.8,
  word_after_backslash: 1.1,
  word_after_other: 1,
  letter_9_on: 0.1,
  camel_hump: 0.7,
  upper_after_upper: 0.3,
  digit_first_of_three: 1,
  digit_other: 1,
  digit_after_space: 1,
  digit_after_mark: 0.02,
  han_first: 0.8,
  han_next: 0.75,
  han_word_end: 0.1,
  han_after_space: 0.95,
  han_after_gap: 1,
  han_rare: 1.5,
  wide_mark_first: 1,
  wide_mark_next: 0.7,
  mark_after_word: 0.8,
  mark_after_space: 0.9,
  mark_after_other: 0.9,
  mark_repeated: 0.1,
  mark_next: 0.4,
  line_break: 0.8,
  line_break_after_mark: 0.2,
  line_break_next: 0.1,
  space_first: 0.02,
  space_second: 0.8,
  space_third_on: 0.02,
  indent_first: 0.7,
  alphabet_letter: 0.4,
  kana_or_hangul: 0.75,
  symbol: 1.2,
  other_script: 0.8,
  astral: 1.8,
}

function expectedOf(tokenizer: FittedTokenizer): number[] {
  const own: Partial<Record<Feature, number>> = tokenizer === 'deepseek_v3' ? { digit_other: 0.05 } : {}
  return FEATURES.map((name) => own[name] ?? EXPECTED[name])
}

function isSampleLine(value: unknown): value is { source: string; text: string; qwen3: number; deepseek_v3: number } {
  if (typeof value !== 'object' || value === null) return false
  const has = (key: string, type: string): boolean => typeof Reflect.get(value, key) === type
  return has('source', 'string') && has('text', 'string') && has('qwen3', 'number') && has('deepseek_v3', 'number')
}

/** Counts the features of one text. */
function featuresOf(text: string): number[] {
  const scanner = createScanner()
  scanner.scan(text)
  return Array.from(scanner.counts)
}

/** Reads samples from JSON lines. Throws an Error that names the first line of another form. */
export function readSamples(path: string): Sample[] {
  const lines = readFileSync(path, 'utf8').split('\n')
  return lines.flatMap((line, index) => {
    if (line === '') return []
    const row: unknown = JSON.parse(line)
    if (!isSampleLine(row)) throw new Error(`${path}:${index + 1}: expected source, text, qwen3 and deepseek_v3`)
    return [{ source: row.source, real: { qwen3: row.qwen3, deepseek_v3: row.deepseek_v3 }, features: featuresOf(row.text) }]
  })
}

interface NormalEquations {
  readonly matrix: Float64Array[]
  readonly vector: Float64Array
}

function at(values: ArrayLike<number>, index: number): number {
  return values[index] ?? 0
}

function accumulate(samples: readonly Sample[], tokenizer: FittedTokenizer): NormalEquations {
  const expected = expectedOf(tokenizer)
  const pull = FEATURES.map((name) => (SETTLED.has(name) ? SETTLED_WEIGHT : PRIOR_WEIGHT))
  const vector = Float64Array.from(expected, (value, i) => value * at(pull, i))
  const matrix = expected.map((_, i) => Float64Array.from(expected, (_value, j) => (i === j ? at(pull, i) : 0)))
  for (const { real, features } of samples) {
    const y = real[tokenizer]
    const weight = 1 / (y + (y * y) / EVEN_WEIGHT_TOKENS)
    matrix.forEach((row, i) => {
      const scaled = weight * at(features, i)
      if (scaled === 0) return
      vector[i] = at(vector, i) + scaled * y
      features.forEach((value, j) => (row[j] = at(row, j) + scaled * value))
    })
  }
  return { matrix, vector }
}

/** Non-negative least squares by coordinate descent; the prior makes the problem strictly convex, so the solution is unique. */
function solve({ matrix, vector }: NormalEquations, start: readonly number[]): number[] {
  const solution = [...start]
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    let largest = 0
    matrix.forEach((row, i) => {
      const before = at(solution, i)
      const rest = solution.reduce((sum, value, j) => sum - at(row, j) * value, at(vector, i)) + at(row, i) * before
      const after = Math.max(0, rest / at(row, i))
      solution[i] = after
      largest = Math.max(largest, Math.abs(after - before))
    })
    if (largest < CONVERGED) break
  }
  return solution
}

/** Coefficients in tokens per occurrence, in the order of FEATURES, never negative. */
export function fitCoefficients(samples: readonly Sample[], tokenizer: FittedTokenizer): number[] {
  return solve(accumulate(samples, tokenizer), expectedOf(tokenizer))
}

/** Coefficients as the tree has them: whole thousandths of a token. */
export function milliTokens(coefficients: readonly number[]): number[] {
  return coefficients.map((value) => Math.round(value * 1000))
}

const CLASSES: readonly (readonly [label: string, sources: RegExp])[] = [
  ['JSON', /package\.json$/],
  ['Markdown', /\.md$/],
  ['code', /^code\/|^HumanEval/],
  ['English', /\(en\)|english|prompts en/],
  ['Chinese with formulas', /Math|Chemistry|Physics/],
  ['Chinese titles', /titles|item names/],
]

/** The class of text that a source of the data holds. */
function classOf(source: string): string {
  return CLASSES.find(([, sources]) => sources.test(source))?.[0] ?? 'Chinese prose'
}

class Tally {
  readonly sums = new Map<string, { real: number; estimate: number }>()

  add(key: string, real: number, estimate: number): void {
    const sum = this.sums.get(key) ?? { real: 0, estimate: 0 }
    this.sums.set(key, { real: sum.real + real, estimate: sum.estimate + estimate })
  }

  errors(): Map<string, { real: number; error: number }> {
    return new Map([...this.sums].map(([key, { real, estimate }]) => [key, { real, error: estimate / real - 1 }]))
  }
}

/** Leave-one-source-out figures of one tokenizer. */
export function heldOut(samples: readonly Sample[], tokenizer: FittedTokenizer): HeldOut {
  const classes = new Tally()
  const sources = new Tally()
  const total = new Tally()
  const long = { texts: 0, within: 0 }
  for (const source of new Set(samples.map((sample) => sample.source))) {
    const coefficients = fitCoefficients(
      samples.filter((sample) => sample.source !== source),
      tokenizer,
    )
    for (const sample of samples.filter((one) => one.source === source)) {
      const real = sample.real[tokenizer]
      const estimate = sample.features.reduce((sum, value, i) => sum + value * at(coefficients, i), 0)
      classes.add(classOf(source), real, estimate)
      sources.add(source, real, estimate)
      total.add('total', real, estimate)
      if (real < LONG_TEXT_TOKENS) continue
      long.texts += 1
      if (Math.abs(estimate / real - 1) <= TEXT_TOLERANCE) long.within += 1
    }
  }
  const total_error = total.errors().get('total')?.error ?? Number.NaN
  return { total_error, long_texts: long.texts, long_texts_within: long.within, by_class: classes.errors(), by_source: sources.errors() }
}

const percent = (fraction: number): string => `${fraction < 0 ? '' : '+'}${(fraction * 100).toFixed(1)} %`

function print(samples: readonly Sample[]): void {
  const fits = FITTED.map((tokenizer) => milliTokens(fitCoefficients(samples, tokenizer)))
  console.log('Thousandths of a token per occurrence: [qwen3, deepseek_v3]')
  FEATURES.forEach((name, i) => console.log(`  ${name}: [${fits.map((fit) => at(fit, i)).join(', ')}],`))
  for (const tokenizer of FITTED) {
    const held = heldOut(samples, tokenizer)
    console.log(`\n${tokenizer}, each source estimated without it: total ${percent(held.total_error)},`)
    console.log(
      `texts of ${LONG_TEXT_TOKENS} tokens or more within ${TEXT_TOLERANCE * 100} %: ${held.long_texts_within} of ${held.long_texts}`,
    )
    for (const [label, { real, error }] of held.by_class) console.log(`  ${label.padEnd(24)}${String(real).padStart(8)}  ${percent(error)}`)
    const worst = [...held.by_source]
      .filter(([, { real }]) => real >= 1000)
      .toSorted(([, a], [, b]) => Math.abs(b.error) - Math.abs(a.error))
    console.log('  farthest sources of 1,000 tokens or more:')
    for (const [source, { real, error }] of worst.slice(0, 8))
      console.log(`  ${source.padEnd(44)}${String(real).padStart(8)}  ${percent(error)}`)
  }
}

/** Where the data are unless told: `WEIR_SHARED_DIR`, else beside the repository. */
export function defaultDataPath(shared_dir: string | undefined): string {
  return join(shared_dir ?? join(import.meta.dirname, '../../shared'), 'data/token-counts.jsonl')
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { data: { type: 'string' } } })
  const path = values.data ?? defaultDataPath(process.env['WEIR_SHARED_DIR'])
  if (existsSync(path)) print(readSamples(path))
  else {
    console.error(`No token counts at ${path}; name the file with --data.`)
    process.exitCode = 1
  }
}
