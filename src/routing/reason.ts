/** Why a virtual model chose what it chose, in one line of printable ASCII. Pure. */
import type { DomainEvidence } from './evidence.ts'
import type { Candidate, ChosenBy, Obstacle } from './select.ts'

/** Names are cut to this in a line, so that a line has a bound. */
const MOST_NAME = 64

/** A name as it may stand in a message or header: printable ASCII, bounded. */
export function shown(name: string, most = MOST_NAME): string {
  return name.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, most)
}

/** `auto: legal 1.00 by hint; nothing vertical for legal`: everything before the arrow. */
export function leadOf(virtual: string, evidence: DomainEvidence, lacking: string | null): string {
  return `${shown(virtual)}: ${domainWords(evidence)}${lacking === null ? '' : `; ${lacking}`}`
}

/** Why a model of the domain was not chosen for it; null where one was, or where no domain asks for one. */
export function lackingOf(domain: string, candidates: readonly Candidate[], chosen: Pick<Candidate, 'domain'> | null): string | null {
  if (domain === 'general' || chosen?.domain === domain) return null
  const own = candidates.filter((candidate) => candidate.domain === domain && !ABSENT.has(candidate.obstacle))
  if (own.length === 0) return `nothing vertical for ${shown(domain)}`
  return own.map(({ id, obstacle }) => `${shown(id)} not chosen: ${obstacle ?? 'short context'}`).join(', ')
}

/** The whole line: `… -> baichuan-m3 (weight)`. */
export function reasonOf(lead: string, model: string, by: ChosenBy): string {
  return `${lead} -> ${shown(model)} (${by})`
}

/** The same for a model that answers because others have failed. */
export function fallbackReason(
  lead: string,
  failed: ReadonlyArray<{ readonly model: string; readonly kind: string }>,
  model: string,
): string {
  const failures = failed.map((one) => `${shown(one.model)} failed (${one.kind})`).join(', ')
  return `${lead}; ${failures} -> ${shown(model)} (fallback)`
}

function domainWords({ domain, confidence, by, guess }: DomainEvidence): string {
  const words = `${shown(domain)} ${twoDigits(confidence)} by ${by}`
  if (guess === null || guess.domain === domain) return words
  return `${words}, ${guess.domain} ${twoDigits(guess.confidence)} not sure enough`
}

/** Obstacles that mean that there is no such model for anybody: to its caller it does not exist. */
const ABSENT: ReadonlySet<Obstacle | null> = new Set<Obstacle>(['not_found', 'no_price', 'not_allowed'])

/** A confidence as people read it. */
export function twoDigits(confidence: number): string {
  return confidence.toFixed(2)
}
