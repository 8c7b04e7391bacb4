import { boolean, options as checkOptions } from '../base/check.js'
import { Aborted, type Failure, InvalidArgument, PartialFailure, type Report } from '../base/errors.js'
import type { ExecutionOptions } from './executor.js'

/** Calls on an Overlay: what they are given, and what they report. */

/** What a call may be given beside its subject. */
export interface CallOptions {
  /** Ends the call between two sends to the kernel; it rejects with Aborted, whose report says what was applied. */
  signal?: AbortSignal
  /** Called as the kernel answers. */
  onProgress?: (progress: Progress) => void
}

export interface Progress {
  /** Netlink operations that the kernel has answered, and all that this call takes. */
  done: number
  total: number
}

/** A call in its turn. */
export interface Call {
  readonly name: string
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: Progress) => void) | undefined
  readonly started: number
  /** What `onProgress` threw. */
  readonly thrown: unknown[]
}

const known: Readonly<Record<string, readonly (keyof CallOptions | 'dryRun')[]>> = {
  reconcile: ['signal', 'onProgress', 'dryRun'],
  addEndpoints: ['signal'],
  removeEndpoints: ['signal'],
  other: ['signal', 'onProgress'],
}

export function callOptions(name: string, given: unknown): Pick<Call, 'signal' | 'onProgress'> {
  type Given = CallOptions & { dryRun?: boolean }
  const { signal, onProgress, dryRun } = checkOptions<Given>(given ?? {}, 'options', known[name] ?? known['other']!)
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new InvalidArgument('options.signal', 'an AbortSignal', signal)
  }
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw new InvalidArgument('options.onProgress', 'a function', onProgress)
  }
  boolean(dryRun ?? false, 'options.dryRun')
  return { signal, onProgress }
}

/** What a caller's function throws must not stop the work: the call rejects with it when all is done. */
export function executionOptions({ signal, onProgress, thrown }: Call): ExecutionOptions {
  if (onProgress === undefined) return { signal }
  return {
    signal,
    onProgress: (done, total) => {
      try {
        onProgress({ done, total })
      } catch (error) {
        thrown.push(error)
      }
    },
  }
}

/** What a call did: an Execution, or what it has in common with one. */
export interface Done {
  readonly operations: number
  readonly failures: readonly (Failure & { readonly peer?: number })[]
  readonly aborted: boolean
}

/**
 * The report of a call of whose `requested` items `changes` took doing, and `applied` are done.
 * @throws PartialFailure or Aborted, with it, if it was not all done
 */
export function reportOf(call: Call, done: Done, requested: number, changes: number, applied: number): Report {
  const { operations, aborted } = done
  const failures = done.failures.map(({ peer: _peer, ...failure }) => failure)
  const elapsedMs = performance.now() - call.started
  const report = { requested, applied, unchanged: requested - changes, failures, operations, elapsedMs }
  if (aborted) throw abortedError(call, report)
  if (failures.length > 0) throw new PartialFailure(report)
  return report
}

export function abortedError(call: Call, report?: Report): Aborted {
  const far =
    report === undefined ? 'before it began' : `after ${report.operations} operations; reconcile() completes it`
  return new Aborted(`${call.name}: aborted ${far}`, report, { cause: call.signal?.reason })
}
