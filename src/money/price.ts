/** Prices are integer pico-yuan (1e-12 CNY) per token, so six decimals of CNY per million tokens are exact. */
export interface TokenPrices {
  readonly input: bigint
  readonly cached_input: bigint
  readonly cache_write: bigint
  readonly output: bigint
}
/** Nano-yuan per paid call. */
export interface CallPrices {
  readonly search: bigint
  readonly image: bigint
}

/** What must hold for a rule to apply. Absent members always hold. Lengths are token counts. */
export interface PriceCondition {
  /** Name of a window of the calendar, e.g. `peak`; judged at `admitted_at`. */
  readonly window?: string
  readonly input_above?: number
  readonly input_up_to?: number
  readonly output_above?: number
  readonly output_up_to?: number
  readonly thinking?: boolean
}
export interface PriceRule {
  readonly name: string
  readonly when: PriceCondition
  readonly tokens: TokenPrices
  readonly calls: CallPrices
}
/** One published version: never changed, only superseded. The last rule has no condition. */
export interface PriceVersion {
  readonly id: string
  readonly effective_from: number
  readonly rules: readonly PriceRule[]
  readonly source: string
  readonly as_of: string
}

/** Times of day (minutes after midnight, Asia/Shanghai) on working days; holidays and make-up days are data. */
export interface TradingCalendar {
  readonly windows: ReadonlyMap<string, readonly { readonly from_minute: number; readonly to_minute: number }[]>
  /** `2026-10-01` style dates that are no working days although the weekday says so. */
  readonly holidays: ReadonlySet<string>
  /** Weekend dates that are worked. */
  readonly workdays: ReadonlySet<string>
}
