/** Which domain a chat is about, and what says so: the strongest evidence counts. Pure. */
import { CONFIDENCE_THRESHOLD, confidentDomain, type DomainClassifier, type DomainGuess } from './domain.ts'
import { foldText, isLetter } from './fold.ts'
import type { RoutedPrompt } from './prompt.ts'
import { indexSamples, type LabelledSample, type SampleIndex } from './samples.ts'

/** Prompts with one of these words are of this domain. */
export interface KeywordRule {
  readonly domain: string
  readonly keywords: readonly string[]
}

/** A tenant's own evidence, ready to be looked at. */
export interface TenantEvidence {
  readonly rules: ReadonlyArray<{
    readonly domain: string
    readonly keywords: ReadonlyArray<{ readonly keyword: string; readonly folded: string }>
  }>
  readonly samples: SampleIndex | null
  /** Every domain that its rules and samples name. */
  readonly domains: ReadonlySet<string>
}

/** Makes a tenant's rules and samples ready, once per change of them. */
export function prepareEvidence(rules: readonly KeywordRule[], samples: readonly LabelledSample[]): TenantEvidence {
  return {
    rules: rules.map(({ domain, keywords }) => ({
      domain,
      keywords: keywords.map((keyword) => ({ keyword, folded: foldText(keyword).trim() })).filter(({ folded }) => folded !== ''),
    })),
    samples: samples.length === 0 ? null : indexSamples(samples),
    domains: new Set([...rules, ...samples].map(({ domain }) => domain)),
  }
}

export interface DomainEvidence {
  /** Of the closed set, or a tenant's own. `general` where nothing says otherwise. */
  readonly domain: string
  /** 0 to 1; 1 for what was said outright. */
  readonly confidence: number
  readonly by: 'name' | 'hint' | 'rule' | 'sample' | 'classifier' | 'opening'
  /** The keyword that a rule has found; null otherwise. */
  readonly keyword: string | null
  /** What the classifier made of it; null where it was not asked. */
  readonly guess: DomainGuess | null
}

export interface EvidenceSources {
  /** The domain of everything that is asked of this virtual model. */
  readonly fixed: string | null
  /** The caller's own word, already known to be a domain. */
  readonly hint: string | null
  readonly tenant: TenantEvidence | null
  readonly classifier: DomainClassifier
}

/**
 * The name that was called, the caller's hint, the tenant's rules, the tenant's samples, the classifier, in this order. Where the classifier
 * is not sure of the last turns the conversation's opening decides, so that "and the second one?" stays where it began; unsure of both means
 * `general`.
 */
export function decideDomain(prompt: RoutedPrompt, { fixed, hint, tenant, classifier }: EvidenceSources): DomainEvidence {
  if (fixed !== null) return { domain: fixed, confidence: 1, by: 'name', keyword: null, guess: null }
  if (hint !== null) return { domain: hint, confidence: 1, by: 'hint', keyword: null, guess: null }
  const ruled = tenant === null ? null : byRule(prompt, tenant)
  if (ruled !== null) return ruled
  const match = tenant?.samples?.find(prompt) ?? null
  if (match !== null) return { domain: match.domain, confidence: match.likeness, by: 'sample', keyword: null, guess: null }
  return byClassifier(prompt, classifier)
}

function byClassifier(prompt: RoutedPrompt, classifier: DomainClassifier): DomainEvidence {
  const guess = classifier.classify(prompt)
  // A short turn may say too little by itself, also where it looks general: what the conversation is about was said before.
  const sure = guess.confidence >= CONFIDENCE_THRESHOLD
  if (sure || prompt.opening === null || prompt.turns.length < 2) return classified(guess, 'classifier')
  const opening = classifier.classify({ system: prompt.system, turns: [prompt.opening] })
  return confidentDomain(opening) === 'general' ? classified(guess, 'classifier') : classified(opening, 'opening')
}

function classified(guess: DomainGuess, by: 'classifier' | 'opening'): DomainEvidence {
  const domain = confidentDomain(guess)
  return { domain, confidence: guess.scores[domain], by, keyword: null, guess }
}

/** Whether a folded text has a keyword: within Chinese anywhere, of letters as whole words. */
function holds(folded: string, keyword: string): boolean {
  for (let at = folded.indexOf(keyword); at >= 0; at = folded.indexOf(keyword, at + 1)) {
    const end = at + keyword.length
    if (
      !joined(folded.charCodeAt(at - 1), keyword.charCodeAt(0)) &&
      !joined(keyword.charCodeAt(keyword.length - 1), folded.charCodeAt(end))
    )
      return true
  }
  return false
}

/** Two codes that belong to one word. NaN, beyond the ends of a text, is part of none. */
function joined(a: number, b: number): boolean {
  return isLetter(a) && isLetter(b)
}

/** The last turn is looked at first, then the system prompt; rules in their order. */
function byRule({ system, turns }: RoutedPrompt, { rules }: TenantEvidence): DomainEvidence | null {
  if (rules.length === 0) return null
  for (const text of [turns.at(-1), system]) {
    if (text === undefined || text === null) continue
    const folded = foldText(text)
    for (const { domain, keywords } of rules) {
      const found = keywords.find((keyword) => holds(folded, keyword.folded))
      if (found !== undefined) return { domain, confidence: 1, by: 'rule', keyword: found.keyword, guess: null }
    }
  }
  return null
}
