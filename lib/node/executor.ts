import { formatAddress } from '../base/address.js'
import type { Failure } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { viewOf } from '../kernel/attributes.js'
import { checkEnding } from '../kernel/netlink-errors.js'
import { isPolicyRecord, recordLength } from '../kernel/record-identity.js'
import { LITTLE_ENDIAN, Operation, Policy, RecordReader, RecordWriter, State } from '../kernel/records.js'
import { Ending, type NativeOutcome, type Refusal, refusals } from '../kernel/xfrm-channel.js'
import { TableBuilder } from '../kernel/xfrm-keys.js'
import { DIRECTION_FWD, DIRECTION_IN } from '../kernel/xfrm-names.js'
import type { Belonging } from './belonging.js'
import type { KeyDeriver } from './derive.js'
import { type Overlaps, wipeAll } from './overlap.js'
import type { Phase, Plan } from './plan.js'
import type { XfrmPort } from './port.js'
import type { Sequences } from './sequences.js'
import type { Remote } from './settings.js'

/** Operations encoded at a time: one slice while the kernel works on the one before. */
const SLICE = 1024
const IN_FLIGHT = 2

const ENOENT = 2
const ESRCH = 3
const ENOSYS = 38

/** What carrying out a plan came to. */
export interface Execution {
  /** Operations that the kernel took. */
  operations: number
  added: number
  updated: number
  removed: number
  failures: Failure[]
  /** Owners whom a failure concerns. */
  readonly failed: Set<number>
  /** The signal ended it before its end. */
  aborted: boolean
  /** All that decrypts is in place, of each owner. */
  decrypts: boolean
}

export interface ExecutionOptions {
  signal?: AbortSignal | undefined
  /** Called with the operations carried out so far and their sum. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

export function nothingDone(): Execution {
  return {
    operations: 0,
    added: 0,
    updated: 0,
    removed: 0,
    failures: [],
    failed: new Set(),
    aborted: false,
    decrypts: false,
  }
}

/** What an executor needs to know of the owners of objects. */
export interface Owners {
  readonly belonging: Belonging
  readonly deriver: KeyDeriver
  readonly sequences: Sequences
  readonly overlaps: Overlaps
  readonly algorithms: readonly string[]
  /** The node that owns states; undefined for those that are no node's. */
  node(owner: number): Remote | undefined
  /** What failures call an owner. */
  name(owner: number): string
}

/**
 * Carries out a plan, phase after phase. Keys are derived slice by slice, and wiped once the kernel has them.
 * @throws XfrmeshError if it could not be carried to its end, other than by the signal: what the kernel then has is not known
 */
export async function carryOut(
  xfrm: XfrmPort,
  plan: Plan,
  owners: Owners,
  options: ExecutionOptions,
): Promise<Execution> {
  const executor = new Executor(xfrm, plan, owners, options)
  for (const phase of plan.phases) {
    if (!(await executor.phase(phase))) break
    if (phase.name === 'decrypt') executor.result.decrypts = executor.result.failed.size === 0
  }
  return executor.result
}

class Executor {
  readonly result = nothingDone()
  readonly #xfrm: XfrmPort
  readonly #total: number
  readonly #owners: Owners
  readonly #options: ExecutionOptions
  readonly #pace = new Pace(8)
  #done = 0

  constructor(xfrm: XfrmPort, plan: Plan, owners: Owners, options: ExecutionOptions) {
    this.#xfrm = xfrm
    this.#total = plan.operations
    this.#owners = owners
    this.#options = options
  }

  /** False if nothing may follow. */
  async phase(planned: Phase): Promise<boolean> {
    const phase = without(planned, this.result.failed)
    const parts = await this.#owners.overlaps.part(phase)
    try {
      for (const part of parts) if (!(await this.#part(part))) return false
    } finally {
      for (const { keys } of parts) wipeAll(keys)
    }
    return !(phase.name === 'guard' && this.result.failures.length > 0)
  }

  /** False if nothing may follow. */
  async #part(phase: Phase): Promise<boolean> {
    const reader = new RecordReader(phase.records)
    const waiting: Promise<boolean>[] = []
    let going = true
    for (let first = 0; first < phase.owners.length && going; first += SLICE) {
      const last = Math.min(phase.owners.length, first + SLICE)
      const tables = new TableBuilder()
      let [from, to] = [0, 0]
      try {
        for (let i = first; i < last; i++) {
          reader.next()
          if (i === first) from = reader.start
          to = reader.start + reader.length
          if (takesKeys(reader)) this.#fill(phase, i, reader.start, tables)
          if (this.#pace.isDue) await this.#pace.breathe()
        }
      } catch (error) {
        tables.wipe()
        throw error
      }
      const slice = phase.records.subarray(from, to)
      const settled = this.#commit(phase, slice, first, tables)
      // The loop awaits it; until then a rejection is not unhandled.
      settled.catch(() => undefined)
      waiting.push(settled)
      if (waiting.length === IN_FLIGHT) going = await waiting.shift()!
    }
    for (const settled of waiting) going = (await settled) && going
    return going
  }

  /** Gives a state that is to be added its keys, and its sequence numbers where it had some before. */
  #fill({ records, owners, keys = [] }: Phase, i: number, at: number, tables: TableBuilder): void {
    const { deriver, sequences, belonging } = this.#owners
    const remote = this.#owners.node(owners[i]!)
    if (remote !== undefined) {
      const print = deriver.fill(records, at, remote, tables)
      if (!sequences.start(records, at, print, belonging.isInbound(records, at))) this.#warn(records, at, owners[i]!)
      return
    }
    const view = viewOf(records)
    for (const offset of [State.cipherKey, State.authKey]) {
      const key = keys[view.getUint32(at + offset, LITTLE_ENDIAN)]
      if (key !== undefined) view.setUint32(at + offset, tables.key(key, key.length), LITTLE_ENDIAN)
    }
  }

  async #commit(phase: Phase, slice: Uint8Array, first: number, tables: TableBuilder): Promise<boolean> {
    const { algorithms } = this.#owners
    let outcome: NativeOutcome
    try {
      outcome = await this.#xfrm.commit(slice, { keys: tables.keys, algorithms }, this.#options.signal)
    } finally {
      tables.wipe()
    }
    if (outcome.ending !== Ending.cancelled) checkEnding('commit', outcome)
    const refused = refusals(outcome)
    let refusal = refused.next().value
    const reader = new RecordReader(slice)
    for (let i = 0; i < outcome.sent; i++) {
      reader.next()
      if (refusal?.index !== i) {
        this.#count(reader.u8(State.operation))
        continue
      }
      const gone = isDeletion(reader.u8(State.operation)) && (refusal.errno === ESRCH || refusal.errno === ENOENT)
      if (!gone) this.#fail(slice, reader.start, phase.owners[first + i]!, refusal)
      refusal = refused.next().value
    }
    this.#done += outcome.sent
    this.#options.onProgress?.(this.#done, this.#total)
    if (outcome.ending !== Ending.cancelled) return true
    this.result.aborted = true
    return false
  }

