/** From texts to the weights file: examples, their weights, the regression, its calibration on what it has not seen, and the file. */
import { DOMAINS, VERTICALS } from '../../src/base/domains.ts'
import { createFeatureScanner } from '../../src/routing/features.ts'
import { formatWeights, markOf, neighbourOf, slotOf } from '../../src/routing/weights.ts'
import type { Text } from './corpus.ts'
import { fit, predict, softmax, type Example, type Regression } from './regression.ts'

const SEED = 20_260
/** A feature that fewer texts have is not learned: it would be a memory of one text. */
const FEWEST_TEXTS = 2
/** Own lines count most: they are written for this; phrases least: they are many and alike. */
const OWN_WEIGHT = 2
const PHRASE_WEIGHT = 0.2
/**
 * A shared source of n lines weighs as n to the power of 1/4, so that large ones do not drown the others; m sources of one data set
 * together weigh as the root of m.
 */
const SOURCE_WEIGHT = 1
const SOURCE_POWER = 0.75
/** A feature of n texts says n to the power of minus this: the rare ones are the telling ones. */
const COMMONNESS_POWER = 0.2
const SLOT_BITS = 18
const GENERAL = DOMAINS.length - 1
/** Weights beyond all but one in this many are cut, so that the others keep their precision. */
const CLIPPED_ONE_IN = 5000
const FOLDS = 4
/** Regressions whose mean is shipped. */
const MODELS = 3

/** A text with its features as numbers of a dictionary that all texts share. */
interface Sample extends Example {
  readonly text: Text
  /** What each feature would add to `unknown`: the squares of its counts, as often as it occurs. */
  readonly squares: Float32Array
}

/** One text and what was thought of it by a model that had not seen its source: probabilities in the order of {@link DOMAINS}. */
export interface Judged {
  readonly text: Text
  readonly probabilities: Float64Array
}

export interface Learned {
  readonly file: Uint8Array
  readonly temperature: number
  /** Features with a slot, and those that lost theirs to another. */
  readonly kept: number
  readonly lost: number
}

/** How many texts and sources a text has company of. */
interface Company {
  readonly of_source: ReadonlyMap<string, number>
  /** Shared sources of one domain in one data set. */
  readonly of_dataset: ReadonlyMap<string, number>
  readonly mean_phrases: number
}

const datasetKey = (text: Text): string => `${datasetOf(text.source)} ${text.domain}`

function companyOf(texts: readonly Text[]): Company {
  const of_source = countBy(texts, (text) => text.source)
  const shared = texts.filter(({ kind }) => kind === 'shared')
  const one_each = [...new Map(shared.map((text) => [`${text.source} ${text.domain}`, text])).values()]
  const phrases = texts.filter(({ kind }) => kind === 'phrase').length
  return { of_source, of_dataset: countBy(one_each, datasetKey), mean_phrases: phrases / DOMAINS.length }
}

function weightOf(text: Text, { of_source, of_dataset, mean_phrases }: Company): number {
  const alike = of_source.get(text.source) ?? 1
  if (text.kind === 'own') return OWN_WEIGHT
  if (text.kind === 'phrase') return PHRASE_WEIGHT * Math.sqrt(mean_phrases / alike)
  return SOURCE_WEIGHT / (alike ** SOURCE_POWER * Math.sqrt(of_dataset.get(datasetKey(text)) ?? 1))
}

function countBy<T>(items: readonly T[], key: (item: T) => string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const item of items) counts.set(key(item), (counts.get(key(item)) ?? 0) + 1)
  return counts
}

/** The features of texts; `hashes[n]` is the hash of feature n. */
function sample(texts: readonly Text[]): { readonly samples: readonly Sample[]; readonly hashes: readonly number[] } {
  const scanner = createFeatureScanner()
  const numbers = new Map<number, number>()
  const company = companyOf(texts)
  const samples = texts.map((text): Sample => {
    scanner.scan(text.input)
    const counts = new Map<number, number>()
    const squares = new Map<number, number>()
    for (const { start, end, weight } of scanner.spans) {
      for (const hash of scanner.hashes.subarray(start, end)) {
        const number = numbers.get(hash) ?? numbers.size
        numbers.set(hash, number)
        if (!counts.has(number)) counts.set(number, weight)
        squares.set(number, (squares.get(number) ?? 0) + weight * weight)
      }
    }
    const label = DOMAINS.indexOf(text.domain)
    const weight = weightOf(text, company)
    const columns = { counts: Float32Array.from(counts.values()), squares: Float32Array.from(squares.values()) }
    return { text, features: Uint32Array.from(counts.keys()), ...columns, strengths: columns.counts, unknown: 0, label, weight }
  })
  return { samples, hashes: [...numbers.keys()] }
}

