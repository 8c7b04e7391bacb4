import type { Failure } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { NeighbourWriter } from '../kernel/neighbour-records.js'
import { checkEnding } from '../kernel/netlink-errors.js'
import { giveBack } from '../kernel/record-buffers.js'
import { refusals, type NativeOutcome } from '../kernel/xfrm-channel.js'
import type { Phase } from './phases.js'

/** Operations handed to the kernel's thread at a time: some sends, so that it has work while the next are written. */
const SLICE = 2048

const ENOENT = 2
const ENODEV = 19

/** What takes records: a NeighbourChannel. */
export interface Committer {
  commit(records: Uint8Array): Promise<NativeOutcome>
}

/** What carrying out phases came to. */
export interface Execution {
  /** Operations that the kernel took. */
  operations: number
  added: number
  updated: number
  removed: number
  failures: Failure[]
  /** Subjects of failures, by phase. */
  failed: Map<Phase, Set<unknown>>
  /** The link went, and with it all of its entries. */
  isLinkGone: boolean
}

export function nothingDone(): Execution {
  return { operations: 0, added: 0, updated: 0, removed: 0, failures: [], failed: new Map(), isLinkGone: false }
}

export function merged(one: Execution, other: Execution): Execution {
  return {
    operations: one.operations + other.operations,
    added: one.added + other.added,
    updated: one.updated + other.updated,
    removed: one.removed + other.removed,
    failures: [...one.failures, ...other.failures],
    failed: new Map([...one.failed, ...other.failed]),
    isLinkGone: one.isLinkGone || other.isLinkGone,
  }
}

/** Subjects of a phase, from one on and up to another. */
interface Range {
  readonly phase: Phase
  readonly from: number
  readonly to: number
}

/**
 * Carries out phases one after the other, in slices: the next one is written while the kernel works on the one before.
 *
 * @param link its index
 * @throws XfrmeshError if it could not be carried to its end; what the kernel was not seen to take is not settled
 */
export async function carryOut(channel: Committer, link: number, phases: readonly Phase[]): Promise<Execution> {
  const executor = new Executor()
  const writer = new NeighbourWriter(link, SLICE)
  let before: Promise<void> | undefined
  for (const slice of slices(phases)) {
    await write(writer, slice)
    const records = writer.take()
    const committed = channel.commit(records)
    await before
    before = executor.settle(slice, committed).finally(() => giveBack(records))
    if (executor.error !== undefined) break
  }
  await before
  executor.check()
  return executor.result
}

function* slices(phases: readonly Phase[]): Generator<Range[]> {
  let slice: Range[] = []
  let room = SLICE
  for (const phase of phases) {
    for (let from = 0; from < phase.subjects.length;) {
      const to = Math.min(phase.subjects.length, from + room)
      slice.push({ phase, from, to })
      room -= to - from
      from = to
      if (room > 0) continue
      yield slice
      slice = []
      room = SLICE
    }
  }
  if (slice.length > 0) yield slice
}

async function write(writer: NeighbourWriter, slice: readonly Range[]): Promise<void> {
  const pace = new Pace()
  for (const { phase, from, to } of slice) {
    for (let i = from; i < to; i++) {
      phase.write(writer, phase.subjects[i])
      if (pace.isDue) await pace.breathe()
    }
  }
}

class Executor {
  readonly result = nothingDone()
  /** What broke it off. */
  error: Error | undefined

  /** @throws what broke it off */
  check(): void {
    if (this.error !== undefined) throw this.error
  }

  /** Settles what came of a slice. Never rejects. */
  async settle(slice: readonly Range[], committed: Promise<NativeOutcome>): Promise<void> {
    try {
      const outcome = await committed
      const refused = refusals(outcome)
      let refusal = refused.next().value
      let index = 0
      const pace = new Pace()
      for (const { phase, from, to } of slice) {
        for (let i = from; i < to && index < outcome.sent; i++, index++) {
          if (pace.isDue) await pace.breathe()
          if (refusal?.index === index) {
            this.#refused(phase, phase.subjects[i], refusal)
            refusal = refused.next().value
          } else {
            this.#done(phase, phase.subjects[i])
          }
        }
      }
      checkEnding('commit', outcome)
    } catch (error) {
      this.error ??= error as Error
    }
  }

  #done(phase: Phase, subject: unknown): void {
    this.result.operations++
    if (phase.isDeletion) this.result.removed++
    else if (phase.isUpdate(subject)) this.result.updated++
    else this.result.added++
    phase.settle(subject)
  }

  #refused(phase: Phase, subject: unknown, refusal: Omit<Failure, 'subject' | 'operation'>): void {
    const isLinkGone = refusal.errno === ENODEV
    if (isLinkGone) this.result.isLinkGone = true
    // What is not there any more need not be deleted.
    if (phase.isDeletion && (isLinkGone || refusal.errno === ENOENT)) {
      phase.settle(subject)
      return
    }
    const { errno, code, message } = refusal
    this.result.failures.push({ ...phase.describe(subject), errno, code, message })
    const { failed } = this.result
    failed.set(phase, (failed.get(phase) ?? new Set()).add(subject))
  }
}
