import type { PoolClient } from 'pg'
import type { SqlRow, SqlStatement } from '../sql/executor.ts'
import { translated } from './errors.ts'

/** What a statement may be given. A buffer is a value in PostgreSQL's binary form (`arrays.ts`). */
export type Parameter = string | number | bigint | boolean | null | Buffer

export interface Answer {
  readonly rows: readonly SqlRow[]
  /** Rows that were written, or read. */
  readonly count: number
}

/** One connection while somebody has it. Every error is translated (`errors.ts`). */
export class Session {
  readonly #client: PoolClient
  /** The connection's own failure, which the driver tells apart from that of a statement. */
  #failed: Error | null = null

  constructor(client: PoolClient) {
    this.#client = client
  }

  get failed(): Error | null {
    return this.#failed
  }

  fail(error: Error): void {
    this.#failed ??= translated(error)
  }

  /** Runs one statement, or, without parameters, several. */
  async run(text: string, values: readonly Parameter[] = []): Promise<Answer> {
    return await this.#query({ text, values })
  }

  /** Runs a statement that each connection parses and plans once: for those whose text never changes. */
  async prepared(text: string, values: readonly Parameter[]): Promise<Answer> {
    return await this.#query({ name: nameOf(text), text, values })
  }

  /** Runs a statement with `?` for its parameters. PostgreSQL's texts have no U+0000, so that one with it must equal none. */
  async statement({ sql, params }: SqlStatement): Promise<readonly SqlRow[]> {
    const values = params.map((value) => (typeof value === 'string' ? value.replaceAll('\u0000', NO_CHARACTER) : value))
    return (await this.run(numbered(sql), values)).rows
  }

  async #query(query: { readonly name?: string; readonly text: string; readonly values: readonly Parameter[] }): Promise<Answer> {
    if (this.#failed !== null) throw this.#failed
    try {
      const { rows, rowCount } = await this.#client.query<SqlRow>({ ...query, values: [...query.values] })
      return { rows, count: rowCount ?? 0 }
    } catch (error) {
      throw translated(error)
    }
  }
}

const NO_CHARACTER = '\u{10FFFF}'

/** Names of prepared statements. Their texts are constants of this program, so that there are only so many. */
const NAMES = new Map<string, string>()

function nameOf(text: string): string {
  const known = NAMES.get(text)
  if (known !== undefined) return known
  const name = `weir-${NAMES.size + 1}`
  NAMES.set(text, name)
  return name
}

/** `?` outside of quoted text becomes `$1`, `$2` and so on. */
function numbered(sql: string): string {
  let count = 0
  return sql
    .split("'")
    .map((piece, index) => (index % 2 === 1 ? piece : piece.replaceAll('?', () => `$${(count += 1)}`)))
    .join("'")
}