function textsByFeature(samples: readonly Sample[], features: number): Uint32Array {
  const texts = new Uint32Array(features)
  for (const { features: of_text } of samples) for (const feature of of_text) texts[feature] = (texts[feature] ?? 0) + 1
  return texts
}

/** How much a feature of so many texts says. */
function strengthOf(texts: number): number {
  return texts ** -COMMONNESS_POWER
}

/** The samples with features that too few texts have as unknown ones, and the others as strong as they are rare. */
function withFrequent(samples: readonly Sample[], texts: Uint32Array): Sample[] {
  return samples.map((one) => {
    const textsAt = (at: number): number => texts[one.features[at] ?? 0] ?? 0
    const kept = [...one.features.keys()].filter((at) => textsAt(at) >= FEWEST_TEXTS)
    return {
      ...one,
      features: Uint32Array.from(kept, (at) => one.features[at] ?? 0),
      counts: Float32Array.from(kept, (at) => one.counts[at] ?? 0),
      strengths: Float32Array.from(kept, (at) => (one.counts[at] ?? 0) * strengthOf(textsAt(at))),
      unknown: one.squares.reduce((sum, square, at) => (textsAt(at) < FEWEST_TEXTS ? sum + square : sum), 0),
    }
  })
}

function fitOn(training: readonly Sample[], features: number): { readonly model: Regression; readonly texts: Uint32Array } {
  const texts = textsByFeature(training, features)
  return { model: fit(withFrequent(training, texts), features, DOMAINS.length, SEED), texts }
}

/** The mean of several regressions that saw the texts in other orders: what only one of them believes fades. */
function fitMean(training: readonly Sample[], features: number): { readonly model: Regression; readonly texts: Uint32Array } {
  const { model, texts } = fitOn(training, features)
  const frequent = withFrequent(training, texts)
  for (let more = 1; more < MODELS; more++) {
    const other = fit(frequent, features, DOMAINS.length, SEED + more)
    other.table.forEach((value, at) => (model.table[at] = (model.table[at] ?? 0) + value))
    other.bias.forEach((value, at) => (model.bias[at] = (model.bias[at] ?? 0) + value))
  }
  const mean: Regression = {
    labels: model.labels,
    table: model.table.map((sum) => sum / MODELS),
    bias: model.bias.map((sum) => sum / MODELS),
  }
  return { model: mean, texts }
}

function judge(training: readonly Sample[], held: readonly Sample[], features: number): Judged[] {
  const { model, texts } = fitOn(training, features)
  const logits = predict(model, withFrequent(held, texts))
  return held.map(({ text }, at) => ({ text, probabilities: softmax(logits[at] ?? new Float64Array(DOMAINS.length)) }))
}

/** The data set of a source: parts of one data set sound alike, so they are held out together. */
export function datasetOf(source: string): string {
  return source.slice(0, source.search(/[/_]|$/)).toLowerCase()
}

/** Every shared data set judged by a model that was trained without it. */
export function leaveOneDatasetOut(texts: readonly Text[]): Judged[] {
  const { samples, hashes } = sample(texts)
  const shared = samples.filter(({ text }) => text.kind === 'shared')
  const sets = [...new Set(shared.map(({ text }) => datasetOf(text.source)))]
  return sets.flatMap((set) => {
    const isHeld = ({ text }: Sample): boolean => text.kind === 'shared' && datasetOf(text.source) === set
    const training = samples.filter((one) => !isHeld(one))
    return judge(training, samples.filter(isHeld), hashes.length)
  })
}

