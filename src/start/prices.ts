import { decodePriceVersion } from '../money/price-json.ts'
import type { Records } from '../storage/records.ts'
import type { FindPrice } from '../worker/sweep.ts'

/** Every published version, by id: also those that the configuration no longer has. */
export async function readPrices(records: Pick<Records, 'priceVersions'>): Promise<FindPrice> {
  const versions = new Map((await records.priceVersions()).map(({ id, body }) => [id, body]))
  return (id) => {
    const body = versions.get(id)
    return body === undefined ? null : decodePriceVersion(body)
  }
}
