import type { CallPrices, PriceRule, PriceVersion, TokenPrices } from './price.ts'

/** The canonical JSON of a price version: members in a fixed order, amounts as decimal strings. Equal versions give equal text. */
export function encodePriceVersion(version: PriceVersion): string {
  const { id, effective_from, rules, source, as_of } = version
  return JSON.stringify({ v: 1, id, effective_from, rules: rules.map(plainRule), source, as_of })
}

/**
 * Reads what {@link encodePriceVersion} wrote.
 *
 * @throws SyntaxError if the text is not JSON or an amount is not an integer; RangeError for another version of the format
 */
export function decodePriceVersion(json: string): PriceVersion {
  const stored = JSON.parse(json) as { v: number } & Omit<PriceVersion, 'rules'> & { rules: ReturnType<typeof plainRule>[] }
  if (stored.v !== 1) throw new RangeError(`price version of format ${stored.v}, this release reads 1`)
  const { id, effective_from, source, as_of } = stored
  return { id, effective_from, source, as_of, rules: stored.rules.map(ruleFrom) }
}

function plainRule({ name, when, tokens, calls }: PriceRule): {
  name: string
  when: PriceRule['when']
  tokens: Record<keyof TokenPrices, string>
  calls: Record<keyof CallPrices, string>
} {
  const { window, input_above, input_up_to, output_above, output_up_to, thinking } = when
  const condition = { window, input_above, input_up_to, output_above, output_up_to, thinking }
  return {
    name,
    when: Object.fromEntries(Object.entries(condition).filter(([, value]) => value !== undefined)),
    tokens: {
      input: String(tokens.input),
      cached_input: String(tokens.cached_input),
      cache_write: String(tokens.cache_write),
      output: String(tokens.output),
    },
    calls: { search: String(calls.search), image: String(calls.image) },
  }
}

function ruleFrom({ name, when, tokens, calls }: ReturnType<typeof plainRule>): PriceRule {
  return {
    name,
    when,
    tokens: {
      input: BigInt(tokens.input),
      cached_input: BigInt(tokens.cached_input),
      cache_write: BigInt(tokens.cache_write),
      output: BigInt(tokens.output),
    },
    calls: { search: BigInt(calls.search), image: BigInt(calls.image) },
  }
}
