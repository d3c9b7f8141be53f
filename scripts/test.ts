/**
 * `npm test`: every static step, then every tier of tests, stopping at the first that fails.
 *
 *   npm test -- --only unit,property     these steps alone
 *   npm test -- tests/unit/x.test.ts     these files alone (further flags go to vitest)
 *
 * `WEIR_TEST_MINUTES` is how long all of it may take: 25, unless more rounds are asked for.
 * The last line is `N passed, N failed[, N skipped]`; a static step counts as one.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endWithParent, runStep, STATIC_STEPS, type Step } from './steps.ts'

const TOTAL_LIMIT_MS = Number(process.env['WEIR_TEST_MINUTES'] ?? 25) * 60_000
const NAMED_SKIPS = 20
const DEFAULT_FAULT_ROUNDS = '6'
/** In the order of what tells most in least time. Each is a project of vitest.config.ts, and must have tests. */
const TIERS = ['tidy', 'unit', 'property', 'conformance', 'integration', 'faults', 'e2e']

interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

/** The part that is read of what vitest's JSON reporter writes. */
interface VitestReport {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly status: string
    readonly assertionResults: ReadonlyArray<{ readonly status: string; readonly fullName: string }>
  }>
}

interface Request {
  readonly only: readonly string[] | null
  readonly files: readonly string[]
}

/** What is asked for, or what is wrong with it. */
function parseArguments(argv: readonly string[]): Request | string {
  const at = argv.indexOf('--only')
  if (at === -1) return { only: argv.length === 0 ? null : [], files: argv }
  const only = (argv[at + 1] ?? '').split(',')
  const known = [...STATIC_STEPS.map((step) => step.name), ...TIERS]
  const unknown = only.filter((name) => !known.includes(name))
  if (unknown.length > 0) return `--only takes some of ${known.join(', ')}; there is no ${unknown.join(', ') || 'empty one'}`
  return { only, files: argv.toSpliced(at, 2) }
}

function countOf(report: VitestReport): Count {
  const broken_files = report.testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0)
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + broken_files.length,
    skipped: report.numPendingTests + report.numTodoTests,
  }
}

function skippedNames(report: VitestReport): string[] {
  const tests = report.testResults.flatMap((file) => file.assertionResults)
  const names = tests.filter((test) => ['pending', 'skipped', 'todo'].includes(test.status)).map((test) => test.fullName)
  return names.length <= NAMED_SKIPS ? names : [...names.slice(0, NAMED_SKIPS), `… and ${names.length - NAMED_SKIPS} more`]
}

function readReport(path: string): VitestReport | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as VitestReport
  } catch (error) {
    console.log(`vitest wrote no report: ${String(error)}`)
    return null
  }
}

/** Runs vitest once. Ended badly without a failed test, or no test at all, is one failure. */
async function runVitest(name: string, args: readonly string[], limit_ms: number): Promise<Count> {
  const folder = mkdtempSync(join(tmpdir(), 'weir-report-'))
  const output = join(folder, 'report.json')
  const command: Step['command'] = ['vitest', 'run', ...args, '--reporter=default', '--reporter=json', `--outputFile.json=${output}`]
  const ok = await runStep({ name, command, limit_ms }, { WEIR_FAULT_ROUNDS: process.env['WEIR_FAULT_ROUNDS'] ?? DEFAULT_FAULT_ROUNDS })
  const report = readReport(output)
  rmSync(folder, { recursive: true, force: true })
  const count = report === null ? { passed: 0, failed: 0, skipped: 0 } : countOf(report)
  const empty = count.passed + count.failed + count.skipped === 0
  if (report !== null && count.skipped > 0) console.log(`${name}: skipped\n  ${skippedNames(report).join('\n  ')}\n`)
  if (empty) console.log(`${name}: nothing was tested`)
  return (!ok || empty) && count.failed === 0 ? { ...count, failed: 1 } : count
}

async function runStatic(step: Step): Promise<Count> {
  const ok = await runStep(step)
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 }
}

/** The runs asked for, in order, each a name and what starts it with the time that is left. */
function plan(request: Request): Array<{ name: string; run: (left_ms: number) => Promise<Count> }> {
  if (request.only === null || request.only.length > 0) {
    const wanted = (name: string): boolean => request.only?.includes(name) ?? true
    const statics = STATIC_STEPS.filter((step) => wanted(step.name)).map((step) => ({ name: step.name, run: () => runStatic(step) }))
    const tiers = TIERS.filter(wanted).map((name) => ({
      name,
      run: (left_ms: number) => runVitest(name, [`--project=${name}`, ...request.files], left_ms),
    }))
    return [...statics, ...tiers]
  }
  return [{ name: 'tests', run: (left_ms) => runVitest('tests', request.files, left_ms) }]
}

async function main(request: Request): Promise<void> {
  endWithParent()
  const started_at = performance.now()
  let total: Count = { passed: 0, failed: 0, skipped: 0 }
  for (const { name, run } of plan(request)) {
    const left_ms = TOTAL_LIMIT_MS - (performance.now() - started_at)
    const count = await run(left_ms)
    total = { passed: total.passed + count.passed, failed: total.failed + count.failed, skipped: total.skipped + count.skipped }
    if (count.failed === 0) continue
    console.log(`stopped at ${name}: npm test -- --only ${name} runs it alone`)
    break
  }
  console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0
}

const request = parseArguments(process.argv.slice(2))
if (typeof request === 'string') {
  console.error(request)
  process.exitCode = 2
} else {
  await main(request)
}
