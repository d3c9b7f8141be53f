/** CPU profiles of a running Node process and of its worker threads, through its inspector port. */
import type { Profiler } from 'node:inspector'
import { setTimeout as sleep } from 'node:timers/promises'

const OPEN_LIMIT_MS = 10_000
const ANSWER_LIMIT_MS = 60_000
const POLL_MS = 50

export type Profile = Profiler.Profile

/** How to start a process whose threads can be profiled at this port. Nothing is printed about it. */
export function inspectorOptions(port: number): readonly string[] {
  return [`--inspect=127.0.0.1:${port}`, '--inspect-publish-uid=http']
}

interface Message {
  readonly id?: number
  readonly method?: string
  /** Of the events of the domain NodeWorker. */
  readonly params?: { readonly sessionId?: string; readonly message?: string; readonly workerInfo?: { readonly url: string } }
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

/** A thread that answers to the inspector's protocol. */
class Thread {
  readonly #send: (text: string) => void
  readonly #waiting = new Map<number, { resolve(result: unknown): void; reject(error: Error): void }>()
  #next_id = 1

  constructor(send: (text: string) => void) {
    this.#send = send
  }

  post(method: string, params: object = {}): Promise<unknown> {
    const id = this.#next_id++
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method} was not answered within ${ANSWER_LIMIT_MS} ms`)), ANSWER_LIMIT_MS)
      const ended = <T>(then: (value: T) => void): ((value: T) => void) => {
        return (value) => {
          clearTimeout(timer)
          then(value)
        }
      }
      this.#waiting.set(id, { resolve: ended(resolve), reject: ended(reject) })
      this.#send(JSON.stringify({ id, method, params }))
    })
  }

  answered({ id, result, error }: Message): void {
    const waiting = this.#waiting.get(id ?? 0)
    this.#waiting.delete(id ?? 0)
    if (error !== undefined) waiting?.reject(new Error(error.message))
    else waiting?.resolve(result)
  }
}

/** An inspected process: its main thread, and its workers by the URL of their file. */
export class Inspector {
  readonly #socket: WebSocket
  readonly #main: Thread
  readonly #workers = new Map<string, { readonly url: string; readonly thread: Thread }>()

  private constructor(socket: WebSocket) {
    this.#socket = socket
    this.#main = new Thread((text) => socket.send(text))
    socket.addEventListener('message', ({ data }) => this.#hear(JSON.parse(String(data)) as Message))
  }

  static async open(port: number): Promise<Inspector> {
    const socket = new WebSocket(await addressOf(port))
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve)
      socket.addEventListener('error', () => reject(new Error('the inspector refused the connection')))
    })
    const inspector = new Inspector(socket)
    await inspector.#main.post('NodeWorker.enable', { waitForDebuggerOnStart: false })
    return inspector
  }

  close(): void {
    this.#socket.close()
  }

  /** Profiles the main thread, and the first worker whose file ends so, while `work` runs. */
  async profile(
    worker_file: string,
    interval_us: number,
    work: () => Promise<void>,
  ): Promise<{ readonly main: Profile; readonly worker: Profile }> {
    const worker = [...this.#workers.values()].find(({ url }) => url.endsWith(worker_file))?.thread
    if (worker === undefined) throw new Error(`no thread runs ${worker_file}`)
    const threads = [this.#main, worker]
    for (const thread of threads) {
      await thread.post('Profiler.enable')
      await thread.post('Profiler.setSamplingInterval', { interval: interval_us })
    }
    await Promise.all(threads.map((thread) => thread.post('Profiler.start')))
    await work()
    const [main, other] = await Promise.all(threads.map(async (thread) => (await thread.post('Profiler.stop')) as { profile: Profile }))
    for (const thread of threads) await thread.post('Profiler.disable')
    if (main === undefined || other === undefined) throw new Error('a thread gave no profile')
    return { main: main.profile, worker: other.profile }
  }

  #hear(message: Message): void {
    const { method, params } = message
    if (method === undefined) return this.#main.answered(message)
    const { sessionId: session = '', workerInfo, message: text = '' } = params ?? {}
    if (method === 'NodeWorker.attachedToWorker') {
      const thread = new Thread((order) => void this.#main.post('NodeWorker.sendMessageToWorker', { sessionId: session, message: order }))
      this.#workers.set(session, { url: workerInfo?.url ?? '', thread })
    }
    if (method === 'NodeWorker.receivedMessageFromWorker') {
      this.#workers.get(session)?.thread.answered(JSON.parse(text) as Message)
    }
  }
}

async function addressOf(port: number): Promise<string> {
  for (let waited_ms = 0; waited_ms < OPEN_LIMIT_MS; waited_ms += POLL_MS) {
    try {
      const [target] = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as { webSocketDebuggerUrl: string }[]
      if (target !== undefined) return target.webSocketDebuggerUrl
    } catch (error) {
      // The port opens while the process starts.
      if (!(error instanceof TypeError)) throw error
    }
    await sleep(POLL_MS)
  }
  throw new Error(`no inspector at port ${port} within ${OPEN_LIMIT_MS} ms`)
}
