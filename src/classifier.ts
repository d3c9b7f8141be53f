import { readFileSync } from 'node:fs'
import { createDomainClassifier, type DomainClassifier } from './routing/domain.ts'

const WEIGHTS = new URL('./routing/domain-weights.bin', import.meta.url)

/** The domain classifier with the weights of this release. @throws Error where the file is missing or of another form */
export function readClassifier(): DomainClassifier {
  return createDomainClassifier(readFileSync(WEIGHTS))
}
