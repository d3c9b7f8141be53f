import { z } from 'zod'
import { DOMAINS } from '../base/domains.ts'
import { nanoFromCny, picoFromCnyPerMillion } from '../money/amount.ts'
import { ATTACHMENT_BOUNDS } from '../money/estimate.ts'
import { type FilingKind, parseFilingNumber } from '../routing/filings.ts'
import { Unset } from './references.ts'

/** What a process does: serve requests, the admin API, the work behind both. */
export const ROLES = ['gateway', 'control', 'worker'] as const
const ZONES = ['private', 'domestic', 'overseas'] as const
const MEBIBYTE = 1024 * 1024
/** Models that one virtual model may choose among: each is looked at for each request. */
const MAX_CANDIDATES = 32
/** Longest prompt of a profile. */
export const MAX_PROMPT_BYTES = 65_536
const DAY_MS = 86_400_000

// Every leaf's error text is what would have been right; parseShape adds what was found.
const text = (expected: string) => z.string({ error: expected }).regex(/^[^\p{Cc}]{1,1024}$/u, { error: expected })
const short_text = (expected: string) => text(expected).max(200, { error: `${expected}, at most 200 characters` })
const whole = (least: number, most: number, unit: string) => {
  const error = `a whole number of ${unit} from ${least} to ${most}`
  return z.int({ error }).min(least, { error }).max(most, { error })
}
const milliseconds = whole(1, DAY_MS, 'milliseconds')
const milliseconds_or_none = whole(0, DAY_MS, 'milliseconds')
const bytes = (most: number) => whole(1024, most, 'bytes')
const oneOf = <const T extends readonly string[]>(values: T) => z.enum(values, { error: values.join(' | ') })

/** A mapping that knows its keys; the error of an unknown key carries the known ones. */
const shape = <T extends z.core.$ZodLooseShape>(fields: T) =>
  z.strictObject(fields, {
    error: (issue) =>
      issue.code === 'unrecognized_keys' ? Object.keys(fields).join(' ') : `a mapping with the keys ${Object.keys(fields).join(', ')}`,
  })
const table = (expected: string) => z.record(z.string(), z.unknown(), { error: expected })

/** A date that exists, as `2026-08-17`. */
export function isDate(value: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(value) && !Number.isNaN(Date.parse(value)) && new Date(value).toISOString().startsWith(value)
}
const DATE = 'a date such as "2026-08-17"'
const date = z.string({ error: DATE }).refine(isDate, { error: DATE })

/** A day from its beginning in Asia/Shanghai, in ms. */
const day = date.transform((value) => Date.parse(`${value}T00:00:00+08:00`))

const INSTANT = 'a date ("2026-08-17", from 00:00 Asia/Shanghai) or a date and time with offset ("2026-08-17T09:00:00+08:00")'
const instant = z.string({ error: INSTANT }).transform((value, context) => {
  const at_ms = isDate(value) ? Date.parse(`${value}T00:00:00+08:00`) : Date.parse(value)
  const form = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2}))?$/
  if (form.test(value) && isDate(value.slice(0, 10)) && !Number.isNaN(at_ms)) return at_ms
  context.issues.push({ code: 'custom', message: INSTANT, input: value })
  return z.NEVER
})

/** A decimal string, converted exactly; numbers are refused because YAML reads them as floats. */
const decimal = (convert: (value: string) => bigint, unit: string) => {
  const expected = `${unit} as a decimal string such as "1.5"`
  return z
    .string({ error: (issue) => (typeof issue.input === 'number' ? `${expected}: write it as a string, floats lose digits` : expected) })
    .transform((value, context) => {
      try {
        if (/^\d/.test(value)) return convert(value)
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
      }
      context.issues.push({
        code: 'custom',
        message: `${expected}, not negative, no more than ${unit === PER_CALL ? 9 : 6} decimals`,
        input: value,
      })
      return z.NEVER
    })
}
const PER_CALL = 'CNY per call'
const per_million = decimal(picoFromCnyPerMillion, 'CNY per million tokens')
const per_call = decimal(nanoFromCny, PER_CALL)

const BASE_URL = 'an http:// or https:// URL without credentials, query or fragment'
const base_url = z
  .string({ error: BASE_URL })
  .refine((value) => isHttpUrl(value, false), { error: BASE_URL })
  .transform((value) => value.replace(/\/+$/, ''))
const PROXY_URL = 'an http:// or https:// URL of a proxy'
const proxy = z.string({ error: PROXY_URL }).refine((value) => isHttpUrl(value, true), { error: PROXY_URL })

