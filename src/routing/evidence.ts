/** Which domain a chat is about, and what says so: the strongest evidence counts. Pure. */
import { CONFIDENCE_THRESHOLD, confidentDomain, type DomainClassifier, type DomainGuess } from './domain.ts'
import { indexKeywords, type KeywordIndex, type KeywordRule } from './keywords.ts'
import type { RoutedPrompt } from './prompt.ts'
import { indexSamples, type LabelledSample, type SampleIndex } from './samples.ts'

/** A tenant's own evidence, ready to be looked at. */
export interface TenantEvidence {
  readonly rules: KeywordIndex | null
  readonly samples: SampleIndex | null
  /** Every domain that its rules and samples name. */
  readonly domains: ReadonlySet<string>
}

/** Makes a tenant's rules and samples ready, once per change of them: hundreds of long samples take tenths of a second. */
export function prepareEvidence(rules: readonly KeywordRule[], samples: readonly LabelledSample[]): TenantEvidence {
  return {
    rules: rules.length === 0 ? null : indexKeywords(rules),
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

/** The last turn is looked at first, then the system prompt; rules in their order. */
function byRule({ system, turns }: RoutedPrompt, { rules }: TenantEvidence): DomainEvidence | null {
  const found = rules?.find(turns.at(-1) ?? '') ?? rules?.find(system ?? '') ?? null
  return found === null ? null : { domain: found.domain, confidence: 1, by: 'rule', keyword: found.keyword, guess: null }
}
