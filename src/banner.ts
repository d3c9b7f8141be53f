import type { Model } from './config/model.ts'
import type { Machine } from './machine.ts'

/** What `npm start` prints: where it listens, the demo key once, and a command that works when pasted. */
export function banner(weir: Machine): string {
  const models = [...weir.configuration.catalogue.models.values()].filter((model) => model.endpoints.length > 0)
  const lines = ['']
  if (weir.url === null) lines.push('This machine has no gateway: requests go to those that have one.')
  else lines.push(`Weir is listening on ${weir.url}  (OpenAI base URL: ${weir.url}/v1)`)
  lines.push(`Admin and metrics on ${weir.admin_url}`, '')
  if (weir.configuration.settings.mode === 'demo') lines.push(...modelLines(models), '')
  if (weir.demo_key !== null) {
    lines.push('Demo key, shown this once:', weir.demo_key, '')
    const chat = models.find((model) => model.kind === 'chat')
    const name = weir.configuration.routes.has('auto') ? 'auto' : chat?.id
    if (chat !== undefined && name !== undefined && weir.url !== null) lines.push('Try it:', curlFor(weir.url, weir.demo_key, name), '')
  } else {
    lines.push('Make a key with: npm run weir -- key create --tenant <tenant> --project <project>', '')
  }
  return lines.join('\n')
}

/** Models listed one by one before the rest is told as a number. */
const MAX_LISTED = 8

/** Models that a provider serves, and the first of those that the sandbox stands in for. */
function modelLines(models: readonly Model[]): string[] {
  const real = models.filter(({ endpoints }) => endpoints.some(({ sandbox }) => !sandbox))
  const played = models.filter((model) => !real.includes(model))
  const listed = [...real.slice(0, MAX_LISTED), ...played.slice(0, Math.max(1, MAX_LISTED - real.length))]
  const rest = models.length - listed.length
  const lines = models.filter((model) => listed.includes(model)).map((model) => `  ${model.id.padEnd(24)} ${servedBy(model)}`)
  return rest === 0
    ? lines
    : [...lines, `  and ${rest} more: GET /v1/models lists them, npm run weir -- doctor says which keys they wait for`]
}

function servedBy(model: Model): string {
  const sandbox = model.endpoints.every((endpoint) => endpoint.sandbox)
  if (!sandbox) return model.endpoints.map((endpoint) => endpoint.id).join(', ')
  const why = model.inactive.map(({ reason }) => reason).join('; ')
  return `sandbox${why === '' ? '' : ` (${why})`}`
}

/** One command for a POSIX shell. */
export function curlFor(url: string, key: string, model: string): string {
  const body = JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: '用一句话介绍都江堰' }] })
  return `curl -N ${url}/v1/chat/completions -H 'Authorization: Bearer ${key}' -H 'Content-Type: application/json' -d '${body}'`
}

/** A start that failed, in words that say what to do. */
export function explainStartFailure(error: unknown): string {
  if (!(error instanceof Error)) return `Weir could not start: ${String(error)}`
  const { code, port } = error as NodeJS.ErrnoException & { port?: number }
  if (code === 'EADDRINUSE')
    return `Weir could not start: port ${port ?? '?'} is in use. Stop what listens there, or set WEIR_PORT and WEIR_ADMIN_PORT.`
  if (code === 'EACCES') return `Weir could not start: ${error.message}. Choose a port above 1023, or a data directory that may be written.`
  return `Weir could not start: ${error.message}`
}