/** Whether `value` is an http(s) URL without query and fragment. */
export function isHttpUrl(value: string, with_credentials: boolean): boolean {
  if (!URL.canParse(value) || /[?#\s]/.test(value)) return false
  const url = new URL(value)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return false
  return with_credentials || (url.username === '' && url.password === '' && !value.includes('@'))
}

const SECRET = 'a key of visible ASCII characters, best as ${NAME} or ${file:/path}'
const secret = z.custom<string | Unset>(
  (value) => value instanceof Unset || (typeof value === 'string' && /^[\x21-\x7e]{1,4096}$/.test(value)),
  {
    error: SECRET,
  },
)
const NAME = 'a name of letters, digits and . _ : / -, 128 characters at most, beginning with a letter or digit'
const name = z.string({ error: NAME }).regex(/^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$/, { error: NAME })
const KEY_NAME = 'a name of letters, digits and . _ -, 64 characters at most, beginning with a letter or digit'
const key_name = z.string({ error: KEY_NAME }).regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, { error: KEY_NAME })
const file = text('the path of a file')
const FILED = 'a filing number such as "Beijing-DeepseekChat-202404280016"'
const REGISTERED = 'a registration number such as "Hunan-Sibionics-20250905S0006"'
/** A filing or registration number of one of these kinds. */
const numberOf = (kinds: readonly FilingKind[], error: string) =>
  z.string({ error }).refine((value) => kinds.some((kind) => kind === parseFilingNumber(value)?.kind), { error })

/** `weir.yaml`. */
export const SETTINGS = shape({
  host: text('an address to listen on').optional(),
  port: whole(0, 65_535, 'a TCP port').default(8080),
  admin_host: text('an address to listen on').default('127.0.0.1'),
  admin_port: whole(0, 65_535, 'a TCP port').default(8081),
  data_dir: text('a directory').default('./data'),
  limits: shape({
    max_body_bytes: bytes(1024 * MEBIBYTE).default(20 * MEBIBYTE),
    max_answer_bytes: bytes(1024 * MEBIBYTE).default(64 * MEBIBYTE),
    max_event_bytes: bytes(64 * MEBIBYTE).default(MEBIBYTE),
    max_header_bytes: bytes(MEBIBYTE).default(32 * 1024),
    max_json_depth: whole(8, 1024, 'levels').default(128),
    max_open_requests: whole(1, 1_000_000, 'requests').default(4000),
    tenant_share_percent: whole(1, 100, 'percent').optional(),
    max_connections: whole(1, 1_000_000, 'connections').default(10_000),
    headers_timeout_ms: milliseconds.default(15_000),
    request_timeout_ms: milliseconds.default(60_000),
    idle_timeout_ms: milliseconds.default(75_000),
    total_timeout_ms: milliseconds.default(20 * 60_000),
    max_attempts: whole(1, 10, 'tries').default(3),
    queue_timeout_ms: milliseconds_or_none.default(5000),
    max_queued_requests: whole(1, 1_000_000, 'requests').default(1000),
    max_queued_per_tenant: whole(1, 1_000_000, 'requests').default(100),
    slice_tokens: whole(64, 1_000_000, 'tokens').default(2048),
    keepalive_after_ms: milliseconds.default(15_000),
    drain_abort_timeout_ms: milliseconds.default(60_000),
    upstream_connections_per_origin: whole(1, 1_000_000, 'connections').default(5000),
  }).prefault({}),
  drain: shape({
    delay_ms: milliseconds_or_none.optional(),
    timeout_ms: milliseconds_or_none.default(10 * 60_000),
  }).prefault({}),
  journal: shape({
    commit_timeout_ms: milliseconds.default(5000),
    keep_days: whole(1, 3650, 'days').default(7),
  }).prefault({}),
  roles: z
    .array(oneOf(ROLES), { error: 'a list of roles' })
    .min(1, { error: 'at least one role' })
    .default([...ROLES]),
  workers: whole(1, 256, 'processes').default(1),
  cluster: shape({
    redis_timeout_ms: milliseconds.default(2000),
    stream_cap: whole(100, 1_000_000, 'events').default(4000),
  }).prefault({}),
  log: shape({ level: oneOf(['fatal', 'error', 'warn', 'info', 'debug']).default('info') }).prefault({}),
  cors: shape({
    origins: z.array(text('an origin such as "https://app.example.cn", or "*"'), { error: 'a list of origins' }).default(['*']),
  }).prefault({}),
  operator: shape({
    name: short_text('the name of who runs this gateway'),
    registration: numberOf(['filed', 'registered'], `${FILED}, or ${REGISTERED}`).optional(),
    contact: short_text('where complaints go: a telephone number, an address, a page').optional(),
  }).optional(),
})

const capacity_limits = {
  concurrency: whole(1, 1_000_000, 'requests').optional(),
  requests_per_minute: whole(1, 1_000_000_000, 'requests').optional(),
  tokens_per_minute: whole(1, 1_000_000_000_000, 'tokens').optional(),
}
const connection = {
  base_url: base_url.optional(),
  api_key: secret.optional(),
  api_keys: z
    .array(shape({ key: secret, name: key_name, weight: whole(1, 1_000_000, 'parts').default(1), ...capacity_limits }), {
      error: 'a list of keys',
    })
    .min(1, { error: 'at least one key' })
    .max(1000, { error: 'at most 1000 keys' })
    .optional(),
  zone: oneOf(ZONES).optional(),
  timeouts: shape({
    connect_timeout_ms: milliseconds.optional(),
    headers_timeout_ms: milliseconds.optional(),
    first_event_timeout_ms: milliseconds.optional(),
    silence_timeout_ms: milliseconds.optional(),
  }).optional(),
  ca_file: file.optional(),
  cert_file: file.optional(),
  key_file: file.optional(),
  proxy: proxy.optional(),
}

const TENANT = 'the id of a tenant, as weir tenant list shows it'
const tenants = z
  .array(z.string({ error: TENANT }).regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, { error: TENANT }), { error: 'a list of tenant ids' })
  .min(1, { error: 'at least one tenant' })
  .max(1000, { error: 'at most 1000 tenants' })

