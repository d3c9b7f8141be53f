import { DummyDriver, Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler } from 'kysely'
import type { SqlDialect } from '../sql/dialect.ts'
import { DAY_MS, HOUR_MS } from '../sql/rollup-batch.ts'
import type { Tables } from '../sql/tables.ts'

/** Bodies of events are text; whatever else is read is JSON already. */
const jsonOf = (source: string): string => (source.endsWith('body') ? `event_json(${source})` : source)

export const POSTGRES: SqlDialect = {
  queries: new Kysely<Tables>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (database) => new PostgresIntrospector(database),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  }),
  jsonText: (json, ...path) => `(${jsonOf(json)} #>> '{${path.join(',')}}')`,
  jsonInteger: (json, ...path) => `(${jsonOf(json)} #>> '{${path.join(',')}}')::bigint`,
  jsonMembers: (json, member, as) => `json_each_text(${jsonOf(json)} -> '${member}') AS ${as}`,
  jsonItems: (json, member, as) => `json_array_elements(${jsonOf(json)} -> '${member}') AS ${as}`,
  jsonList: (columns) => `json_build_array(${columns.join(', ')})`,
  jsonGroup: (list) => `json_agg(${list})::text`,
  rowsOf: (json) =>
    '(SELECT value ->> 0, (value ->> 1)::bigint, (value ->> 2)::bigint, (value ->> 3)::bigint ' +
    `FROM json_array_elements(${json}::json) AS list (value))`,
  sum64: (value) => `SUM(${value})::bigint`,
  joined: (value, separator, order) => `string_agg(${value}, '${separator}' ORDER BY ${order})`,
  startOfDay: (day) => `((${day}::date - DATE '1970-01-01')::bigint * ${DAY_MS} - ${8 * HOUR_MS})`,
  dateOf: (instant) => `(DATE '1970-01-01' + ((${instant} + ${8 * HOUR_MS}) / ${DAY_MS})::integer)::text`,
  // Nothing is pulled out of a subquery with an offset, so that it stays the inner side of a loop.
  lookedUp: (each, table, where, members = null) =>
    `${each} CROSS JOIN LATERAL (SELECT * FROM ${table} WHERE ${where} OFFSET 0) AS ${table.slice(-1)}` +
    `${members === null ? '' : ` CROSS JOIN ${members.from}`} WHERE ${members === null ? 'TRUE' : members.where}`,
  indexed: (table) => table,
  entry_order: 'line',
  balance_of_grant: 'b.bucket = g.bucket',
  day_partitions: true,
}
