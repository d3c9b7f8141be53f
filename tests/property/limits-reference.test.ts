import { createMemoryLimits } from '../../src/storage/memory/limits.ts'
import { limitsModel } from '../conformance/limits-model.ts'
import { propertyRuns, propertySeed } from '../support/seed.ts'

limitsModel('memory', (clock) => createMemoryLimits({ clock }), { runs: propertyRuns(300), seed: propertySeed() })
