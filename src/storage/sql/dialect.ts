import type { Kysely } from 'kysely'
import { DummyDriver, Kysely as KyselyOf, SqliteAdapter, SqliteIntrospector, SqliteQueryCompiler } from 'kysely'
import { DAY_MS, HOUR_MS } from './rollup-batch.ts'
import type { Tables } from './tables.ts'

/**
 * What differs between the databases that records and ledger are read from: pieces of SQL around expressions, columns and tables that
 * the code names. Everything else is written once, in SQL that both understand. Parameters are `?`.
 */
export interface SqlDialect {
  /** Builds statements and runs none: they go through an executor, wherever its database lives. */
  readonly queries: Kysely<Tables>
  /** Text at a path of a JSON text; null where there is none. */
  readonly jsonText: (json: string, ...path: readonly string[]) => string
  /** The same as a 64-bit integer, whether it is a number or digits in a string. */
  readonly jsonInteger: (json: string, ...path: readonly string[]) => string
  /** FROM item with the columns `key` and `value`, both text: the members of an object within a JSON text. */
  readonly jsonMembers: (json: string, member: string, as: string) => string
  /** FROM item with the column `value`, JSON itself: the items of a list within a JSON text. */
  readonly jsonItems: (json: string, member: string, as: string) => string
  /** A JSON list of columns, and all lists of a group as one JSON text. */
  readonly jsonList: (columns: readonly string[]) => string
  readonly jsonGroup: (list: string) => string
  /** FROM item with one row per list of a JSON text, whose four columns are a text and three integers. */
  readonly rowsOf: (json_parameter: string) => string
  /** A sum of integers that is an error where it leaves 64 bits. */
  readonly sum64: (value: string) => string
  /** Texts of a group, one after the other; the separator has no quote in it. */
  readonly joined: (value: string, separator: string, order: string) => string
  /** Start of a day (UTC+8 date), Unix ms. */
  readonly startOfDay: (day: string) => string
  /** The UTC+8 date of an instant in Unix ms. */
  readonly dateOf: (at: string) => string
  /**
   * FROM and WHERE clauses: for each row of one, rows of another that a condition finds through an index, in this order, whatever the
   * planner believes of their numbers; and with the members of an object in each of those. Further conditions may follow.
   */
  readonly lookedUp: (
    each: string,
    table: string,
    where: string,
    members?: { readonly from: string; readonly where: string } | null,
  ) => string
  /** A table that is to be read in one of its indexes, or, with null, whole. */
  readonly indexed: (table: string, index: string | null) => string
  /** What orders the entries of one transaction as they were posted. */
  readonly entry_order: string
  /** A condition that helps to find the balance `b` of a grant `g`. */
  readonly balance_of_grant: string
  /** Days of events are partitions: a reader that knows days need not look at others. */
  readonly day_partitions: boolean
}

const pathOf = (path: readonly string[]): string => `'$.${path.join('.')}'`

export const SQLITE: SqlDialect = {
  queries: new KyselyOf<Tables>({
    dialect: {
      createAdapter: () => new SqliteAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (database) => new SqliteIntrospector(database),
      createQueryCompiler: () => new SqliteQueryCompiler(),
    },
  }),
  jsonText: (json, ...path) => `json_extract(${json}, ${pathOf(path)})`,
  jsonInteger: (json, ...path) => `CAST(json_extract(${json}, ${pathOf(path)}) AS INTEGER)`,
  jsonMembers: (json, member, as) => `json_each(${json}, '$.${member}') AS ${as}`,
  jsonItems: (json, member, as) => `json_each(${json}, '$.${member}') AS ${as}`,
  jsonList: (columns) => `json_array(${columns.join(', ')})`,
  jsonGroup: (list) => `json_group_array(${list})`,
  rowsOf: (json) => `(SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(${json}))`,
  sum64: (value) => `SUM(${value})`,
  joined: (value, separator, order) => `group_concat(${value}, '${separator}' ORDER BY ${order})`,
  startOfDay: (day) => `(unixepoch(${day}) * 1000 - ${8 * HOUR_MS})`,
  dateOf: (at) => `date(${at} / 1000 + ${(8 * HOUR_MS) / 1000}, 'unixepoch')`,
  lookedUp: (each, table, where, members = null) =>
    `${each} CROSS JOIN ${table}${members === null ? '' : ` CROSS JOIN ${members.from}`} ` +
    `WHERE ${where}${members === null ? '' : ` AND ${members.where}`}`,
  indexed: (table, index) => (index === null ? `${table} NOT INDEXED` : `${table} INDEXED BY ${index}`),
  entry_order: 'rowid',
  balance_of_grant: '1 = 1',
  day_partitions: false,
}

/** Start of the rollup day (UTC+8) of an instant. */
export function dayStartSql(at: string): string {
  return `(${at} - (${at} + ${8 * HOUR_MS}) % ${DAY_MS})`
}
