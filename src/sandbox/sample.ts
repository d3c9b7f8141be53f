type Schema = Readonly<Record<string, unknown>>

const MAX_DEPTH = 24
const MAX_ITEMS = 8
const MAX_STRING_CHARS = 200

const isObject = (value: unknown): value is Schema => typeof value === 'object' && value !== null && !Array.isArray(value)
const numberOf = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null)

const FORMATS: Readonly<Record<string, string>> = {
  date: '2026-11-23',
  time: '10:15:00Z',
  'date-time': '2026-11-23T10:15:00Z',
  email: 'sandbox@example.com',
  uri: 'https://example.com/',
  uuid: '01234567-89ab-4def-8123-456789abcdef',
}

/**
 * A value that fits a JSON schema, the same every time: required members only unless `all_members`, strings from `words`,
 * the first of several choices. Understands what function schemas use: type, properties, items, enum, const, anyOf, oneOf,
 * allOf (first), local $ref, bounds and the common formats. Where a schema never ends, the value ends with null.
 */
export function sampleOf(schema: unknown, words: string, all_members = false): unknown {
  const root = isObject(schema) ? schema : {}
  return sample(root, { root, words, all_members }, 0)
}

interface Context {
  readonly root: Schema
  readonly words: string
  readonly all_members: boolean
}

function sample(schema: Schema, context: Context, depth: number): unknown {
  if (depth > MAX_DEPTH) return null
  if ('const' in schema) return schema['const']
  const chosen = schema['enum']
  if (Array.isArray(chosen) && chosen.length > 0) return enumerated(chosen, context.words)
  const next = referred(schema, context.root)
  if (next !== null) return sample(next, context, depth + 1)
  switch (typeOf(schema)) {
    case 'object':
      return sampleObject(schema, context, depth)
    case 'array':
      return sampleArray(schema, context, depth)
    case 'integer':
      return Math.ceil(sampleNumber(schema))
    case 'number':
      return sampleNumber(schema)
    case 'boolean':
      return true
    case 'null':
      return null
    default:
      return sampleString(schema, context.words)
  }
}

/** The member that the words name, else the first. */
function enumerated(values: readonly unknown[], words: string): unknown {
  const named = values.find((value) => typeof value === 'string' && value !== '' && words.includes(value))
  return named ?? values[0]
}

/** The schema that stands for this one: the target of a local $ref, or the first of several. */
function referred(schema: Schema, root: Schema): Schema | null {
  const ref = schema['$ref']
  if (typeof ref === 'string') return ref.startsWith('#') ? pointed(ref, root) : {}
  for (const name of ['anyOf', 'oneOf', 'allOf']) {
    const several = schema[name]
    if (Array.isArray(several) && isObject(several[0])) return several[0]
  }
  return null
}

function pointed(ref: string, root: Schema): Schema {
  let at: unknown = root
  for (const part of ref.split('/').slice(1)) {
    const name = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
    at = isObject(at) ? at[name] : undefined
  }
  return isObject(at) ? at : {}
}

function typeOf(schema: Schema): string {
  const type: unknown = Array.isArray(schema['type']) ? schema['type'][0] : schema['type']
  if (typeof type === 'string') return type
  if (isObject(schema['properties'])) return 'object'
  return isObject(schema['items']) ? 'array' : 'string'
}

function sampleObject(schema: Schema, context: Context, depth: number): Record<string, unknown> {
  const properties = isObject(schema['properties']) ? schema['properties'] : {}
  const required = Array.isArray(schema['required']) ? schema['required'].map(String) : []
  const names = context.all_members ? new Set([...required, ...Object.keys(properties)]) : new Set(required)
  const members = [...names].map((name) => {
    const property = properties[name]
    return [name, sample(isObject(property) ? property : {}, context, depth + 1)] as const
  })
  return Object.fromEntries(members)
}

function sampleArray(schema: Schema, context: Context, depth: number): unknown[] {
  const least = numberOf(schema['minItems']) ?? 1
  const items = isObject(schema['items']) ? schema['items'] : {}
  return Array.from({ length: Math.min(Math.max(least, 0), MAX_ITEMS) }, () => sample(items, context, depth + 1))
}

function sampleNumber(schema: Schema): number {
  const least = numberOf(schema['minimum'])
  const above = numberOf(schema['exclusiveMinimum'])
  const most = numberOf(schema['maximum'])
  const low = least ?? (above === null ? 1 : above + 1)
  return most === null ? low : Math.min(low, most)
}

function sampleString(schema: Schema, words: string): string {
  const format = schema['format']
  const formatted = typeof format === 'string' ? FORMATS[format] : undefined
  if (formatted !== undefined) return formatted
  const most = Math.min(numberOf(schema['maxLength']) ?? MAX_STRING_CHARS, MAX_STRING_CHARS)
  const least = Math.min(numberOf(schema['minLength']) ?? 0, MAX_STRING_CHARS)
  return [...words].slice(0, most).join('').padEnd(least, '.')
}