/** Every shared line and own line judged by one of four models, trained without its data set, or without a quarter of the own lines. */
export function judgeUnseen(texts: readonly Text[]): Judged[] {
  const { samples, hashes } = sample(texts)
  const sets = [...new Set(texts.filter(({ kind }) => kind === 'shared').map(({ source }) => datasetOf(source)))]
  const foldOf = ({ text }: Sample, at: number): number => {
    if (text.kind === 'phrase') return -1
    return (text.kind === 'own' ? at : sets.indexOf(datasetOf(text.source))) % FOLDS
  }
  const folds = samples.map(foldOf)
  return Array.from({ length: FOLDS }, (_, fold) => {
    const training = samples.filter((_one, at) => folds[at] !== fold)
    const held = samples.filter((_one, at) => folds[at] === fold)
    return judge(training, held, hashes.length)
  }).flat()
}

/** The temperature at which unseen texts' probabilities are likeliest: above 1 where the model is too sure of itself. */
export function fitTemperature(judged: readonly Judged[]): number {
  const candidates = Array.from({ length: 60 }, (_, at) => 0.2 + at * 0.05)
  const costs = candidates.map((temperature) => judged.reduce((sum, one) => sum + costAt(one, temperature), 0))
  return candidates[costs.indexOf(Math.min(...costs))] ?? 1
}

function costAt({ text, probabilities }: Judged, temperature: number): number {
  return -Math.log((tempered(probabilities, temperature)[DOMAINS.indexOf(text.domain)] ?? 0) + Number.EPSILON)
}

/** Probabilities as they would be had their logits been divided by `temperature`. */
export function tempered(probabilities: Float64Array, temperature: number): Float64Array {
  return softmax(probabilities.map((value) => Math.log(value + Number.EPSILON) / temperature))
}

/** Trains on all texts and makes the weights file. */
export function learn(texts: readonly Text[], temperature: number): Learned {
  const { samples, hashes } = sample(texts)
  const { model, texts: texts_by_feature } = fitMean(samples, hashes.length)
  const rows = hashes.flatMap((hash, feature) => {
    const count = texts_by_feature[feature] ?? 0
    if (count < FEWEST_TEXTS) return []
    return [{ hash, weights: overGeneral(model.table, feature * DOMAINS.length, temperature / strengthOf(count)) }]
  })
  const slots = assignSlots(rows)
  const step = stepFor(rows)
  const marks = new Uint16Array(2 ** SLOT_BITS)
  const weights = new Int8Array(marks.length * VERTICALS.length)
  for (const [slot, row] of slots) {
    marks[slot] = markOf(row.hash)
    row.weights.forEach((value, at) => (weights[slot * VERTICALS.length + at] = Math.max(-127, Math.min(127, Math.round(value / step)))))
  }
  const bias = overGeneral(model.bias, 0, temperature)
  return {
    file: formatWeights({ slot_bits: SLOT_BITS, step, bias, marks, weights }),
    temperature,
    kept: slots.size,
    lost: rows.length - slots.size,
  }
}

interface Row {
  readonly hash: number
  readonly weights: Float64Array
}

function overGeneral(values: Float32Array | Float64Array, base: number, temperature: number): Float64Array {
  const general = values[base + GENERAL] ?? 0
  return Float64Array.from(VERTICALS, (_, at) => ((values[base + at] ?? 0) - general) / temperature)
}

const largest = (values: Float64Array): number => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)

/** Of the features that want the same two slots, those whose weights say most get them. */
function assignSlots(rows: readonly Row[]): Map<number, Row> {
  const slots = new Map<number, Row>()
  for (const row of rows.toSorted((a, b) => largest(b.weights) - largest(a.weights))) {
    const first = slotOf(row.hash, SLOT_BITS)
    const pair = [first, neighbourOf(first)]
    const free = pair.find((slot) => !slots.has(slot))
    const is_like_another = pair.some((slot) => {
      const holder = slots.get(slot)
      return holder !== undefined && markOf(holder.hash) === markOf(row.hash)
    })
    if (free !== undefined && !is_like_another) slots.set(free, row)
  }
  return slots
}

function stepFor(rows: readonly Row[]): number {
  const sizes = Float64Array.from(rows, ({ weights }) => largest(weights)).toSorted()
  return Math.fround((sizes[Math.floor(sizes.length * (1 - 1 / CLIPPED_ONE_IN))] ?? 1) / 127)
}
