import type { Failure } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { checkEnding } from '../kernel/netlink-errors.js'
import { giveBack } from '../kernel/record-buffers.js'
import { RecordWriter } from '../kernel/records.js'
import { Ending, type NativeOutcome, refusals, type SideTables } from '../kernel/xfrm-channel.js'
import { describeOp } from './describe.js'
import {
  additionsOf,
  codeOf,
  concernsPeer,
  hasMessage,
  isDeletion,
  isUpdate,
  NO_PEER,
  type OpCode,
  OP_WORDS,
  type Phase,
  releaseOps,
} from './ops.js'
import type { Plan, PlanFailure } from './plan.js'
import type { XfrmPort } from './ports.js'
import { giveUp, settle, without } from './settle.js'
import type { Damage, Is, Should } from './state.js'
import { algorithms, OpWriter } from './writer.js'

/** Operations handed to the kernel's thread at a time: some sends, so that it has work while the next are encoded. */
const SLICE = 2048
/** Slices given to the kernel and not yet answered: one at work, one ready. */
const IN_FLIGHT = 2

const ESRCH = 3
const ENOENT = 2

/** What carrying out a plan came to. */
export interface Execution {
  /** Operations that the kernel took. */
  operations: number
  added: number
  updated: number
  removed: number
  /** With the slot of the peer that each is about, NO_PEER, or NETWORK. */
  failures: PlanFailure[]
  /** Slots of the peers that a failure concerns. */
  failed: Set<number>
  /** The signal's abort ended it before its end. */
  aborted: boolean
}

export interface ExecutionOptions {
  signal?: AbortSignal | undefined
  /** Called with the operations carried out so far and their sum. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

type Refusal = Pick<Failure, 'errno' | 'code' | 'message'>

export function nothingDone(): Execution {
  return { operations: 0, added: 0, updated: 0, removed: 0, failures: [], failed: new Set(), aborted: false }
}

/**
 * Carries out the SAs and policies of a plan: phase after phase, each in slices, the next one encoded while the kernel
 * works on the one before. `is` follows what the kernel took. The plan's operations are gone after it.
 *
 * @throws XfrmeshError if it could not be carried to its end, other than by the signal; what the kernel then has is not known
 */
export async function carryOut(
  xfrm: XfrmPort,
  plan: Plan,
  is: Is,
  should: Should,
  damage: Damage,
  options: ExecutionOptions = {},
): Promise<Execution> {
  const executor = new Executor(xfrm, plan, is, should, damage, options)
  const additions = plan.phases.map(({ ops }) => (xfrm.boosted === undefined ? 0 : additionsOf(ops)))
  const all = additions.reduce((sum, each) => sum + each, 0)
  for (const [i, phase] of plan.phases.entries()) {
    const work = () => executor.phase(phase)
    const boosted = additions[i]! > 0 ? xfrm.boosted?.(all, work) : undefined
    if (await (boosted ?? work())) continue
    giveUp(plan.phases.slice(i), is)
    break
  }
  for (const { ops } of plan.phases) releaseOps(ops)
  return executor.result
}

class Executor {
  readonly result: Execution
  readonly #xfrm: XfrmPort
  readonly #total: number
  readonly #is: Is
  readonly #should: Should
  readonly #damage: Damage
  readonly #options: ExecutionOptions
  readonly #writer: OpWriter
  #done = 0

  constructor(xfrm: XfrmPort, plan: Plan, is: Is, should: Should, damage: Damage, options: ExecutionOptions) {
    this.#xfrm = xfrm
    this.#total = plan.operations
    this.#is = is
    this.#should = should
    this.#damage = damage
    this.#options = options
    this.#writer = OpWriter.of(should.form)
    this.result = nothingDone()
    for (const failure of plan.failures) this.result.failures.push(failure)
  }

