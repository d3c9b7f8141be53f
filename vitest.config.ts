import { defineConfig } from 'vitest/config'

const TEST_TIMEOUT_MS = 60_000
/** Some start a dozen processes with their servers, or make thousands of runs; a slow machine needs minutes for it. */
const INTEGRATION_TIMEOUT_MS = 5 * 60_000
const SLOW_TEST_TIMEOUT_MS = 30 * 60_000
const HOOK_TIMEOUT_MS = 2 * 60_000

/** One project per tier of the suite, so that `--project unit` runs one of them. */
function tier(name: string, include: string, testTimeout = TEST_TIMEOUT_MS) {
  return {
    test: {
      name,
      include: [include],
      environment: 'node' as const,
      pool: 'forks' as const,
      testTimeout,
      hookTimeout: HOOK_TIMEOUT_MS,
    },
  }
}

export default defineConfig({
  test: {
    // One more than the two cores that tests are sized for: many of them wait for a clock or a process.
    maxWorkers: 3,
    passWithNoTests: false,
    allowOnly: process.env['CI'] === undefined,
    projects: [
      tier('tidy', 'tests/tidy.test.ts'),
      tier('unit', 'tests/unit/**/*.test.ts'),
      tier('property', 'tests/property/**/*.test.ts', INTEGRATION_TIMEOUT_MS),
      tier('conformance', 'tests/conformance/**/*.test.ts'),
      tier('integration', 'tests/integration/**/*.test.ts', INTEGRATION_TIMEOUT_MS),
      tier('faults', 'tests/faults/**/*.test.ts', SLOW_TEST_TIMEOUT_MS),
      tier('e2e', 'tests/e2e/**/*.test.ts', SLOW_TEST_TIMEOUT_MS),
    ],
  },
})
