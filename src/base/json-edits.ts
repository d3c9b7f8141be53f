import { keyIs, objectMembers, removeMembers } from './json-spans.ts'
import type { Edit, JsonLimits, MemberSpan } from './json-spans.ts'

/**
 * Changes to one object in JSON bytes, collected member by member and given as edits: values replaced, keys renamed, members
 * removed and appended, commas right. A member is changed in one way only; edits inside of a value that stays are the caller's.
 */
export class ObjectEdits {
  readonly members: readonly MemberSpan[]
  readonly #bytes: Buffer
  readonly #start: number
  readonly #edits: Edit[] = []
  readonly #removed = new Set<number>()
  readonly #appended: Buffer[] = []

  /** @throws JsonSpanError when no well-formed object begins at `start` */
  constructor(bytes: Buffer, start: number, limits: JsonLimits) {
    this.#bytes = bytes
    this.#start = start
    this.members = objectMembers(bytes, start, limits)
  }

  /** The member of this name that `JSON.parse` would take: the last one. */
  find(name: string): MemberSpan | null {
    for (let index = this.members.length - 1; index >= 0; index--) {
      const member = this.members[index]
      if (member !== undefined && keyIs(this.#bytes, member, name)) return member
    }
    return null
  }

  /** The value's bytes as they are, or null. */
  raw(name: string): Buffer | null {
    const member = this.find(name)
    return member === null ? null : this.#bytes.subarray(member.value_start, member.value_end)
  }

  /** Every occurrence gets the value (JSON); without one it is appended. */
  set(name: string, json: string | Buffer): void {
    const replacement = Buffer.from(json)
    let found = false
    for (const member of this.members) {
      if (!keyIs(this.#bytes, member, name)) continue
      found = true
      this.#edits.push({ start: member.value_start, end: member.value_end, replacement })
    }
    if (!found) this.append(name, replacement)
  }

  /** Every occurrence of a key gets another name. */
  rename(from: string, to: string): void {
    const replacement = Buffer.from(JSON.stringify(to))
    for (const member of this.members) {
      if (keyIs(this.#bytes, member, from)) this.#edits.push({ start: member.key_start, end: member.key_end, replacement })
    }
  }

  remove(name: string): void {
    for (const [index, member] of this.members.entries()) if (keyIs(this.#bytes, member, name)) this.#removed.add(index)
  }

  append(name: string, json: string | Buffer): void {
    this.#appended.push(Buffer.concat([Buffer.from(`${JSON.stringify(name)}:`), Buffer.from(json)]))
  }

  /** Adds the edits to `into`; at the same place an insertion comes before a removal. */
  finish(into: Edit[]): void {
    const last_kept = this.members.findLastIndex((_, index) => !this.#removed.has(index))
    if (this.#appended.length > 0) {
      const kept = this.members[last_kept]
      const at = kept?.value_end ?? this.members[0]?.key_start ?? this.#bytes.indexOf('{', this.#start) + 1
      const parts = this.#appended.flatMap((member, index) => (index === 0 && kept === undefined ? [member] : [COMMA, member]))
      into.push({ start: at, end: at, replacement: Buffer.concat(parts) })
    }
    into.push(...this.#edits)
    into.push(
      ...removeMembers(
        this.members,
        [...this.#removed].toSorted((a, b) => a - b),
      ),
    )
  }
}

const COMMA = Buffer.from(',')
