/** What a grant is counted in. */
export type GrantUnit = 'nano_cny' | 'tokens' | 'requests'

/** A part of one payment: so much of this grant. `grant` is a grant id, or `credit` for the tenant's credit line. */
export interface PaymentPart {
  readonly grant: string
  readonly unit: GrantUnit
  readonly amount: bigint
}

/** A part of a hold. What it can pay for is fixed here, so that the final split needs nothing but the receipt. */
export interface HeldPart extends PaymentPart {
  /** Millionths of the grant's unit that one token of the held model takes, for a `tokens` grant with weights; absent means 1 000 000. */
  readonly weight_micro?: number
}

/** The id of a tenant's wallet: one each, the grant that pays what no other grant covers. */
export function walletOf(tenant: string): string {
  return `wallet:${tenant}`
}
