import { array } from '../base/check.js'
import { NetlinkError, PartialFailure, XfrmeshError, type Failure } from '../base/errors.js'
import { errnoText } from '../kernel/netlink-errors.js'
import { Places } from './place.js'

/** What is done with each set of options. */
export interface Task<W, R> {
  /** As in `making it`. */
  readonly operation: string
  readonly check: (options: unknown, argument: string) => W
  readonly work: (want: W, places: Places) => Promise<R>
  readonly changed: (result: R) => boolean
}

/**
 * Checks one set of options, or a list of them, and works on them one after the other: the kernel does the same, under one
 * lock, however many sockets ask. A list is worked on to its end whatever fails.
 */
export async function forEach<W, R>(given: unknown, task: Task<W, R>): Promise<R | R[]> {
  const { check, work } = task
  const places = new Places()
  try {
    if (!Array.isArray(given)) return await work(check(given, 'options'), places)
    const all = array(given, 'options').map((options, i) => check(options, `options[${i}]`))
    return await workOn(all, places, task)
  } finally {
    await places.close()
  }
}

async function workOn<W, R>(all: readonly W[], places: Places, { operation, work, changed }: Task<W, R>): Promise<R[]> {
  const began = performance.now()
  const done: R[] = []
  const failures: Failure[] = []
  for (const [i, want] of all.entries()) {
    try {
      done.push(await work(want, places))
    } catch (error) {
      if (!(error instanceof XfrmeshError)) throw error
      failures.push(failure(`options[${i}]`, operation, error))
    }
  }
  if (failures.length === 0) return done
  const applied = done.filter(changed).length
  const report = {
    requested: all.length,
    applied,
    unchanged: done.length - applied,
    failures,
    operations: applied,
    elapsedMs: performance.now() - began,
  }
  throw new PartialFailure(report, 'the same call again does what is left')
}

function failure(subject: string, operation: string, error: XfrmeshError): Failure {
  const errno = error instanceof NetlinkError ? error.errno : 0
  return { subject, operation, errno, code: errno === 0 ? error.code : errnoText(errno)[0], message: error.message }
}
