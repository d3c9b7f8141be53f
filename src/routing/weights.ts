/**
 * The weights file of the domain classifier, little-endian:
 *
 *   0   'WEIRDOM' and one byte: the version of this layout
 *   8   u16 the version of the features, u8 bits of a slot's number, u8 number of vertical domains
 *   12  f32 what one step of a weight is worth
 *   16  f32 for every vertical domain: its bias over `general`
 *   …   u16 for every slot: which feature it belongs to (0: none)
 *   …   i8 for every slot and vertical domain: the feature's weight over `general`, in steps
 *
 * A feature has the slot named by its highest bits or that slot's neighbour, and shares it with nobody: features that lost both in
 * training weigh nothing.
 */
export const LAYOUT_VERSION = 2
/** Raised whenever a text gives other features than before; weights of another version are refused. */
export const FEATURES_VERSION = 1
export const MAX_WEIGHTS_BYTES = 3 * 1024 * 1024

const MAGIC = 'WEIRDOM'
const HEADER_BYTES = 16
const MAX_SLOT_BITS = 20

export interface Weights {
  readonly slot_bits: number
  readonly step: number
  /** One for every vertical domain. */
  readonly bias: Float64Array
  readonly marks: Uint16Array
  /** `weights[slot * verticals + domain]` */
  readonly weights: Int8Array
}

/** The slot where a feature is looked for first. */
export function slotOf(hash: number, slot_bits: number): number {
  return hash >>> (32 - slot_bits)
}

/** The slot where the feature is looked for next. */
export function neighbourOf(slot: number): number {
  return slot ^ 1
}

/** What tells a feature from the others of its slot; never 0. */
export function markOf(hash: number): number {
  return hash & 0xffff || 1
}

/** Reads a weights file for `verticals` domains. Throws an Error that says what is wrong with it. */
export function parseWeights(bytes: Uint8Array, verticals: number): Weights {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.byteLength < HEADER_BYTES || new TextDecoder().decode(bytes.subarray(0, MAGIC.length)) !== MAGIC) {
    throw new Error('not a weights file of the domain classifier')
  }
  expectVersion('layout', view.getUint8(MAGIC.length), LAYOUT_VERSION)
  expectVersion('features', view.getUint16(8, true), FEATURES_VERSION)
  const slot_bits = view.getUint8(10)
  if (slot_bits < 1 || slot_bits > MAX_SLOT_BITS) throw new Error(`weights with ${slot_bits} slot bits`)
  if (view.getUint8(11) !== verticals) throw new Error(`weights for ${view.getUint8(11)} vertical domains, expected ${verticals}`)
  const slots = 2 ** slot_bits
  const marks_at = HEADER_BYTES + 4 * verticals
  const weights_at = marks_at + 2 * slots
  const expected = weights_at + slots * verticals
  if (bytes.byteLength !== expected) throw new Error(`weights of ${bytes.byteLength} bytes, expected ${expected}`)
  return {
    slot_bits,
    step: view.getFloat32(12, true),
    bias: Float64Array.from({ length: verticals }, (_, at) => view.getFloat32(HEADER_BYTES + 4 * at, true)),
    marks: Uint16Array.from({ length: slots }, (_, at) => view.getUint16(marks_at + 2 * at, true)),
    weights: new Int8Array(bytes.subarray(weights_at)),
  }
}

function expectVersion(what: string, found: number, expected: number): void {
  if (found !== expected) throw new Error(`weights of ${what} version ${found}, expected ${expected}: run npm run train:routing`)
}

/** The file of these weights: what {@link parseWeights} reads. */
export function formatWeights({ slot_bits, step, bias, marks, weights }: Weights): Uint8Array {
  const marks_at = HEADER_BYTES + 4 * bias.length
  const bytes = new Uint8Array(marks_at + 2 * marks.length + weights.length)
  const view = new DataView(bytes.buffer)
  bytes.set(new TextEncoder().encode(MAGIC))
  view.setUint8(MAGIC.length, LAYOUT_VERSION)
  view.setUint16(8, FEATURES_VERSION, true)
  view.setUint8(10, slot_bits)
  view.setUint8(11, bias.length)
  view.setFloat32(12, step, true)
  bias.forEach((value, at) => view.setFloat32(HEADER_BYTES + 4 * at, value, true))
  marks.forEach((mark, at) => view.setUint16(marks_at + 2 * at, mark, true))
  bytes.set(new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength), marks_at + 2 * marks.length)
  return bytes
}
