import type { LimitRule } from '../ports.ts'
import { limitName } from '../rules.ts'
import type { FixedReceipt } from './replies.ts'

/** What never changes of a hold's receipt. */
export function fixedOf({ project, key, model }: Omit<FixedReceipt, 'begun'>, rules: readonly LimitRule[]): FixedReceipt {
  const begun = rules.flatMap((rule, index) => (rule.window?.name === '5h' ? [[limitName(rule), index] as const] : []))
  return { project, key, model, ...(begun.length === 0 ? {} : { begun: Object.fromEntries(begun) }) }
}

/** The limits of rules in their order, as scripts keep them for extensions. */
export function limitsText(rules: readonly LimitRule[]): string {
  return rules.map(({ limit }) => `${limit}`).join(' ')
}
