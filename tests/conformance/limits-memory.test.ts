import { createMemoryLimits } from '../../src/storage/memory/limits.ts'
import { limitsConformance } from './limits.ts'
import { limitsOrphanConformance } from './limits-orphan.ts'
import { limitStatesConformance } from './limits-states.ts'

limitsConformance('memory', (clock) => createMemoryLimits({ clock }))
limitStatesConformance('memory', (clock) => createMemoryLimits({ clock }))
limitsOrphanConformance('memory', (clock) => createMemoryLimits({ clock }))
