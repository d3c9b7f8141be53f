import { createMemoryLimits } from '../../src/storage/memory/limits.ts'
import { limitsConformance } from './limits.ts'

limitsConformance('memory', (clock) => createMemoryLimits({ clock }))
