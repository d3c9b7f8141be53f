import type { Locale } from '../base/errors.ts'
import type { Endpoint, Operator } from '../config/model.ts'
import { shownFiling } from '../routing/filings.ts'
import type { AnswerLabel } from '../upstream/dialects/label.ts'
import type { Admission } from './admit.ts'

/** Labels of generated content (Labelling Measures, in force 2025-09-01): the metadata that every chat answer has, and the text that a tenant may want in it. */

const DEFAULT_TEXTS: Readonly<Record<Locale, string>> = { zh: '（AI生成）', en: '(AI-generated)' }

/** What becomes of the label that the caller's tenant wants; null where it wants none, or the answer is no text. */
function explicitLabel({ caller, facts }: Admission): { readonly label: AnswerLabel | null; readonly told: string } | null {
  const { tenant } = caller
  if (tenant.label === 'none' || facts.protocol !== 'chat_completions') return null
  if (facts.answer_form === 'machine') return { label: null, told: 'omitted; reason=response_format' }
  const label = { text: tenant.label_text ?? DEFAULT_TEXTS[tenant.locale], place: tenant.label_place }
  return { label, told: `explicit; place=${label.place}` }
}

/** The text that is put into the answer, or null. An answer that a program reads by its form (JSON, a grammar) gets none: it would not be that form any more. */
export function answerLabel(admission: Admission): AnswerLabel | null {
  return explicitLabel(admission)?.label ?? null
}

/**
 * `x-weir-aigc` of a generated answer, and `x-weir-label` where its tenant wants an explicit one. An answer's body is no file, so the metadata goes
 * with it as the JSON of GB 45438-2025 in ASCII: label "1" (generated), who made it, under which number, and who passed it on.
 */
export function labelHeaders(admission: Admission, target: Endpoint | null): Readonly<Record<string, string>> {
  if (admission.facts.protocol !== 'chat_completions') return {}
  const told = explicitLabel(admission)?.told
  const { operator } = admission.snapshot.configuration.settings
  const metadata = metadataOf(target, operator, admission.receipt.id)
  return told === undefined ? { 'x-weir-aigc': metadata } : { 'x-weir-aigc': metadata, 'x-weir-label': told }
}

/** The target of an answer that has not begun, if all that may give it have one producer; else null, which names none. */
export function commonProducer(targets: readonly Endpoint[]): Endpoint | null {
  const [first] = targets
  return first !== undefined && targets.every((target) => producerOf(target) === producerOf(first)) ? first : null
}

/** The entity that filed what is served, where that is known; else the provider's id. */
function producerOf(target: Endpoint): string {
  return shownFiling(target)?.row?.entity || target.provider
}

/** Names in ASCII JSON by endpoint: the same for every request. */
const PRODUCERS = new WeakMap<Endpoint, string>()
const PROPAGATORS = new WeakMap<Operator, string>()

function metadataOf(target: Endpoint | null, operator: Operator | null, id: string): string {
  const producer = target === null ? '""' : kept(PRODUCERS, target, producerOf)
  const propagator = operator === null ? '""' : kept(PROPAGATORS, operator, ({ name }) => name)
  return (
    `{"Label":"1","ContentProducer":${producer},"ProduceID":"${id}","ReservedCode1":"",` +
    `"ContentPropagator":${propagator},"PropagateID":"${id}","ReservedCode2":""}`
  )
}

function kept<Key extends object>(known: WeakMap<Key, string>, key: Key, nameOf: (key: Key) => string): string {
  const made = known.get(key) ?? asciiJson(nameOf(key))
  known.set(key, made)
  return made
}

/** A header takes ASCII, and JSON has escapes for the rest. */
function asciiJson(text: string): string {
  return JSON.stringify(text).replaceAll(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
