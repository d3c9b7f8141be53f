const EMPTY = Buffer.alloc(0)

/** Collects pieces of bytes into one buffer, for hot paths: no object per piece. */
export class ByteWriter {
  #bytes: Buffer = EMPTY
  #length = 0

  /** Makes room for `size` more bytes, so that they are appended without growing. */
  reserve(size: number): void {
    const needed = this.#length + size
    if (needed <= this.#bytes.length) return
    const larger = Buffer.allocUnsafe(needed)
    this.#bytes.copy(larger, 0, 0, this.#length)
    this.#bytes = larger
  }

  append(source: Buffer, start = 0, end: number = source.length): void {
    const size = end - start
    if (size <= 0) return
    if (this.#length + size > this.#bytes.length) this.reserve(Math.max(size, this.#length))
    source.copy(this.#bytes, this.#length, start, end)
    this.#length += size
  }

  /** All that was appended since the last call. The memory is the caller's from then on. */
  take(): Buffer {
    const taken = this.#bytes.subarray(0, this.#length)
    this.#bytes = EMPTY
    this.#length = 0
    return taken
  }
}
