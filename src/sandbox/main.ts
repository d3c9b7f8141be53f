import { parseArgs } from 'node:util'
import { DIRECTIVE_NAMES, FAULT_KINDS, FLAG_NAMES, LAYOUTS, parseDirectives, SHAPES, type PartialDirectives } from './directives.ts'
import { startSandbox } from './server.ts'

const DEFAULT_PORT = 18_080

const HELP = `Weir sandbox: a provider that needs no key and speaks the OpenAI dialect.

usage: npm run sandbox -- [--port N] [--host H] [directives]

  --port N              port to listen on (${DEFAULT_PORT}; 0 for any free one)
  --host H              address to listen on (127.0.0.1)
  --shape S             where streams report usage: ${SHAPES.join(', ')}
  --layout L            whose chunks: ${LAYOUTS.join(', ')}
  --token-delay-ms N    wait before each token, --first-token-delay-ms N before the first
  --tokens N            length of every answer
  --fail JSON           e.g. '{"kind":"cut_middle","at":5}'; kinds: ${FAULT_KINDS.join(', ')}
  --help                this text

Every directive can be a default here, a member "sandbox" of a request body, or the header x-sandbox (JSON). All of them:
  ${DIRECTIVE_NAMES.map((name) => `--${name.replaceAll('_', '-')}`).join(' ')}

Its own count: GET /sandbox/served?request_id=&since=&limit= ; DELETE resets it.
`

interface Arguments {
  readonly help: boolean
  readonly port: number
  readonly host: string
  readonly defaults: PartialDirectives
}

/** @throws Error naming the argument that is wrong */
function parseArguments(argv: readonly string[]): Arguments {
  const names = DIRECTIVE_NAMES.map((name) => [name.replaceAll('_', '-'), name] as const)
  const options = Object.fromEntries(
    names.map(([option, name]) => [option, { type: FLAG_NAMES.has(name) ? ('boolean' as const) : ('string' as const) }]),
  )
  const own = { help: { type: 'boolean' }, port: { type: 'string' }, host: { type: 'string' } } as const
  const { values } = parseArgs({ args: [...argv], options: { ...options, ...own }, allowNegative: true })
  const given: Readonly<Record<string, unknown>> = values
  const directives = names.flatMap(([option, name]) => {
    const value = given[option]
    return value === undefined ? [] : [[name, typeof value === 'string' ? valueOf(value) : value] as const]
  })
  const port = Number(values.port ?? DEFAULT_PORT)
  if (!Number.isSafeInteger(port) || port < 0 || port > 65_535) throw new Error('--port must be a whole number from 0 to 65535')
  return {
    help: values.help ?? false,
    port,
    host: values.host ?? '127.0.0.1',
    defaults: parseDirectives(Object.fromEntries(directives)),
  }
}

/** A number, null, list or object in JSON; anything else is the text itself. */
function valueOf(value: string): unknown {
  return /^(?:-?\d+(?:\.\d+)?|null|\[.*\]|\{.*\})$/s.test(value) ? JSON.parse(value) : value
}

async function run(argv: readonly string[]): Promise<void> {
  const { help, port, host, defaults } = parseArguments(argv)
  if (help) {
    process.stdout.write(HELP)
    return
  }
  const sandbox = await startSandbox({ port, host, defaults })
  process.stdout.write(`Weir sandbox listening on ${sandbox.url}\n`)
  let closing = false
  const end = (): void => {
    if (closing) return
    closing = true
    sandbox.close().then(() => process.exit(0), fail)
  }
  // The parent that started it through bin/run.mjs is gone.
  process.once('disconnect', end)
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, end)
}

function fail(error: unknown): never {
  process.stderr.write(`weir sandbox: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}

await run(process.argv.slice(2)).catch(fail)
