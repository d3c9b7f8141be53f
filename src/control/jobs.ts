import type { OnProgress } from '../storage/books.ts'
import { AdminProblem } from './problem.ts'

export type JobKind = 'audit' | 'rebuild' | 'archive' | 'archive verify'

/** Work that may take longer than a caller wants to wait for one answer. */
export interface Job {
  readonly id: number
  readonly kind: JobKind
  state: 'running' | 'done' | 'failed'
  progress: Parameters<OnProgress>[0] | null
  result: object | null
  error: string | null
}

/** Ended jobs that can still be asked about. */
const MAX_KEPT = 20

/** Runs one job at a time, and one audit beside it, and remembers how the latest ended. */
export class Jobs {
  readonly #jobs = new Map<number, Job>()
  #next_id = 1

  /**
   * Starts a job and answers at once; ask for it by its id.
   * @throws AdminProblem `conflict` while another runs; audits only look, so they wait for each other alone
   */
  start(kind: JobKind, work: (on_progress: OnProgress) => Promise<object>): Job {
    const running = [...this.#jobs.values()].find((job) => job.state === 'running' && (job.kind === 'audit') === (kind === 'audit'))
    if (running !== undefined) throw new AdminProblem('conflict', `${running.kind} is running (job ${running.id}); wait until it has ended`)
    const job: Job = { id: this.#next_id, kind, state: 'running', progress: null, result: null, error: null }
    this.#next_id += 1
    this.#jobs.set(job.id, job)
    for (const id of [...this.#jobs.keys()].slice(0, -MAX_KEPT)) this.#jobs.delete(id)
    void this.#run(job, work)
    return job
  }

  /** @throws AdminProblem `not_found` */
  find(id: string): Job {
    const job = this.#jobs.get(Number(id))
    if (job === undefined)
      throw new AdminProblem('not_found', `There is no job ${id.slice(0, 20)}; only the last ${MAX_KEPT} are remembered.`)
    return job
  }

  async #run(job: Job, work: (on_progress: OnProgress) => Promise<object>): Promise<void> {
    try {
      job.result = await work((progress) => void (job.progress = progress))
      job.state = 'done'
    } catch (error) {
      job.error = error instanceof Error ? error.message : String(error)
      job.state = 'failed'
    }
  }
}

/** A job as callers see it. */
export function jobView({ id, kind, state, progress, result, error }: Job): object {
  return { object: 'job', id, kind, state, progress, result, error }
}
