import {
  attributeAt,
  identityKey,
  isPolicyRecord,
  recordAt,
  sameIdentity,
  sameRecord,
  startsOf,
} from '../kernel/record-identity.js'
import { Operation, Policy, RecordReader, RecordWriter, State } from '../kernel/records.js'
import { ACTION_BLOCK, DIRECTION_OUT, XFRMA } from '../kernel/xfrm-names.js'

/**
 * What makes what is what should be, both as records of the objects of each owner. Phases come in an order that breaks
 * nothing that works: what decrypts, then what encrypts, then the policies that turn to it; only then what is old goes,
 * what drops the rest at last.
 * If any of phase 'guard' fails, nothing may follow. An owner of whom anything failed keeps what it has from there on.
 */
export const phaseNames = [
  'guard',
  'decrypt',
  'encrypt',
  'select',
  'retire encryption',
  'retire decryption',
  'retire policies',
  'retire guard',
] as const
export type PhaseName = (typeof phaseNames)[number]

/** Operations of one phase: records, and the owner of each. */
export interface Phase {
  readonly name: PhaseName
  readonly records: Uint8Array
  readonly owners: readonly number[]
  /** Keys that records name by index, where they name none by token: of SAs that are not ours. The executor wipes them. */
  readonly keys?: readonly Uint8Array[]
}

/** One step of a plan, as a dry run shows it: plain JSON. */
export interface Step {
  phase: PhaseName | 'guard sets'
  operation: string
  /** The node, and the addresses of the SA or of what the policy selects. */
  subject: string
}

export interface Plan {
  readonly phases: readonly Phase[]
  readonly operations: number
  /** What each owner of whom anything is to be done has once that is done. */
  readonly after: ReadonlyMap<number, Uint8Array>
}

/** What a planner asks about an object found. */
export interface Judge {
  /** Whether it is an inbound SA, where it is an SA. */
  isInbound(records: Uint8Array, at: number): boolean
  /** Whether it stays though nobody asks for it. */
  keeps(records: Uint8Array, at: number): boolean
}

export class Planner {
  readonly #judge: Judge
  readonly #writers = new Map(phaseNames.map((name) => [name, new RecordWriter(1024)]))
  readonly #owners = new Map<PhaseName, number[]>(phaseNames.map((name) => [name, []]))
  readonly #after = new Map<number, Uint8Array>()

  constructor(judge: Judge) {
    this.#judge = judge
  }

  /** Plans for one owner. @param mayKeep whether the judge is asked what stays that nobody asks for; else nothing does */
  add(owner: number, is: Uint8Array, should: Uint8Array, mayKeep: boolean): void {
    if (Buffer.compare(is, should) === 0) return
    const found = startsOf(is)
    const left = new Set(found)
    let next = 0
    for (const at of startsOf(should)) {
      // Both are written in the same order, as a rule: the one after the last match is looked at first.
      const index = found.findIndex((_, i) => sameIdentity(is, found[(next + i) % found.length]!, should, at))
      if (index < 0) {
        this.#push(this.#phaseOf(should, at), owner, should, at, Operation.addState, Operation.addPolicy)
        continue
      }
      next = (next + index) % found.length
      const before = found[next++]!
      left.delete(before)
      if (!sameRecord(is, before, should, at)) this.#change(owner, is, before, should, at)
    }
    const kept: Uint8Array[] = []
    for (const at of backFirst(is, left)) {
      if (mayKeep && this.#judge.keeps(is, at)) kept.push(recordAt(is, at))
      else this.#push(this.#retirementOf(is, at), owner, is, at, Operation.deleteState, Operation.deletePolicy)
    }
    this.#after.set(owner, kept.length === 0 ? should : new Uint8Array(Buffer.concat([should, ...kept])))
  }

  finish(): Plan {
    const planned = phaseNames.map((name) => {
      return { name, records: this.#writers.get(name)!.take(), owners: this.#owners.get(name)! }
    })
    const phases = passedOn(planned)
    const operations = phases.reduce((sum, { owners }) => sum + owners.length, 0)
    return { phases, operations, after: this.#after }
  }

  #change(owner: number, is: Uint8Array, before: number, should: Uint8Array, at: number): void {
    const phase = this.#phaseOf(should, at)
    if (isPolicyRecord(should, at) || differInOutputMark(is, before, should, at)) {
      this.#push(phase, owner, should, at, Operation.updateState, Operation.updatePolicy)
      return
    }
    // The kernel changes nothing else of an SA. The guard holds while it is away.
    this.#push(phase, owner, is, before, Operation.deleteState, Operation.deletePolicy)
    this.#push(phase, owner, should, at, Operation.addState, Operation.addPolicy)
  }

  #push(name: PhaseName, owner: number, records: Uint8Array, at: number, ofState: number, ofPolicy: number): void {
    const operation = isPolicyRecord(records, at) ? ofPolicy : ofState
    this.#writers.get(name)!.record(recordAt(records, at), operation)
    this.#owners.get(name)!.push(owner)
  }

  #phaseOf(records: Uint8Array, at: number): PhaseName {
    if (isPolicyRecord(records, at)) return records[at + Policy.action] === ACTION_BLOCK ? 'guard' : 'select'
    return this.#judge.isInbound(records, at) ? 'decrypt' : 'encrypt'
  }

