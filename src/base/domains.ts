/** What models and prompts may be about: a closed set. Tourism and hospitality belong to `customer_service`. */

/** Domains with models of their own. In the order of the classifier's weights, which changes only together with them. */
export const VERTICALS = ['finance', 'healthcare', 'education', 'government', 'industrial', 'legal', 'retail', 'customer_service'] as const
export const DOMAINS = [...VERTICALS, 'general'] as const

export type VerticalDomain = (typeof VERTICALS)[number]
export type Domain = (typeof DOMAINS)[number]
