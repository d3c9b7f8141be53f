/** Which model a virtual model chooses for a request. Pure. */
import { isDearer } from '../../gateway/consider.ts'
import { chanceOf } from '../../routing/draw.ts'
import { mayServePublic } from '../../routing/filings.ts'
import { orderCandidates, type Candidate, type Obstacle } from '../../routing/select.ts'
import type { VirtualModel } from '../../routing/virtual.ts'
import type { RequestPrices, SoldModel } from './prices.ts'

/** Whose traffic it is, as far as routing depends on it. */
export interface Audience {
  readonly audience: 'public' | 'internal'
  readonly zones: readonly string[]
}

export interface Choosing {
  readonly virtual: VirtualModel
  readonly sold: ReadonlyMap<string, SoldModel>
  /** Conversations of different tenants are drawn apart; empty for nobody in particular. */
  readonly tenant: string
  /** Null where nobody in particular asks: then nothing is refused for its zone or filing. */
  readonly audience: Audience | null
}

/** @param key of the conversation: those with the same key get the same model @returns null where none of the candidates can serve */
export function chooseModel(domain: string, key: string, prices: RequestPrices, choosing: Choosing): SoldModel | null {
  const { virtual, sold } = choosing
  const candidates = virtual.candidates.map(({ model, domain: serves, weight, quality }): Candidate => {
    const known = sold.get(model)
    const standing = { id: model, domain: serves ?? known?.model.domain ?? 'general', weight, quality, latency_ms: null }
    if (known === undefined) return { ...standing, obstacle: 'no_price', price_nano: null, tight: false }
    return { ...standing, obstacle: obstacleOf(known, choosing) ?? prices.of(known).unable, ...prices.expectedOf(known) }
  })
  const [first] = orderCandidates(candidates, domain, virtual, chanceOf(key)).order
  return first === undefined ? null : (sold.get(first.id) ?? null)
}

function obstacleOf({ endpoints, served_by, price }: SoldModel, { audience, virtual }: Choosing): Obstacle | null {
  if (served_by === null) return 'not_found'
  if (isDearer(price, virtual.max_price_pico)) return 'price_ceiling'
  if (audience === null) return null
  const zoned = endpoints.filter(({ zone }) => audience.zones.includes(zone))
  if (zoned.length === 0) return 'zone'
  return zoned.some((endpoint) => audience.audience === 'internal' || mayServePublic(endpoint)) ? null : 'filing'
}
