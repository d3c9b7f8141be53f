import type { PriceBook } from '../config/model.ts'
import { encodePriceVersion } from '../money/price-json.ts'
import type { PriceVersion } from '../money/price.ts'
import type { PriceVersionRecord, Records } from '../storage/records.ts'

/**
 * Stores every version of a price book that is new, so that an event's price can be found when the configuration has moved on.
 *
 * @throws PriceVersionConflict if a version was edited after it had been published
 */
export async function publishPrices(records: Records, book: PriceBook, now_ms: number): Promise<void> {
  const rows = [...rowsOf('sell', book.sell, now_ms), ...rowsOf('cost', book.cost, now_ms)]
  // A profile without prices of its own has its model's versions.
  const distinct = [...new Map(rows.map((row) => [row.id, row] as const).toReversed()).values()].toReversed()
  if (distinct.length > 0) await records.putPriceVersions(distinct)
}

function rowsOf(
  side: PriceVersionRecord['side'],
  versions: ReadonlyMap<string, readonly PriceVersion[]>,
  created_at: number,
): PriceVersionRecord[] {
  return [...versions].flatMap(([subject, list]) =>
    list.map((version) => ({
      id: version.id,
      side,
      subject,
      effective_from: version.effective_from,
      body: encodePriceVersion(version),
      created_at,
    })),
  )
}
