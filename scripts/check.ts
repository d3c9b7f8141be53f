/** `npm run check`: the static steps, and whether the shipped configuration is valid. Seconds, no tests. */
import { endWithParent, runStep, STATIC_STEPS, type Step } from './steps.ts'

const CONFIGURATION: Step = { name: 'configuration', command: [process.execPath, 'src/cli.ts', 'check'], limit_ms: 60_000 }

endWithParent()
const failed: string[] = []
for (const step of [...STATIC_STEPS, CONFIGURATION]) {
  if (!(await runStep(step))) failed.push(step.name)
}
if (failed.length > 0) {
  console.log(`failed: ${failed.join(', ')}`)
  process.exitCode = 1
}
