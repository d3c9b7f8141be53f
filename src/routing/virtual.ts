/** Virtual models: names such as `auto` that choose among models. Of the operator (`config/routes.yaml`), or of a tenant. Pure. */
import type { Canary, Preference } from './select.ts'

/** A model that a virtual model may choose. */
export interface RouteCandidate {
  readonly model: string
  /** What it is chosen for; null for the domain that the catalogue gives it. */
  readonly domain: string | null
  /** Share of the conversations among its equals, 0 to 1000. 0: only where nothing else can serve. */
  readonly weight: number
  /** Higher is better, 0 to 100. */
  readonly quality: number
}

export interface VirtualModel {
  /** What callers ask for. */
  readonly id: string
  /** The domain of everything asked of it; null where each prompt decides. */
  readonly domain: string | null
  readonly prefer: Preference
  readonly candidates: readonly RouteCandidate[]
  readonly canary: Canary | null
  /** Models with a dearer input or output token are not chosen: pico-yuan per token. Null for no ceiling. */
  readonly max_price_pico: { readonly input: bigint | null; readonly output: bigint | null }
}
