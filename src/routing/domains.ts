/** Names of domains: the closed set, other spellings of it, and those that tenants make up. Pure. */
import { type Domain, DOMAINS } from '../base/domains.ts'

/** Other words for the domains of the closed set, folded as {@link domainNamed} folds what it is given. */
const SPELLINGS: Readonly<Record<Domain, readonly string[]>> = {
  finance: [
    ...['financial', 'banking', 'bank', 'fintech', 'insurance', 'securities', 'investment', 'accounting'],
    ...['金融', '财经', '银行', '保险', '证券', '财务', '会计'],
  ],
  healthcare: ['health', 'health_care', 'medical', 'medicine', 'clinical', 'pharma', '医疗', '医学', '医药', '健康', '卫生'],
  education: ['edu', 'educational', 'teaching', 'school', 'academic', '教育', '教学'],
  government: ['gov', 'govt', 'governmental', 'public_sector', 'public_service', 'public_services', '政务', '政府', '公共服务'],
  industrial: ['industry', 'manufacturing', 'factory', 'engineering', '工业', '制造', '制造业', '工程'],
  legal: ['law', 'laws', 'judicial', 'judiciary', '法律', '司法', '法务'],
  retail: ['ecommerce', 'e_commerce', 'commerce', 'shopping', '零售', '电商', '购物'],
  customer_service: [
    ...['tourism', 'travel', 'hospitality', 'hotel', 'hotels', 'customer_support', 'customer_care', 'customerservice', 'support'],
    ...['客服', '客户服务', '旅游', '文旅', '酒店'],
  ],
  general: ['general_purpose', 'other', 'others', 'none', 'misc', '通用', '其他', '其它'],
}

const KNOWN: ReadonlyMap<string, Domain> = new Map(
  DOMAINS.flatMap((domain) => [domain, ...SPELLINGS[domain]].map((spelling) => [spelling, domain] as const)),
)

const OWN = /^[a-z][a-z0-9_]{1,31}$/

/** What a name of a domain must be, in words. */
export const DOMAIN_FORM =
  'a domain such as finance, or a name of your own: 2 to 32 lower-case letters, digits or "_", beginning with a letter'

/** The domain that a name means: of the closed set, also by another spelling; else a tenant's own, as it is. Null for what is no name. */
export function domainNamed(name: string): string | null {
  const folded = name
    .trim()
    .toLowerCase()
    .replaceAll(/[\s-]+/g, '_')
  return KNOWN.get(folded) ?? (OWN.test(name) ? name : null)
}

/** Whether a domain is of the closed set, so that the classifier and the catalogue know it. */
export function isKnownDomain(domain: string): boolean {
  return KNOWN.get(domain) === domain
}