  /** False if nothing may follow. */
  async phase(planned: Phase): Promise<boolean> {
    const phase = without(planned, this.result.failed, this.#is)
    const { failures } = this.result
    const before = failures.length
    const tables = { keys: this.#should.keyring.sideTable(), algorithms: algorithms(this.#should.form) }
    const writer = new RecordWriter()
    const waiting: Promise<boolean>[] = []
    const pace = new Pace()
    let going = true
    const { ops } = phase
    if (phase.name === 'decrypt') this.#is.claims.reserve(ops.length / OP_WORDS)
    for (let at = 0; at < ops.length && going; at += SLICE * OP_WORDS) {
      const end = Math.min(ops.length, at + SLICE * OP_WORDS)
      for (let i = at; i < end; i += OP_WORDS) {
        this.#writer.write(writer, ops[i]!, ops[i + 1]!, ops[i + 2]!, this.#is, this.#should, this.#damage)
        if (pace.isDue) await pace.breathe()
      }
      const outcome = writer.count > 0 ? this.#commit(writer, tables) : undefined
      const settled = this.#settleLater(phase, at, end, outcome, waiting.at(-1))
      // The loop awaits it; until then a rejection is not unhandled.
      settled.catch(() => undefined)
      waiting.push(settled)
      if (waiting.length === IN_FLIGHT) going = await waiting.shift()!
    }
    for (const settled of waiting) going = (await settled) && going
    return going && !(phase.name === 'guard' && failures.length > before)
  }

  /** Hands over what was written; its buffer is written in again once the kernel is done with it. */
  async #commit(writer: RecordWriter, tables: SideTables): Promise<NativeOutcome> {
    const records = writer.take()
    const outcome = await this.#xfrm.commit(records, tables, this.#options.signal)
    giveBack(records)
    return outcome
  }

  async #settleLater(
    phase: Phase,
    at: number,
    end: number,
    committed: Promise<NativeOutcome> | undefined,
    before: Promise<boolean> | undefined,
  ): Promise<boolean> {
    const outcome = await committed
    // In order, also where a slice takes no message: what shares an SA comes after what adds it.
    await before?.catch(() => undefined)
    if (outcome !== undefined && outcome.ending !== Ending.cancelled) checkEnding('commit', outcome)
    const refused = outcome === undefined ? undefined : refusals(outcome)
    let refusal = refused?.next().value
    let message = 0
    const pace = new Pace()
    for (let i = at; i < end; i += OP_WORDS) {
      if (pace.isDue) await pace.breathe()
      const head = phase.ops[i]!
      const subject = phase.ops[i + 1]!
      const spi = phase.ops[i + 2]!
      const code = codeOf(head)
      if (hasMessage(code)) {
        if (message === outcome!.sent) break
        if (refusal?.index === message++) {
          this.#refused(phase, head, subject, spi, refusal)
          refusal = refused!.next().value
          continue
        }
        this.#count(code)
      }
      if (!settle(this.#is, head, subject, spi, true)) {
        const message = 'the SA of the same SPI and key that it was to share could not be added'
        this.#fail(phase, head, subject, spi, { errno: 0, code: 'ERR_XFRMESH_SPI_COLLISION', message })
      }
    }
    this.#done += message
    this.#options.onProgress?.(this.#done, this.#total)
    if (outcome?.ending !== Ending.cancelled) return true
    this.result.aborted = true
    return false
  }

  #refused(phase: Phase, head: number, subject: number, spi: number, refusal: Refusal): void {
    const gone = refusal.errno === ESRCH || refusal.errno === ENOENT
    const ok = isDeletion(codeOf(head)) && gone
    settle(this.#is, head, subject, spi, ok)
    if (!ok) this.#fail(phase, head, subject, spi, refusal)
  }

  #fail(phase: Phase, head: number, subject: number, spi: number, why: Refusal): void {
    const step = describeOp(phase.name, head, subject, spi, this.#is, this.#should, this.#damage)
    const { errno, code, message } = why
    const peer = concernsPeer(codeOf(head)) ? subject : NO_PEER
    this.result.failures.push({ peer, subject: step.subject, operation: step.operation, errno, code, message })
    this.result.failed.add(peer)
  }

  #count(code: OpCode): void {
    this.result.operations++
    if (isDeletion(code)) this.result.removed++
    else if (isUpdate(code)) this.result.updated++
    else this.result.added++
  }
}
