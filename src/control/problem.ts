import * as z from 'zod'
import { errorBody, WeirError, type ErrorCode } from '../base/errors.ts'
import { cnyFromNano, nanoFromCny } from '../money/amount.ts'

/** A refusal of the admin API: a code of the error table with words of its own. */
export class AdminProblem extends WeirError {
  override name = 'AdminProblem'
  readonly words: string
  constructor(code: ErrorCode, words: string, param?: string) {
    super(code, { values: { detail: words }, ...(param === undefined ? {} : { param }) })
    this.words = words
  }
}

/** The body of a refusal, shaped like the data plane's. Messages are English: operators and scripts read them. */
export function problemBody(error: WeirError, request_id: string): { error: Record<string, string | null> } {
  const { error: fields } = errorBody(error, 'en', request_id)
  return { error: error instanceof AdminProblem ? { ...fields, message: error.words } : fields }
}

/**
 * Reads what a caller sent.
 *
 * @throws AdminProblem `invalid_request`, naming every mistake at once
 */
export function parse<Output>(schema: z.ZodType<Output>, value: unknown): Output {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw mistaken(parsed.error.issues.map(({ path, message }) => ({ path: path.join('.'), message })))
}

/** One thing that is wrong with what a caller sent. */
export interface Mistake {
  /** Where it is, members joined by dots; empty for the whole. */
  readonly path: string
  readonly message: string
}

/** Mistakes that one refusal names. */
const MOST_NAMED = 50

/** The refusal that names mistakes, of which there is at least one. */
export function mistaken(mistakes: readonly Mistake[]): AdminProblem {
  const named = mistakes.slice(0, MOST_NAMED).map(({ path, message }) => `${path || 'the request'}: ${message}`)
  const more = mistakes.length > MOST_NAMED ? [`and ${mistakes.length - MOST_NAMED} more`] : []
  return new AdminProblem('invalid_request', [...named, ...more].join('; '), mistakes[0]?.path || undefined)
}

/** CNY as a decimal string, read as nano-yuan. A JSON number is refused: it may have been rounded already. */
export const CnyAmount = z.string('write the amount as a string, such as "12.34"').transform((text, context) => {
  try {
    return nanoFromCny(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : 'not an amount' })
    return z.NEVER
  }
})

/** An id that a person chooses: lower-case letters, digits, `-` and `_`, up to 63 characters. */
export const ChosenId = z
  .string()
  .regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, 'use 1 to 63 lower-case letters, digits, "-" or "_", beginning with a letter or digit')
/** What makes a credit, grant or reversal happen once: an invoice or transfer number, for example. */
export const TransactionName = z
  .string()
  .regex(/^[\w.:-]{1,128}$/, 'use 1 to 128 letters, digits, "_", ".", ":" or "-"; the same id again changes nothing')
export const DisplayName = z.string().trim().min(1).max(200)

const AMOUNT_KINDS: ReadonlySet<string> = new Set(['amount_window', 'budget'])
const WINDOW_KINDS: ReadonlySet<string> = new Set(['requests_window', 'tokens_window', 'amount_window'])

/** One limit as callers write it: counts in digits, amounts in CNY. Stored as integers (nano-yuan for amounts). */
export const LimitInput = z
  .strictObject({
    kind: z.enum([
      'requests_per_minute',
      'tokens_per_minute',
      'concurrency',
      'requests_window',
      'tokens_window',
      'amount_window',
      'budget',
    ]),
    model: z.string().min(1).max(256).nullable().default(null),
    limit: z.union([z.string().max(40), z.number().int().nonnegative()]).transform(String),
    window: z.enum(['5h', 'day', 'week', 'month']).nullable().default(null),
  })
  .transform((setting, context) => {
    const problem = problemOf(setting)
    if (problem === null) return AMOUNT_KINDS.has(setting.kind) ? { ...setting, limit: String(nanoFromCny(setting.limit)) } : setting
    context.addIssue({ code: 'custom', message: problem })
    return z.NEVER
  })

/** The limits of a new record: of one kind, model and window there is one limit, since both would count in the same place. */
export const LimitList = z
  .array(LimitInput)
  .max(100)
  .refine((limits) => new Set(limits.map(({ kind, model, window }) => `${kind}\n${model}\n${window}`)).size === limits.length, {
    error: 'two limits have the same kind, model and window',
  })

function problemOf({ kind, limit, window }: { kind: string; limit: string; window: string | null }): string | null {
  if (WINDOW_KINDS.has(kind) && window === null) return `${kind} needs a window: 5h, day, week or month`
  if (!WINDOW_KINDS.has(kind) && kind !== 'budget' && window !== null) return `${kind} has no window`
  if (!AMOUNT_KINDS.has(kind)) return /^\d{1,15}$/.test(limit) ? null : `limit of ${kind} must be a whole number`
  return /^\d{1,9}(\.\d{1,9})?$/.test(limit) ? null : `limit of ${kind} is an amount in CNY, such as "100" or "0.5"`
}

/** A stored limit as callers wrote it. */
export function limitView<Setting extends { readonly kind: string; readonly limit: string }>(setting: Setting): Setting {
  return AMOUNT_KINDS.has(setting.kind) ? { ...setting, limit: cnyFromNano(BigInt(setting.limit)) } : setting
}

/** Unix ms as ISO 8601 in UTC, null as null. */
export function isoOf(at_ms: number): string
export function isoOf(at_ms: number | null): string | null
export function isoOf(at_ms: number | null): string | null {
  return at_ms === null ? null : new Date(at_ms).toISOString()
}