/** `catalogue.yaml`; its entries are parsed one by one, so that a mistake in one hides none in another. */
export const CATALOGUE = shape({
  providers: table('a mapping of provider ids').default({}),
  models: table('a mapping of model ids'),
})
export const PROVIDER = shape(connection)
const life = {
  life: oneOf(['preview', 'ga', 'deprecated', 'retired']).default('ga'),
  deprecated_on: day.optional(),
  retires_on: day.optional(),
  replaced_by: text('the id of a model').optional(),
}
export const MODEL = shape({
  ...life,
  kind: oneOf(['chat', 'embeddings', 'rerank']),
  domain: oneOf(DOMAINS).default('general'),
  tenants: tenants.optional(),
  owned_by: text('who made the model'),
  context_tokens: whole(1, 100_000_000, 'tokens'),
  max_output_tokens: whole(0, 100_000_000, 'tokens').optional(),
  thinking: oneOf(['never', 'on_request', 'by_default', 'always']).optional(),
  tokenizer: oneOf(['qwen3', 'deepseek_v3', 'general', 'sandbox']).default('general'),
  attachment_tokens: shape({
    image: whole(0, 10_000_000, 'tokens').default(ATTACHMENT_BOUNDS.image),
    audio: whole(0, 10_000_000, 'tokens').default(ATTACHMENT_BOUNDS.audio),
    video: whole(0, 10_000_000, 'tokens').default(ATTACHMENT_BOUNDS.video),
    file: whole(0, 10_000_000, 'tokens').default(ATTACHMENT_BOUNDS.file),
  }).prefault({}),
  capabilities: z.array(text('a capability such as "tools"'), { error: 'a list of capabilities' }).default([]),
  created: date,
  aliases: z.array(name, { error: 'a list of names' }).default([]),
  endpoints: z.array(z.unknown(), { error: 'a list of endpoints' }).min(1, { error: 'at least one endpoint' }),
})
export const MODEL_ID = name
const PROMPT = 'the prompt, at most 65536 bytes, or {file: profiles/<name>.md}'
const prompt = z.union(
  [
    z.string({ error: PROMPT }).refine((value) => value.trim() !== '' && Buffer.byteLength(value) <= MAX_PROMPT_BYTES, { error: PROMPT }),
    shape({ file: z.string({ error: PROMPT }).regex(/^profiles\/[\w.-]{1,128}\.md$/, { error: PROMPT }) }),
  ],
  { error: PROMPT },
)
const TOOL = 'a tool such as {type: function, function: {name, parameters}}'
const called = z.looseObject({ name: z.string({ error: TOOL }).regex(/^[\w-]{1,64}$/, { error: TOOL }) }, { error: TOOL })
const tool = z.looseObject({ type: z.literal('function', { error: TOOL }), function: called }, { error: TOOL })
const real = (least: number, most: number) => {
  const error = `a number from ${least} to ${most}`
  return z.number({ error }).min(least, { error }).max(most, { error })
}
/** A model that is a profile of another one: what it does not say is that one's. */
export const PROFILE_MODEL = shape({
  ...life,
  kind: oneOf(['chat']).default('chat'),
  domain: oneOf(DOMAINS).default('general'),
  tenants: tenants.optional(),
  owned_by: text('who made the profile').optional(),
  max_output_tokens: whole(1, 100_000_000, 'tokens').optional(),
  capabilities: z.array(text('a capability such as "tools"'), { error: 'a list of capabilities' }).optional(),
  created: date.optional(),
  aliases: z.array(name, { error: 'a list of names' }).default([]),
  profile: shape({
    of: text('the id of a model'),
    system: prompt,
    tools: z.array(tool, { error: 'a list of tools' }).max(64, { error: 'at most 64 tools' }).default([]),
    temperature: real(0, 2).optional(),
    top_p: real(0, 1).optional(),
  }),
})
export const ENDPOINT = shape({
  ...connection,
  id: name.optional(),
  provider: text('the id of a provider'),
  upstream_model: text('the model id that the provider knows').optional(),
  dialect: text('a protocol of the provider').optional(),
  max_output_tokens: whole(1, 100_000_000, 'tokens').optional(),
  embeddings_batch: whole(1, 100_000, 'inputs').optional(),
  tier: whole(1, 100, 'a tier').default(1),
  weight: whole(1, 1_000_000, 'parts').default(1),
  tenants: tenants.optional(),
  capacity: shape(capacity_limits).optional(),
  filing: shape({
    number: numberOf(['filed'], FILED),
    registration: numberOf(['registered'], REGISTERED).optional(),
    evidence: text('where the pairing of model and number was published'),
  }).optional(),
})

