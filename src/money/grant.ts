/** What a grant is counted in. */
export type GrantUnit = 'nano_cny' | 'tokens' | 'requests'

/** A part of one payment: so much of this grant. `grant` is a grant id, or `credit` for the tenant's credit line. */
export interface PaymentPart {
  readonly grant: string
  readonly unit: GrantUnit
  readonly amount: bigint
}
