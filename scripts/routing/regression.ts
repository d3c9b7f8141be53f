/** Multinomial logistic regression on sparse features, by AdaGrad with dropout of features. The same seed gives the same weights. */
import { seededRandom } from './random.ts'

/** One text as the regression sees it. Features are numbered from 0. */
export interface Example {
  readonly features: Uint32Array
  /** How much each feature counts in the length of the text. */
  readonly counts: Float32Array
  /** How much each feature says: what its weights are multiplied with. */
  readonly strengths: Float32Array
  /** What features that no model knows add to the square of that length. */
  readonly unknown: number
  readonly label: number
  readonly weight: number
}

export interface Regression {
  readonly labels: number
  /** `table[feature * labels + label]` */
  readonly table: Float32Array
  /** One per label. */
  readonly bias: Float64Array
}

const EPOCHS = 10
const RATE = 0.3
const BIAS_RATE = 0.006
/** Labels come from sources, not from annotators: some are wrong, so none is believed wholly. */
const SMOOTHING = 0.12
/** At each visit up to this share of a text's features is left out, so that none is relied on alone. */
const DROPOUT = 0.25
const FIRST_SQUARE = 1e-6

/** Probabilities of logits. */
export function softmax(logits: Float64Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity)
  const powers = logits.map((value) => Math.exp(value - most))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((value) => value / sum)
}

/** What the strengths of a text are multiplied with: its features together have length 1. */
function scaleOf(squares: number): number {
  return squares === 0 ? 0 : 1 / Math.sqrt(squares)
}

/** The features of a text that are kept at one visit, as positions in the table and scaled strengths. */
interface Visit {
  readonly bases: Uint32Array
  readonly values: Float32Array
  kept: number
}

function visit(into: Visit, { features, counts, strengths }: Example, labels: number, unknown: number, keep: () => boolean): void {
  into.kept = 0
  let squares = unknown
  for (let at = 0; at < features.length; at++) {
    if (!keep()) continue
    const count = counts[at] ?? 0
    into.bases[into.kept] = (features[at] ?? 0) * labels
    into.values[into.kept] = strengths[at] ?? 0
    squares += count * count
    into.kept += 1
  }
  const scale = scaleOf(squares)
  for (let at = 0; at < into.kept; at++) into.values[at] = (into.values[at] ?? 0) * scale
}

function logitsOf({ labels, table, bias }: Regression, { bases, values, kept }: Visit): Float64Array {
  const logits = new Float64Array(bias)
  for (let at = 0; at < kept; at++) {
    const base = bases[at] ?? 0
    const value = values[at] ?? 0
    for (let label = 0; label < labels; label++) logits[label] = (logits[label] ?? 0) + value * (table[base + label] ?? 0)
  }
  return logits
}

function newVisit(examples: readonly Example[]): Visit {
  const most = examples.reduce((length, { features }) => Math.max(length, features.length), 1)
  return { bases: new Uint32Array(most), values: new Float32Array(most), kept: 0 }
}

/** Logits of each example, in order. What is unknown of a text takes from what is known: the less is known, the nearer to the bias. */
export function predict(model: Regression, examples: readonly Example[]): Float64Array[] {
  const shared = newVisit(examples)
  return examples.map((example) => {
    visit(shared, example, model.labels, example.unknown, () => true)
    return logitsOf(model, shared)
  })
}

/** Moves the weights of one visit down the gradient. */
function descend(model: Regression, squares: Float32Array, { bases, values, kept }: Visit, errors: Float64Array, step: number): void {
  const { labels, table } = model
  for (let at = 0; at < kept; at++) {
    const base = bases[at] ?? 0
    const value = values[at] ?? 0
    for (let label = 0; label < labels; label++) {
      const cell = base + label
      const gradient = (errors[label] ?? 0) * value
      const sum = (squares[cell] ?? 0) + gradient * gradient
      squares[cell] = sum
      table[cell] = (table[cell] ?? 0) - (step * gradient) / Math.sqrt(sum)
    }
  }
}

/** Fits a regression on features numbered below `features`. What is unknown is left out: it is rarer in texts that were learned from. */
export function fit(examples: readonly Example[], features: number, labels: number, seed: number): Regression {
  const random = seededRandom(seed)
  const model: Regression = { labels, table: new Float32Array(features * labels), bias: new Float64Array(labels) }
  const squares = new Float32Array(features * labels).fill(FIRST_SQUARE)
  const shared = newVisit(examples)
  const order = [...examples]
  for (let epoch = 0; epoch < EPOCHS; epoch++) {
    const rest = 1 - epoch / EPOCHS
    random.shuffle(order)
    for (const example of order) {
      const dropout = DROPOUT * random.next()
      visit(shared, example, labels, 0, () => random.next() >= dropout)
      const errors = softmax(logitsOf(model, shared)).map((probability, label) => {
        const wanted = SMOOTHING / labels + (label === example.label ? 1 - SMOOTHING : 0)
        return (probability - wanted) * example.weight
      })
      errors.forEach((error, label) => (model.bias[label] = (model.bias[label] ?? 0) - BIAS_RATE * rest * error))
      descend(model, squares, shared, errors, RATE * rest)
    }
  }
  return model
}
