/**
 * Measures the domain classifier with the committed weights: on the shared evaluation set, which nothing is trained on, then on each
 * shared data set by a model trained without it, and how long a request takes.
 *
 *   npm run eval:routing                       all of it, in minutes
 *   npm run eval:routing -- --quick            without the models trained for it
 *   npm run eval:routing -- --sources          with the accuracy of every source
 *   npm run eval:routing -- --explain "text"   what the classifier thinks of one text, and why
 */
import { DOMAINS, VERTICALS } from '../src/base/domains.ts'
import { existsSync, readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { CONFIDENCE_THRESHOLD, confidentDomain, createDomainClassifier, type DomainClassifier } from '../src/routing/domain.ts'
import { createFeatureScanner, type DomainInput } from '../src/routing/features.ts'
import { readShared, sharedPath, WEIGHTS_PATH } from './routing/corpus.ts'
import { fitTemperature, leaveOneDatasetOut } from './routing/learn.ts'
import { bySource, summary, type Outcome } from './routing/report.ts'
import { outcomeOf, trainingTexts } from './train-routing.ts'

const TIMED_REQUESTS = 20_000
const LONG_PROMPT_CHARACTERS = 2000
const TOP_FEATURES = 15

function outcomes(classifier: DomainClassifier, path: string): Outcome[] {
  return readShared(path).map(({ input, domain, source }) => {
    const { domain: guess, confidence } = classifier.classify(input)
    return { source, domain, guess, confidence }
  })
}

function printTimes(title: string, classifier: DomainClassifier, inputs: readonly DomainInput[]): void {
  const rounds = Array.from({ length: Math.ceil(TIMED_REQUESTS / inputs.length) }, () => inputs).flat()
  for (const input of rounds) classifier.classify(input)
  const times = Float64Array.from(rounds, (input) => {
    const started_at = performance.now()
    classifier.classify(input)
    return (performance.now() - started_at) * 1000
  }).toSorted()
  const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(1)
  console.log(`${title}: p50 ${at(0.5)} µs, p99 ${at(0.99)} µs per request`)
}

/** Prompts of 2,000 characters made of the texts, one after another. */
function longPrompts(texts: readonly string[]): DomainInput[] {
  const all = texts.join(' ')
  const count = Math.min(200, Math.floor(all.length / LONG_PROMPT_CHARACTERS))
  return Array.from({ length: count }, (_, at) => ({
    system: null,
    turns: [all.slice(at * LONG_PROMPT_CHARACTERS, (at + 1) * LONG_PROMPT_CHARACTERS)],
  }))
}

/** Names for features of a text: the pieces of it that give exactly their hash last. */
function namesOf(text: string): Map<number, string> {
  const scanner = createFeatureScanner()
  const names = new Map<number, string>()
  const words = text.match(/[\p{L}\p{N}]+/gu) ?? []
  const pieces = [1, 2, 3].flatMap((length) => Array.from(text, (_, at) => text.slice(at, at + length)))
  const pairs = words.slice(1).map((word, at) => `${words[at] ?? ''} ${word}`)
  for (const piece of [...pieces, ...words.flatMap((word) => [word, `${word}…`]), ...pairs]) {
    scanner.scan({ system: null, turns: [piece] })
    const end = scanner.spans[0]?.end ?? 0
    for (const hash of scanner.hashes.subarray(0, end)) if (!names.has(hash)) names.set(hash, piece)
  }
  return names
}

function explain(classifier: DomainClassifier, text: string): void {
  const input = { system: null, turns: [text] }
  const guess = classifier.classify(input)
  console.log(`${guess.domain} with confidence ${guess.confidence.toFixed(3)}: routed as ${confidentDomain(guess)}`)
  for (const domain of DOMAINS) console.log(`  ${domain.padEnd(17)}${guess.scores[domain].toFixed(3)}`)
  const at = guess.domain === 'general' ? -1 : VERTICALS.indexOf(guess.domain)
  const strength = (logits: Float64Array): number => (at < 0 ? -Math.max(...logits) : (logits[at] ?? 0))
  const names = namesOf(text)
  const strongest = classifier.explain(input).toSorted((a, b) => strength(b.logits) - strength(a.logits))
  console.log(`  what speaks most for ${guess.domain}:`)
  for (const { hash, logits } of strongest.slice(0, TOP_FEATURES))
    console.log(`    ${strength(logits).toFixed(2).padStart(7)}  ${names.get(hash) ?? '?'}`)
}

function main(): void {
  const { values } = parseArgs({
    options: { quick: { type: 'boolean' }, sources: { type: 'boolean' }, explain: { type: 'string' } },
  })
  const classifier = createDomainClassifier(readFileSync(WEIGHTS_PATH))
  if (values.explain !== undefined) {
    explain(classifier, values.explain)
    return
  }
  const path = sharedPath('evaluate.jsonl', process.env['WEIR_SHARED_DIR'])
  if (!existsSync(path)) throw new Error(`no evaluation set at ${path}: set WEIR_SHARED_DIR to the folder that holds data/routing`)
  const evaluated = outcomes(classifier, path)
  console.log(summary('evaluation set', evaluated, CONFIDENCE_THRESHOLD).join('\n'))
  if (values.sources === true) console.log(bySource(evaluated).join('\n'))
  const texts = readShared(path)
  printTimes(
    'evaluation set',
    classifier,
    texts.map(({ input }) => input),
  )
  printTimes(`prompts of ${LONG_PROMPT_CHARACTERS} characters`, classifier, longPrompts(texts.flatMap(({ input }) => input.turns)))
  if (values.quick === true) return
  const judged = leaveOneDatasetOut(trainingTexts())
  const temperature = fitTemperature(judged)
  const held = judged.map((one) => outcomeOf(one, temperature))
  console.log(summary('shared data sets, each by a model trained without it', held, CONFIDENCE_THRESHOLD).join('\n'))
  console.log(bySource(held).join('\n'))
}

if (import.meta.main) {
  try {
    main()
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error))
    process.exitCode = 1
  }
}
