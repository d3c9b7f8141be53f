/**
 * JSON of events, receipts and journal rows. Every bigint is a decimal string, so amounts above 2^53 stay exact.
 *
 * Each shape is converted field by field and never by field name: tags are the caller's, and one named `amount` must stay
 * a tag. `Json<T>` makes the compiler find a bigint that was forgotten.
 */
import { assert } from '../base/assert.ts'
import type { Attempt, HoldReceipt, UsageEvent } from './event.ts'
import type { HeldPart, PaymentPart } from './grant.ts'

/** A type as its JSON has it: bigints are strings, at every depth. */
export type Json<T> = T extends bigint
  ? string
  : T extends readonly (infer Item)[]
    ? readonly Json<Item>[]
    : T extends object
      ? { readonly [Name in keyof T]: Json<T[Name]> }
      : T

/** An event before the journal gave it its node and running number. */
export type UnnumberedEvent = Omit<UsageEvent, 'node' | 'seq'>

/** Text that is not the JSON of what it should be. Names the field, never its content. */
export class EncodingError extends Error {
  override name = 'EncodingError'
}

/**
 * The JSON of an event. Reading and writing again gives the same bytes, and an event whose last members are `node` and `seq`
 * has the bytes that {@link numberEvent} makes.
 */
export function encodeEvent(event: UsageEvent): string {
  return JSON.stringify(plainEvent(event))
}

/**
 * The JSON of an event without `node` and `seq`, so that whoever numbers it need not encode or parse it again.
 * @throws InvariantError if the event is numbered already
 */
export function encodeUnnumbered(event: UnnumberedEvent): string {
  assert(!('node' in event) && !('seq' in event), 'the event is numbered already')
  return JSON.stringify(plainEvent(event))
}

/** Completes the JSON of an unnumbered event. `seq` is the node's running number. */
export function numberEvent(unnumbered: string, node: string, seq: number): string {
  return `${unnumbered.slice(0, -1)},"node":${JSON.stringify(node)},"seq":${seq}}`
}

/**
 * Reads what {@link encodeEvent} wrote. Members that this release does not know are kept.
 * @throws EncodingError if the text is not JSON, not version 1, or an amount is not a decimal integer in a string
 */
export function decodeEvent(json: string): UsageEvent {
  const plain = parsed<UsageEvent>(json, 'event')
  return {
    ...plain,
    attempts: listOf(plain.attempts, 'attempts').map(attemptFrom),
    amount_nano: bigFrom(plain.amount_nano, 'amount_nano'),
    cost_nano: bigFrom(plain.cost_nano, 'cost_nano'),
    parts: listOf(plain.parts, 'parts').map(partFrom),
    hold: receiptFrom(plain.hold),
    overrun_nano: bigFrom(plain.overrun_nano, 'overrun_nano'),
  }
}

/** The JSON of a hold's receipt. */
export function encodeReceipt(receipt: HoldReceipt): string {
  return JSON.stringify(plainReceipt(receipt))
}

/**
 * Reads what {@link encodeReceipt} wrote.
 * @throws EncodingError as {@link decodeEvent}
 */
export function decodeReceipt(json: string): HoldReceipt {
  return receiptFrom(parsed<HoldReceipt>(json, 'receipt'))
}

/** A journal row that holds a receipt and no other bigint: the port's `OpenRow`, which money may not import. */
interface RowWithHold {
  readonly v: 1
  readonly hold: HoldReceipt
}
/** A journal row that holds attempts, perhaps a receipt, and no other bigint: the port's `CheckpointRow`. */
interface RowWithAttempts {
  readonly v: 1
  readonly attempts: readonly Attempt[]
  readonly hold?: HoldReceipt
}

/** The JSON of an `OpenRow`. */
export function encodeOpenRow<Row extends RowWithHold>(row: Row): string {
  return JSON.stringify({ ...row, hold: plainReceipt(row.hold) })
}

/**
 * Reads what {@link encodeOpenRow} wrote; call it as `decodeOpenRow<OpenRow>(json)`.
 * @throws EncodingError as {@link decodeEvent}
 */
export function decodeOpenRow<Row extends RowWithHold>(json: string): Row {
  const plain = parsed<RowWithHold>(json, 'open row')
  const row: RowWithHold = { ...plain, hold: receiptFrom(plain.hold) }
  return row as Row
}