  #fail(records: Uint8Array, at: number, owner: number, refusal: Refusal): void {
    const message = refusal.message + icvHint(records, at, refusal.errno)
    this.#tell(records, at, owner, { ...refusal, message })
    this.result.failed.add(owner)
  }

  /** It is added all the same: most likely it works. */
  #warn(records: Uint8Array, at: number, owner: number): void {
    const message =
      'how far its sequence numbers had come is not known, and the other end may take its packets for old or forged: prepare() and commit() another key'
    this.#tell(records, at, owner, { errno: 0, code: 'ERR_XFRMESH_SEQUENCE', message })
  }

  #tell(records: Uint8Array, at: number, owner: number, { errno, code, message }: Omit<Refusal, 'index'>): void {
    const operation = describe(records, at, this.#owners.belonging)
    const subject = `${this.#owners.name(owner)}: ${endsOf(records, at)}`
    this.result.failures.push({ subject, operation, errno, code, message })
  }

  #count(operation: number): void {
    this.result.operations++
    if (isDeletion(operation)) this.result.removed++
    else if (operation === Operation.updateState || operation === Operation.updatePolicy) this.result.updated++
    else this.result.added++
  }
}

/** What an operation does, as reports name it: `add inbound SA`. */
export function describe(records: Uint8Array, at: number, belonging: Belonging): string {
  const operation = records[at + State.operation]!
  const verb = isDeletion(operation)
    ? 'delete'
    : operation === Operation.updateState || operation === Operation.updatePolicy
      ? 'update'
      : 'add'
  if (!isPolicyRecord(records, at)) return `${verb} ${belonging.isInbound(records, at) ? 'inbound' : 'outbound'} SA`
  const direction = records[at + Policy.direction]!
  return `${verb} ${direction === DIRECTION_IN ? 'in' : direction === DIRECTION_FWD ? 'fwd' : 'out'} policy`
}

/** `source to destination` of a state, or of what a policy selects. They are at the same offsets in both. */
export function endsOf(records: Uint8Array, at: number): string {
  const family = records[at + Policy.family]!
  const length = (offset: number) => (isPolicyRecord(records, at) ? `/${records[at + offset]!}` : '')
  const source = formatAddress(records, at + Policy.source, family) + length(Policy.sourcePrefix)
  const destination = formatAddress(records, at + Policy.destination, family) + length(Policy.destinationPrefix)
  return `${source} to ${destination}`
}

/** The kernel says no more than that it has no such algorithm. */
function icvHint(records: Uint8Array, at: number, errno: number): string {
  const reader = new RecordReader(records.subarray(at))
  reader.next()
  const tooLong = errno === ENOSYS && takesKeys(reader) && reader.u16(State.icvBits) > LONGEST_ICV_BITS
  return tooLong
    ? `: an ICV of ${reader.u16(State.icvBits)} bits, which no AEAD of the kernel has; 128 is the most`
    : ''
}

const LONGEST_ICV_BITS = 128

function takesKeys(reader: RecordReader): boolean {
  const operation = reader.u8(State.operation)
  return operation === Operation.addState || operation === Operation.updateState
}

function isDeletion(operation: number): boolean {
  return operation === Operation.deleteState || operation === Operation.deletePolicy
}

/** A phase without the operations of owners of whom something failed. */
function without(phase: Phase, failed: ReadonlySet<number>): Phase {
  if (failed.size === 0) return phase
  const writer = new RecordWriter()
  const owners: number[] = []
  let at = 0
  for (const owner of phase.owners) {
    const end = at + recordLength(phase.records, at)
    if (!failed.has(owner)) {
      writer.record(phase.records.subarray(at, end), phase.records[at + State.operation]!)
      owners.push(owner)
    }
    at = end
  }
  return { name: phase.name, records: writer.take(), owners }
}
