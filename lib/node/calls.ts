import { options as checkOptions } from '../base/check.js'
import { Aborted, InvalidArgument, InvalidState, PartialFailure, type Report } from '../base/errors.js'
import type { ExecutionOptions } from './executor.js'
import type { Followed } from './mesh.js'
import type { Entry } from './roster.js'

/** What a call may be given beside its subject. */
export interface NodeCallOptions {
  /** Ends the call between two sends to the kernel; it rejects with Aborted, whose report says what was applied. */
  signal?: AbortSignal
  /** Called as the kernel answers. */
  onProgress?: (progress: { done: number; total: number }) => void
}

/** Runs calls in the order made, one at a time, until it is closed. */
export class Calls {
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  /** @throws InvalidArgument; InvalidState once it is closed; Aborted if the signal came before its turn */
  run<T>(name: string, options: NodeCallOptions | undefined, work: (call: Call) => Promise<T>): Promise<T> {
    if (this.#closed) {
      return Promise.reject(new InvalidState(`${name}: the node's encryption is closed`, 'ERR_XFRMESH_CLOSED'))
    }
    const result = this.#last.then(() => work(Call.begin(name, options)))
    this.#last = result.catch(() => undefined)
    return result
  }

  /** Takes no more calls. Resolves once those made before are done. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#last
  }
}

/** A call in its turn. */
export class Call {
  readonly execution: ExecutionOptions
  readonly #name: string
  readonly #signal: AbortSignal | undefined
  readonly #started = performance.now()

  private constructor(name: string, execution: ExecutionOptions) {
    this.#name = name
    this.#signal = execution.signal
    this.execution = execution
  }

  static begin(name: string, given: NodeCallOptions = {}): Call {
    const { signal, onProgress } = checkOptions<NodeCallOptions>(given, 'options', ['signal', 'onProgress'])
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw new InvalidArgument('options.signal', 'an AbortSignal', signal)
    }
    if (onProgress !== undefined && typeof onProgress !== 'function') {
      throw new InvalidArgument('options.onProgress', 'a function', onProgress)
    }
    const call = new Call(name, { signal, onProgress: (done, total) => onProgress?.({ done, total }) })
    if (signal?.aborted === true) throw call.#aborted('before it began')
    return call
  }

  /** What it came to, in nodes. @throws PartialFailure or Aborted, with the report, if it was not all done */
  report(entries: readonly Entry[], done: Followed, requested = entries.length): Report {
    const { failures, operations, aborted, changed } = done
    const touched = entries.filter(({ owner, lack }) => changed.has(owner) || lack !== undefined)
    const lacking = aborted ? touched.length : entries.filter(({ lack }) => lack !== undefined).length
    const elapsedMs = performance.now() - this.#started
    const applied = touched.length - lacking
    const report = { requested, applied, unchanged: requested - touched.length, failures, operations, elapsedMs }
    if (aborted) throw this.#aborted(`after ${operations} operations; reconcile() completes it`, report)
    if (failures.length > 0) throw new PartialFailure(report)
    return report
  }

  #aborted(far: string, report?: Report): Aborted {
    return new Aborted(`${this.#name}: aborted ${far}`, report, { cause: this.#signal?.reason })
  }
}
