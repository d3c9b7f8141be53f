import { type Domain, DOMAINS, VERTICALS } from '../../src/base/domains.ts'
/** Figures of the domain classifier, as text. */

/** One text: what it is, what was guessed, and how sure the guess was. */
export interface Outcome {
  readonly source: string
  readonly domain: Domain
  readonly guess: Domain
  readonly confidence: number
}

/** At one threshold, fractions of: vertical guesses that are right; vertical texts guessed right; general texts guessed vertical. */
export interface Sweep {
  readonly threshold: number
  readonly vertical_precision: number
  readonly vertical_recall: number
  readonly general_misrouted: number
}

export interface Row {
  readonly texts: number
  readonly precision: number
  readonly recall: number
  readonly f1: number
}

const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole)
const percent = (fraction: number): string => (fraction * 100).toFixed(1).padStart(6)

/** A domain's figures with no threshold. */
export function rowOf(outcomes: readonly Outcome[], domain: Domain): Row {
  const texts = outcomes.filter((one) => one.domain === domain)
  const guessed = outcomes.filter((one) => one.guess === domain)
  const right = texts.filter((one) => one.guess === domain).length
  return {
    texts: texts.length,
    precision: ratio(right, guessed.length),
    recall: ratio(right, texts.length),
    f1: ratio(2 * right, texts.length + guessed.length),
  }
}

export function sweepAt(outcomes: readonly Outcome[], threshold: number): Sweep {
  const vertical = outcomes.filter((one) => one.domain !== 'general')
  const general = outcomes.filter((one) => one.domain === 'general')
  const routed = outcomes.filter((one) => one.guess !== 'general' && one.confidence >= threshold)
  const right = routed.filter((one) => one.guess === one.domain).length
  return {
    threshold,
    vertical_precision: ratio(right, routed.length),
    vertical_recall: ratio(right, vertical.length),
    general_misrouted: ratio(routed.filter((one) => one.domain === 'general').length, general.length),
  }
}

const THRESHOLDS = [0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]

/** Accuracy, macro-F1 over the domains that occur, the table by domain and the sweep of thresholds. */
export function summary(title: string, outcomes: readonly Outcome[], shipped_threshold: number): string[] {
  const rows = DOMAINS.map((domain) => ({ domain, ...rowOf(outcomes, domain) })).filter((row) => row.texts > 0)
  const right = outcomes.filter((one) => one.guess === one.domain).length
  const macro_f1 = ratio(
    rows.reduce((sum, row) => sum + row.f1, 0),
    rows.length,
  )
  const thresholds = [...new Set([...THRESHOLDS, shipped_threshold])].toSorted((a, b) => a - b)
  const has_both = rows.length > 1
  return [
    `${title}: ${outcomes.length} texts, accuracy ${percent(ratio(right, outcomes.length)).trim()} %, macro-F1 ${percent(macro_f1).trim()} %`,
    '  domain            texts   prec    rec     F1',
    ...rows.map(
      (row) =>
        `  ${row.domain.padEnd(17)}${String(row.texts).padStart(6)} ${percent(row.precision)} ${percent(row.recall)} ${percent(row.f1)}`,
    ),
    ...(has_both ? ['  threshold   vertical precision   vertical recall   general misrouted'] : []),
    ...(has_both ? thresholds.map((threshold) => sweepLine(sweepAt(outcomes, threshold), threshold === shipped_threshold)) : []),
  ]
}

function sweepLine(sweep: Sweep, is_shipped: boolean): string {
  const columns = [sweep.vertical_precision, sweep.vertical_recall, sweep.general_misrouted].map((value) => percent(value).padStart(14))
  return `  ${sweep.threshold.toFixed(2).padStart(9)} ${columns.join('   ')}${is_shipped ? '   shipped' : ''}`
}

/** Accuracy of every source, worst first, with what its texts were most often mistaken for. */
export function bySource(outcomes: readonly Outcome[]): string[] {
  const sources = [...new Set(outcomes.map((one) => `${one.source} → ${one.domain}`))].map((source) => {
    const texts = outcomes.filter((one) => `${one.source} → ${one.domain}` === source)
    const wrong = texts.filter((one) => one.guess !== one.domain)
    const mistaken = [...VERTICALS, 'general' as const]
      .map((guess) => ({ guess, times: wrong.filter((one) => one.guess === guess).length }))
      .filter(({ times }) => times > 0)
      .toSorted((a, b) => b.times - a.times)
    return { source, texts: texts.length, accuracy: 1 - ratio(wrong.length, texts.length), mistaken }
  })
  return sources
    .toSorted((a, b) => a.accuracy - b.accuracy)
    .map(({ source, texts, accuracy, mistaken }) => {
      const most = mistaken.slice(0, 3).map(({ guess, times }) => `${guess} ${times}`)
      return `  ${percent(accuracy)} % of ${String(texts).padStart(4)}  ${source}${most.length > 0 ? `  (${most.join(', ')})` : ''}`
    })
}
