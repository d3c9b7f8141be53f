import { Worker } from 'node:worker_threads'
import type { ArchiveFacts } from '../sql/archive-file.ts'
import { JournalUnavailable } from './errors.ts'
import type { ArchiveTask, FromArchiver } from './protocol.ts'

/** Runs one task in a thread of its own. @throws Error with what is wrong with the file, or kept it from being written */
export function runArchiver(task: ArchiveTask, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
  return heardFrom(new Worker(new URL('./archive-worker.ts', import.meta.url), { workerData: task, execArgv: [] }), on_lines)
}

/** What an archiver's thread comes to. */
export function heardFrom(worker: Worker, on_lines: (lines: number) => void): Promise<ArchiveFacts> {
  return new Promise((resolve, reject) => {
    worker.on('message', (message: FromArchiver) => {
      if (message.kind === 'lines') on_lines(message.lines)
      else if (message.kind === 'done') resolve(message.facts)
      else reject(new Error(message.message))
    })
    worker.on('error', (cause) => reject(new JournalUnavailable('crashed', 'the archiver failed', cause)))
    worker.on('exit', () => reject(new JournalUnavailable('closed', 'the archiver ended early')))
  })
}
