import { type Clock, systemClock } from '../../src/base/clock.ts'
import { run } from '../../src/cli/run.ts'

export interface Outcome {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs a command line in this process. */
export async function runCommand(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  clock: Clock = systemClock(),
): Promise<Outcome> {
  let [out, err] = ['', '']
  const context = { env, clock, out: (text: string) => void (out += text), err: (text: string) => void (err += text) }
  const code = await run(args, context, {
    version: '1.2.3',
    serve: () => Promise.resolve(),
    moveBooks: () => Promise.reject(new Error('no test of these moves anything')),
  })
  return { code, out, err }
}
