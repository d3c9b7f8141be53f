import { MOST, PRESENT, sumOf } from './audit-parts.ts'
import { bigOf, numberOf, type SqlExecutor, type SqlRow, type SqlStatement, textOf } from './executor.ts'

/** Smallest and largest number, how many and their sum, per node, of a FROM item with runs (`first` to `last`). */
export function countedRuns(runs: string): string {
  return (
    'SELECT node, MIN(first) AS low, MAX(last) AS high, SUM(last - first + 1) AS numbers, ' +
    `SUM((first + last) * (last - first + 1) / 2) AS total FROM (${runs}) AS r GROUP BY node`
  )
}

/** Numbers between runs, of the node that is the parameter. @param runs those that are not events' own numbers */
export function gapsBetween(runs: string, events = 'events'): string {
  return (
    'SELECT node, before + 1 AS first, first - 1 AS last FROM (' +
    'SELECT node, first, LAG(last) OVER (PARTITION BY node ORDER BY first) AS before FROM (' +
    `SELECT node, seq AS first, seq AS last FROM ${events} WHERE ${PRESENT} UNION ALL ${runs}) AS r WHERE node = ?) AS b ` +
    `WHERE first > before + 1 ORDER BY first LIMIT ${MOST}`
  )
}

/**
 * Numbers missing of nodes whose count or sum of numbers shows that some are; only then are they looked for.
 * @param numbers rows with `node`, `low`, `high`, `numbers` and `total`, several per node
 * @param gaps see {@link gapsBetween}
 */
export async function readGaps(
  executor: Pick<SqlExecutor, 'read'>,
  numbers: readonly SqlRow[],
  gaps: (node: string) => SqlStatement,
): Promise<readonly string[]> {
  const nodes = [...Map.groupBy(numbers, (row) => textOf(row, 'node'))].filter(([, rows]) => !isWhole(rows)).map(([node]) => node)
  if (nodes.length === 0) return []
  const results = await executor.read(nodes.slice(0, MOST).map(gaps))
  const found = results.flat().map((row) => {
    const [first, last] = [numberOf(row, 'first'), numberOf(row, 'last')]
    return `${textOf(row, 'node')} ${first === last ? first : `${first}–${last}`}`
  })
  // Sums that do not fit without a number missing: some number is there twice.
  return found.length > 0 ? found : nodes.map((node) => `${node} has a number twice`)
}

function isWhole(rows: readonly SqlRow[]): boolean {
  const low = rows.map((row) => bigOf(row, 'low')).reduce((a, b) => (a < b ? a : b))
  const high = rows.map((row) => bigOf(row, 'high')).reduce((a, b) => (a > b ? a : b))
  const count = high - low + 1n
  return sumOf(rows, 'numbers') === count && sumOf(rows, 'total') * 2n === (low + high) * count
}
