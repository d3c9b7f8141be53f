import { afterAll, onTestFinished, TestRunner } from 'vitest'

type Cleanup = () => void | Promise<void>

const at_end_of_file: Cleanup[] = []

// Registered when a test file imports this module, so that a `beforeAll` can ask for clean-up too.
afterAll(async () => {
  for (const cleanup of at_end_of_file.splice(0).toReversed()) await cleanup()
})

/** Runs `cleanup` when the current test ends, or after the file's last test when called outside a test. */
export function atEnd(cleanup: Cleanup): void {
  if (TestRunner.getCurrentTest() === undefined) at_end_of_file.push(cleanup)
  else onTestFinished(cleanup)
}
