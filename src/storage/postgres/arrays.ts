/**
 * Arrays in PostgreSQL's binary form (array_send in its source: dimensions, whether there are nulls, type, length, lower bound, then each
 * element with its length). As text each quote of a body would be escaped here and read character by character there, which is most of
 * what a posting would cost.
 */

const [TEXT_OID, INT8_OID] = [25, 20]
const HEADER_BYTES = 20

/** A parameter for `$n::text[]`. */
export function texts(values: readonly (string | null)[]): Buffer {
  let size = HEADER_BYTES + 4 * values.length
  for (const value of values) if (value !== null) size += Buffer.byteLength(value)
  const buffer = Buffer.allocUnsafe(size)
  writeHeader(buffer, TEXT_OID, values.length, values.includes(null))
  let at = HEADER_BYTES
  for (const value of values) {
    const length = value === null ? 0 : buffer.write(value, at + 4)
    buffer.writeInt32BE(value === null ? -1 : length, at)
    at += 4 + length
  }
  return buffer
}

/** A parameter for `$n::bigint[]`. @throws RangeError for a value that does not fit 64 bits, or is no whole number */
export function bigints(values: readonly (number | bigint | null)[]): Buffer {
  const nulls = values.filter((value) => value === null).length
  const buffer = Buffer.allocUnsafe(HEADER_BYTES + 12 * values.length - 8 * nulls)
  writeHeader(buffer, INT8_OID, values.length, nulls > 0)
  let at = HEADER_BYTES
  for (const value of values) {
    buffer.writeInt32BE(value === null ? -1 : 8, at)
    at += 4
    if (value === null) continue
    buffer.writeBigInt64BE(BigInt(value), at)
    at += 8
  }
  return buffer
}

function writeHeader(buffer: Buffer, oid: number, length: number, nulls: boolean): void {
  buffer.writeInt32BE(1, 0)
  buffer.writeInt32BE(nulls ? 1 : 0, 4)
  buffer.writeInt32BE(oid, 8)
  buffer.writeInt32BE(length, 12)
  buffer.writeInt32BE(1, 16)
}