/** The JSON of a `CheckpointRow`. */
export function encodeCheckpointRow<Row extends RowWithAttempts>(row: Row): string {
  const hold = row.hold === undefined ? {} : { hold: plainReceipt(row.hold) }
  return JSON.stringify({ ...row, attempts: row.attempts.map(plainAttempt), ...hold })
}

/**
 * Reads what {@link encodeCheckpointRow} wrote; call it as `decodeCheckpointRow<CheckpointRow>(json)`.
 * @throws EncodingError as {@link decodeEvent}
 */
export function decodeCheckpointRow<Row extends RowWithAttempts>(json: string): Row {
  const plain = parsed<RowWithAttempts>(json, 'checkpoint row')
  const { hold, ...rest } = plain
  const row = { ...rest, attempts: listOf(plain.attempts, 'attempts').map(attemptFrom) }
  return (hold === undefined ? row : { ...row, hold: receiptFrom(hold) }) as RowWithAttempts as Row
}

/** Spread first, so that members keep their order and those that this release does not know are kept. */
function plainEvent(event: UnnumberedEvent): Json<UnnumberedEvent> {
  return {
    ...event,
    attempts: event.attempts.map(plainAttempt),
    amount_nano: event.amount_nano.toString(),
    cost_nano: event.cost_nano.toString(),
    parts: event.parts.map(plainPart),
    hold: plainReceipt(event.hold),
    overrun_nano: event.overrun_nano.toString(),
  }
}

function plainReceipt(receipt: HoldReceipt): Json<HoldReceipt> {
  return { ...receipt, amount_nano: receipt.amount_nano.toString(), parts: receipt.parts.map(plainHeldPart) }
}

function plainAttempt(attempt: Attempt): Json<Attempt> {
  return { ...attempt, cost_nano: attempt.cost_nano.toString() }
}

function plainPart(part: PaymentPart): Json<PaymentPart> {
  return { grant: part.grant, unit: part.unit, amount: part.amount.toString() }
}

function plainHeldPart(part: HeldPart): Json<HeldPart> {
  const { weight_micro } = part
  return weight_micro === undefined ? plainPart(part) : { ...plainPart(part), weight_micro }
}

function receiptFrom(plain: Json<HoldReceipt>): HoldReceipt {
  requireVersion1(plain, 'hold')
  return { ...plain, amount_nano: bigFrom(plain.amount_nano, 'hold.amount_nano'), parts: listOf(plain.parts, 'hold.parts').map(partFrom) }
}

function attemptFrom(plain: Json<Attempt>): Attempt {
  return { ...plain, cost_nano: bigFrom(plain.cost_nano, 'attempts.cost_nano') }
}

function partFrom(plain: Json<HeldPart>): HeldPart {
  return { ...plain, amount: bigFrom(plain.amount, 'parts.amount') }
}

/** The text as JSON of version 1. What this project wrote itself is trusted in its shape; bigints and lists are checked where read. */
function parsed<T extends { readonly v: 1 }>(json: string, what: string): Json<T> {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    // The parser's own message quotes the text, which must not reach a log.
    throw new EncodingError(`${what}: not JSON`)
  }
  requireVersion1(value, what)
  return value as Json<T>
}

function requireVersion1(value: unknown, what: string): void {
  if (!isObject(value) || !('v' in value)) throw new EncodingError(`${what}: not an object with a version`)
  if (value.v !== 1) throw new EncodingError(`${what}: version ${String(value.v).slice(0, 20)} is not one that this release reads`)
}

function listOf<Item>(value: readonly Item[], field: string): readonly Item[] {
  if (!isListOfObjects(value)) throw new EncodingError(`${field}: not a list of objects`)
  return value
}

function isListOfObjects(value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => isObject(item))
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

/** At most 40 digits: `BigInt` takes hexadecimal, spaces and empty text too, and text without end. */
const INTEGER = /^-?\d{1,40}$/

function bigFrom(value: unknown, field: string): bigint {
  if (typeof value !== 'string' || !INTEGER.test(value)) throw new EncodingError(`${field}: not a decimal integer in a string`)
  return BigInt(value)
}
