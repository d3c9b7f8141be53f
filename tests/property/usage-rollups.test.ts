import { rollupSubject } from '../support/rollups.ts'
import { usageRollups } from './usage-rollups.ts'

usageRollups('SQLite', rollupSubject, 150)