/** `price-book.yaml`; versions and rules are parsed one by one. */
export const PRICE_BOOK = shape({
  calendar: z.unknown(),
  sell: table('a mapping of model ids to lists of versions').default({}),
  cost: table('a mapping of endpoint ids to lists of versions').default({}),
})
const SPAN = 'a span of one day such as "09:00-12:00"'
const DAYS = 'a date such as "2026-10-01" or a range such as "2026-10-01..2026-10-07"'
export const CALENDAR = shape({
  windows: z
    .record(z.string(), z.array(z.string({ error: SPAN }), { error: `a list of spans, each ${SPAN}` }), { error: 'a mapping of names' })
    .default({}),
  holidays: z.array(z.string({ error: DAYS }), { error: 'a list of dates' }).default([]),
  workdays: z.array(z.string({ error: DAYS }), { error: 'a list of dates' }).default([]),
}).prefault({})
export const VERSIONS = z.array(z.unknown(), { error: 'a list of price versions' }).min(1, { error: 'at least one price version' })
const tokens = whole(0, 100_000_000, 'tokens').optional()
export const VERSION = shape({
  version: name,
  effective_from: instant,
  source: text('where the price was published'),
  as_of: date,
  rules: z.array(z.unknown(), { error: 'a list of rules' }).min(1, { error: 'at least one rule' }),
})
export const RULE = shape({
  name: text('the name of the rule'),
  when: shape({
    window: text('the name of a window of the calendar').optional(),
    input_above: tokens,
    input_up_to: tokens,
    output_above: tokens,
    output_up_to: tokens,
    thinking: z.boolean({ error: 'true or false' }).optional(),
  }).optional(),
  input: per_million,
  cached_input: per_million.optional(),
  cache_write: per_million.optional(),
  output: per_million,
  search: per_call.optional(),
  image: per_call.optional(),
})

/** `routes.yaml`; its entries are parsed one by one. */
export const ROUTES = shape({ models: table('a mapping of names to virtual models').default({}) })
const PREFERENCES = ['balanced', 'cost', 'quality', 'latency'] as const
export const ROUTE = shape({
  domain: oneOf(DOMAINS).optional(),
  prefer: oneOf(PREFERENCES).default('balanced'),
  candidates: z
    .array(
      shape({
        model: text('the id of a chat model'),
        domain: oneOf(DOMAINS).optional(),
        weight: whole(0, 1000, 'parts').default(100),
        quality: whole(0, 100, 'points').default(50),
      }),
      { error: 'a list of candidates' },
    )
    .min(1, { error: 'at least one candidate' })
    .max(MAX_CANDIDATES, { error: `at most ${MAX_CANDIDATES} candidates` }),
  canary: shape({ model: text('one of the candidates'), percent: whole(0, 100, 'percent') }).optional(),
  max_price: shape({ input: per_million.optional(), output: per_million.optional() }).optional(),
})
