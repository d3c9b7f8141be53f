import { WeirError } from '../base/errors.ts'
import { DOMAINS } from '../base/domains.ts'
import { domainNamed } from '../routing/domains.ts'
import type { TenantEvidence } from '../routing/evidence.ts'

/**
 * The caller's own word on what a chat is about: the header `x-weir-domain`, else `metadata.domain` of the body; null where nothing is said. Other
 * spellings of a domain count as it (`law`, `医疗`).
 *
 * @throws WeirError `invalid_request`, naming the domains there are, for one that is unknown
 */
export function readHint(
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
  body: Readonly<Record<string, unknown>>,
  evidence: TenantEvidence | null,
): string | null {
  const header = String(headers['x-weir-domain'] ?? '').trim()
  const { metadata } = body
  const given: unknown = typeof metadata === 'object' && metadata !== null && 'domain' in metadata ? metadata.domain : null
  const [hint, param] = header === '' ? [given, 'metadata.domain'] : [header, 'x-weir-domain']
  if (hint === null || hint === undefined || hint === '') return null
  const known = [...new Set<string>([...DOMAINS, ...(evidence?.domains ?? [])])]
  const named = typeof hint !== 'string' ? null : known.includes(hint) ? hint : domainNamed(hint)
  if (named !== null && known.includes(named)) return named
  throw new WeirError('invalid_request', { values: { detail: `${param} must be one of ${known.join(', ')}.` }, param })
}
