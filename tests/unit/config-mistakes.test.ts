import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { formatIssues } from '../../src/config/check.ts'
import { loadConfiguration } from '../../src/config/load.ts'
import type { ConfigIssue } from '../../src/config/model.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { REPO_ROOT } from '../support/root.ts'

const FIXTURES = join(REPO_ROOT, 'tests', 'fixtures', 'config')

/** file, path, line, a part of the message, a part of what was expected */
type Row = readonly [string, string, number | null, string, string]

const MISTAKES: Readonly<Record<string, readonly Row[]>> = {
  sound: [],
  misspelled_key: [['weir.yaml', 'limits.max_open_reqests', 2, 'unknown key "max_open_reqests"', 'did you mean "max_open_requests"?']],
  misspelled_required_key: [['catalogue.yaml', 'models.deepseek-flash.owend_by', 8, 'unknown key "owend_by"', 'did you mean "owned_by"?']],
  unknown_provider: [
    ['catalogue.yaml', 'models.deepseek-flash.endpoints[0].provider', 14, 'unknown provider "deepsek"', 'did you mean "deepseek"?'],
  ],
  price_is_a_number: [
    ['price-book.yaml', 'sell.deepseek-flash[0].rules[1].input', 19, 'is the number 1.5', 'write it as a string, floats lose digits'],
  ],
  price_has_seven_decimals: [
    ['price-book.yaml', 'sell.deepseek-flash[0].rules[1].output', 20, 'is "0.0000001"', 'no more than 6 decimals'],
  ],
  no_last_rule: [
    ['price-book.yaml', 'sell.deepseek-flash[0].rules[0].when', 15, 'the last rule has a condition', 'a last rule without `when`'],
  ],
  unreachable_rule: [['price-book.yaml', 'sell.deepseek-flash[0].rules[0]', 14, 'no rule after this one can ever apply', 'a condition']],
  unknown_window: [['price-book.yaml', 'sell.deepseek-flash[0].rules[0].when.window', 15, 'unknown window "paek"', 'did you mean "peak"?']],
  duplicate_key: [['catalogue.yaml', 'models.deepseek-flash.kind', 8, 'the key "kind" is given twice', 'each key once']],
  tab_for_indentation: [['weir.yaml', '', 2, 'Tabs are not allowed', 'spaces']],
  missing_price: [['price-book.yaml', 'sell.deepseek-v4-pro', 7, 'is missing', 'cannot be sold until someone sets one']],
  price_of_unknown_model: [
    ['price-book.yaml', 'sell.deepseek-flush', 21, 'unknown model "deepseek-flush"', 'did you mean "deepseek-flash"?'],
  ],
  price_of_an_alias: [['price-book.yaml', 'sell.flash', 21, '"flash" is an alias', 'deepseek-flash']],
  cost_of_unknown_endpoint: [
    ['price-book.yaml', 'cost.deepseek/deepseek-flesh', 23, 'unknown endpoint', 'did you mean "deepseek/deepseek-flash"?'],
  ],
  bad_base_url: [
    ['catalogue.yaml', 'providers.deepseek.base_url', 3, 'has a value that cannot be used', 'without credentials, query or fragment'],
  ],
  no_base_url: [['catalogue.yaml', 'models.deepseek-flash.endpoints[0].base_url', 14, 'is missing', 'the base URL of this vllm server']],
  unset_variable: [
    [
      'catalogue.yaml',
      'models.deepseek-flash.endpoints[0].base_url',
      15,
      'TEST_UPSTREAM_URL is not set',
      'the environment variable TEST_UPSTREAM_URL',
    ],
  ],
  malformed_reference: [['catalogue.yaml', 'models.deepseek-flash.owned_by', 8, 'has a malformed reference', '${NAME}']],
  missing_secret_file: [['catalogue.yaml', 'providers.deepseek.api_key', 3, 'no-such-secret cannot be read (ENOENT)', 'a readable file']],
  missing_tls_file: [
    ['catalogue.yaml', 'providers.deepseek.key_file', 2, 'is missing', 'since cert_file is given'],
    ['catalogue.yaml', 'providers.deepseek.cert_file', 3, 'there is no file', 'PEM'],
  ],
  alias_clash: [
    ['catalogue.yaml', 'models.deepseek-v4-pro.aliases[0]', 21, '"flash" already names the model deepseek-flash', 'nothing else'],
    ['catalogue.yaml', 'models.deepseek-v4-pro.aliases[1]', 21, '"deepseek-flash" already names the model deepseek-flash', 'nothing else'],
  ],
  endpoint_twice: [
    ['catalogue.yaml', 'models.deepseek-flash.endpoints[1]', 15, '"deepseek/deepseek-flash" is given twice', 'an id of its own'],
  ],
  reserved_name: [['catalogue.yaml', 'models.deepseek-flash.aliases[0]', 12, '"auto/finance" is reserved', 'auto']],
  unknown_domain: [['catalogue.yaml', 'models.deepseek-flash.domain', 8, 'is "health_care"', 'did you mean "healthcare"?']],
  embeddings_not_served: [
    ['catalogue.yaml', 'models.deepseek-flash.endpoints[0].provider', 14, 'deepseek serves no embeddings', 'a provider with embeddings'],
  ],
  output_above_context: [
    ['catalogue.yaml', 'models.deepseek-flash.max_output_tokens', 10, 'is 2000000, above context_tokens', 'at most 1000000'],
  ],
  too_few_upstream_connections: [
    ['weir.yaml', 'limits.upstream_connections_per_origin', 3, 'not above max_open_requests (100)', 'more than max_open_requests'],
  ],
  routes: [
    ['routes.yaml', 'models.deepseek-flash', 3, '"deepseek-flash" already names the model deepseek-flash', 'no model has'],
    ['routes.yaml', 'models.auto.prefer', 7, 'is "cheap"', 'balanced, cost, quality, latency'],
    ['routes.yaml', 'models.auto.candidates[0].weight', 9, 'is the number 1001', 'from 0 to 1000'],
    ['routes.yaml', 'models.auto/legal.domain', 11, 'is "law"', 'finance'],
    ['routes.yaml', 'models.auto/two.candidates[1].model', 16, '"deepseek-flash" is given twice', 'each model once'],
    ['routes.yaml', 'models.auto/two.candidates[2].model', 17, 'unknown model "deepseek-flesh"', 'deepseek-flash'],
    ['routes.yaml', 'models.auto/two.candidates[3].model', 18, '"flash" is an alias', 'deepseek-flash'],
    ['routes.yaml', 'models.auto/two.canary.model', 19, '"deepseek-v4" is not a candidate', 'deepseek-flash'],
    ['routes.yaml', 'models.auto/none.candidates', 21, 'is an empty list', 'at least one candidate'],
    ['routes.yaml', 'models.auto/none.canary.percent', 22, 'is the number 101', 'from 0 to 100'],
    ['routes.yaml', 'models.auto/dear.max_price.input', 24, 'is the number 1.5', 'floats lose digits'],
    ['routes.yaml', 'models.auto/vector.candidates[0].model', 28, '"text-embedding" is of kind embeddings', 'a chat model'],
  ],
  impossible_date: [
    ['price-book.yaml', 'sell.deepseek-flash[0].effective_from', 10, 'is "2026-08-17T09:00:00"', 'with offset'],
    ['price-book.yaml', 'sell.deepseek-flash[0].as_of', 12, 'is "2026-02-30"', 'a date such as'],
  ],
  window_across_midnight: [['price-book.yaml', 'calendar.windows.peak[0]', 3, 'is "22:00-06:00"', 'two spans for one across midnight']],
  holiday_and_workday: [['price-book.yaml', 'calendar.workdays', 5, '2026-10-03 is a holiday as well', 'each date in one list']],
  empty_file: [['catalogue.yaml', 'models', 1, 'is missing', 'a mapping of model ids']],
  missing_file: [['price-book.yaml', '', null, 'cannot be read (ENOENT)', 'price-book.yaml']],
  filings_mistakes: [
    ['filings.csv', 'as_of', 2, 'is "2026-02-30"', 'a line "# as_of: '],
    ['filings.csv', 'number', 5, 'is "Beijing-A-2024"', 'a number such as'],
    ['filings.csv', 'number', 6, 'is the same as in line 4', 'each number once'],
    ['filings.csv', 'filed_on', 6, 'is "soon"', 'a date such as'],
    ['filings.csv', '', 7, 'has 7 cells', '6 cells, quoted where they hold commas'],
    ['filings.csv', 'filed_on', 7, 'is "北京市"', 'a date such as'],
  ],
  filings_unknown_column: [['filings.csv', '', 2, 'the unknown or repeated column "备案编号"', 'weir filings import']],
  filings_not_dated: [['filings.csv', 'as_of', 1, 'is missing', 'the date of the list']],
  filings_open_quote: [['filings.csv', '', 3, 'never closed', 'comma-separated values']],
  filing_and_registration_swapped: [
    ['catalogue.yaml', 'models.deepseek-flash.endpoints[0].filing.number', 15, 'is "Hunan-', 'a filing number'],
    ['catalogue.yaml', 'models.deepseek-flash.endpoints[0].filing.registration', 15, 'is "Beijing-', 'a registration number'],
  ],
  operator_without_name: [
    ['weir.yaml', 'operator.name', 4, 'is missing', 'who runs this gateway'],
    ['weir.yaml', 'operator.registration', 4, 'is "none"', 'a registration number'],
  ],
  two_mistakes_in_two_files: [
    ['weir.yaml', 'limits.max_open_requests', 2, 'is "lots"', 'a whole number of requests'],
    ['catalogue.yaml', 'models.deepseek-flash.kind', 7, 'is "caht"', 'did you mean "chat"?'],
    ['catalogue.yaml', 'models.deepseek-flash.endpoints[0].weihgt', 15, 'unknown key "weihgt"', 'did you mean "weight"?'],
    ['price-book.yaml', 'sell.deepseek-flash[0].rules[0].input', 16, 'is the number 2', 'floats lose digits'],
    ['price-book.yaml', 'sell.deepseek-flash[0].rules[1].outptu', 20, 'unknown key "outptu"', 'did you mean "output"?'],
  ],
}

