/** What a grant is counted in. */
export type GrantUnit = 'nano_cny' | 'tokens' | 'requests'

/** A part of one payment: so much of this grant. `grant` is a grant id, or `credit` for the tenant's credit line. */
export interface PaymentPart {
  readonly grant: string
  readonly unit: GrantUnit
  readonly amount: bigint
}

/** The id of a tenant's wallet: one each, the grant that pays what no other grant covers. */
export function walletOf(tenant: string): string {
  return `wallet:${tenant}`
}
