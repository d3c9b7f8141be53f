/**
 * Trains the domain classifier and writes src/routing/domain-weights.bin: on the shared routing data (`../shared/data/routing/train.jsonl`,
 * or under WEIR_SHARED_DIR) and on the project's own text in config/routing. The same texts give the same file, byte for byte.
 *
 *   npm run train:routing
 */
import { DOMAINS } from '../src/base/domains.ts'
import { writeFileSync } from 'node:fs'
import { CONFIDENCE_THRESHOLD } from '../src/routing/domain.ts'
import { composePhrases, readOwn, readShared, sharedPath, WEIGHTS_PATH, type Text } from './routing/corpus.ts'
import { fitTemperature, judgeUnseen, learn, tempered, type Judged } from './routing/learn.ts'
import { summary, type Outcome } from './routing/report.ts'

const PHRASE_SEED = 7

/** Everything that the classifier learns from. Throws an Error where the shared data are absent. */
export function trainingTexts(): Text[] {
  return [...readShared(sharedPath('train.jsonl', process.env['WEIR_SHARED_DIR'])), ...readOwn(), ...composePhrases(PHRASE_SEED)]
}

/** What a judgement comes to at a temperature. */
export function outcomeOf({ text, probabilities }: Judged, temperature: number): Outcome {
  const calibrated = tempered(probabilities, temperature)
  const confidence = calibrated.reduce((a, b) => Math.max(a, b), 0)
  return { source: text.source, domain: text.domain, guess: DOMAINS[calibrated.indexOf(confidence)] ?? 'general', confidence }
}

function main(): void {
  const started_at = performance.now()
  const texts = trainingTexts()
  const judged = judgeUnseen(texts)
  const temperature = fitTemperature(judged)
  for (const kind of ['shared', 'own'] as const) {
    const outcomes = judged.filter(({ text }) => text.kind === kind).map((one) => outcomeOf(one, temperature))
    console.log(summary(`${kind} text, each by a model that had not seen it`, outcomes, CONFIDENCE_THRESHOLD).join('\n'))
  }
  const { file, kept, lost } = learn(texts, temperature)
  writeFileSync(WEIGHTS_PATH, file)
  const seconds = ((performance.now() - started_at) / 1000).toFixed(0)
  console.log(`${texts.length} texts; temperature ${temperature.toFixed(2)}; ${kept} features kept, ${lost} lost to collisions`)
  console.log(`${WEIGHTS_PATH}: ${file.length} bytes, in ${seconds} s`)
}

if (import.meta.main) {
  try {
    main()
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error))
    process.exitCode = 1
  }
}