function issuesOf(fixture: string): readonly ConfigIssue[] {
  const env = { DEEPSEEK_API_KEY: 'sk-of-the-test' }
  const result = loadConfiguration({ config_dir: join(FIXTURES, fixture), env, providers: [...PROVIDERS.values()] })
  return result.ok ? [] : result.issues
}

describe('a mistake in the configuration is reported with its place and what would be right', () => {
  it('covers every fixture', () => {
    expect(Object.keys(MISTAKES).toSorted()).toEqual(readdirSync(FIXTURES).toSorted())
  })

  it.each(Object.entries(MISTAKES))('%s', (fixture, rows) => {
    const issues = issuesOf(fixture)
    expect(issues.map(({ file, path, line }) => [file, path, line])).toEqual(rows.map(([file, path, line]) => [file, path, line]))
    for (const [index, [, , , message, expected]] of rows.entries()) {
      expect(issues[index]?.message).toContain(message)
      expect(issues[index]?.expected).toContain(expected)
    }
  })

  it('says it in two lines per mistake, without the secrets that stand beside it', () => {
    const text = formatIssues([...issuesOf('bad_base_url'), ...issuesOf('misspelled_key')])
    expect(text).toBe(
      'catalogue.yaml:3: providers.deepseek.base_url has a value that cannot be used\n' +
        '    expected an http:// or https:// URL without credentials, query or fragment\n' +
        'weir.yaml:2: limits.max_open_reqests unknown key "max_open_reqests"\n' +
        '    did you mean "max_open_requests"?\n' +
        '2 mistakes in the configuration\n',
    )
  })
})