  #retirementOf(records: Uint8Array, at: number): PhaseName {
    if (isPolicyRecord(records, at))
      return records[at + Policy.action] === ACTION_BLOCK ? 'retire guard' : 'retire policies'
    return this.#judge.isInbound(records, at) ? 'retire decryption' : 'retire encryption'
  }
}

/**
 * What one owner loses and another gets, as when a node takes over a range, is one object to the kernel: it is deleted
 * right before it is added, not long after.
 */
function passedOn(phases: readonly Phase[]): readonly Phase[] {
  const [first, retiring] = [phases.slice(0, FIRST_RETIREMENT), phases.slice(FIRST_RETIREMENT)]
  const count = (some: readonly Phase[]) => some.reduce((sum, { owners }) => sum + owners.length, 0)
  if (count(first) === 0 || count(retiring) === 0) return phases
  const deleted = new Map<string, { phase: Phase; at: number; owner: number }>()
  for (const phase of retiring) {
    for (const [i, at] of startsOf(phase.records).entries()) {
      deleted.set(identityKey(phase.records, at), { phase, at, owner: phase.owners[i]! })
    }
  }
  const moved = new Set<string>()
  const rebuilt = first.map((phase) => {
    const [writer, owners] = [new RecordWriter(), [] as number[]]
    for (const [i, at] of startsOf(phase.records).entries()) {
      const key = identityKey(phase.records, at)
      const deletion = deleted.get(key)
      if (deletion !== undefined && !moved.has(key)) {
        append(writer, deletion.phase.records, deletion.at)
        owners.push(deletion.owner)
        moved.add(key)
      }
      append(writer, phase.records, at)
      owners.push(phase.owners[i]!)
    }
    return { name: phase.name, records: writer.take(), owners }
  })
  if (moved.size === 0) return phases
  const left = retiring.map((phase) => {
    const [writer, owners] = [new RecordWriter(), [] as number[]]
    for (const [i, at] of startsOf(phase.records).entries()) {
      if (moved.has(identityKey(phase.records, at))) continue
      append(writer, phase.records, at)
      owners.push(phase.owners[i]!)
    }
    return { name: phase.name, records: writer.take(), owners }
  })
  return [...rebuilt, ...left]
}

/** Policies that let in are known for ours by the one that leads out: cut short, a removal leaves none without it. */
function backFirst(records: Uint8Array, starts: Iterable<number>): number[] {
  const isOut = (at: number) => isPolicyRecord(records, at) && records[at + Policy.direction] === DIRECTION_OUT
  const [out, others]: [number[], number[]] = [[], []]
  for (const at of starts) (isOut(at) ? out : others).push(at)
  return [...others, ...out]
}

const FIRST_RETIREMENT = phaseNames.indexOf('retire encryption')

function append(into: RecordWriter, records: Uint8Array, at: number): void {
  into.record(recordAt(records, at), records[at + State.operation]!)
}

/** Whether two states are the same but for the mark that they give to packets, which an update can change. */
function differInOutputMark(a: Uint8Array, atA: number, b: Uint8Array, atB: number): boolean {
  if (attributeAt(b, atB, XFRMA.SET_MARK) < 0) return false
  const [one, other] = [withoutOutputMark(a, atA), withoutOutputMark(b, atB)]
  return sameRecord(one, 0, other, 0)
}

function withoutOutputMark(records: Uint8Array, at: number): Uint8Array {
  const reader = new RecordReader(recordAt(records, at))
  reader.next()
  const writer = new RecordWriter(512)
  writer.begin(reader.u8(State.operation))
  writer.bytes(State.operation, reader.record().subarray(State.operation, State.reserved))
  for (const [type, payload] of reader.attributes()) {
    if (type !== XFRMA.SET_MARK && type !== XFRMA.SET_MARK_MASK) writer.attribute(type, payload)
  }
  return writer.take()
}
