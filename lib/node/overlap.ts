import { appendPlain } from '../kernel/record-details.js'
import { attributeAt, isPolicyRecord, recordAt, sameIdentity, startsOf, u32 } from '../kernel/record-identity.js'
import { Operation, RecordWriter, State, WITHHELD_KEY } from '../kernel/records.js'
import { IPPROTO_ESP, XFRMA } from '../kernel/xfrm-names.js'
import { LAST_KEY_ID } from './keyfile.js'
import type { NodeKeyring } from './keyring.js'
import { Owner } from './owners.js'
import type { Phase } from './plan.js'
import { readOne, type XfrmPort } from './port.js'
import { INBOUND_MASK, type Mark, OUTBOUND_MASK } from './tunnels.js'

/**
 * Asked for a state by its mark, the kernel takes the first that the mark fits: where another has the same destination and
 * SPI and a mark of fewer bits, or none, that is the other, which is then deleted in place of ours, or keeps ours from being
 * added. Ours never overlap each other; an older Cilium's do overlap them (0xd00/0xf00).
 */

/** Appends a state of a dump, by what names it, if it can be in the way of ours. */
export function appendGeneral(into: RecordWriter, records: Uint8Array, at: number): void {
  const { mask } = markOf(records, at)
  const spi = spiAt(records, at)
  const isOurs = mask === INBOUND_MASK || mask === OUTBOUND_MASK
  if (isOurs || spi === 0 || spi > LAST_KEY_ID || records[at + State.protocol] !== IPPROTO_ESP) return
  into.begin(Operation.deleteState)
  into.u8(State.family, records[at + State.family]!)
  into.u8(State.protocol, IPPROTO_ESP)
  into.bytes(State.destination, records.subarray(at + State.destination, at + State.source))
  into.u32(State.spi, spi)
  const mark = attributeAt(records, at, XFRMA.MARK)
  if (mark >= 0) into.attribute(XFRMA.MARK, records.subarray(mark, mark + 8))
}

/** Leads what is done to states of ours around the states that are in their way. */
export class Overlaps {
  readonly #xfrm: XfrmPort
  readonly #keyring: NodeKeyring
  readonly #generals: readonly Uint8Array[]

  /** @param generals what {@link appendGeneral} wrote */
  constructor(xfrm: XfrmPort, keyring: NodeKeyring, generals: Uint8Array) {
    this.#xfrm = xfrm
    this.#keyring = keyring
    this.#generals = startsOf(generals).map((at) => recordAt(generals, at))
  }

  /**
   * A phase in parts. What is done to states behind a general one is in parts of its own, each for one send: the general one
   * is taken away, the work is done, and it is put back as it was, its replay state with it.
   */
  async part(phase: Phase): Promise<readonly Phase[]> {
    if (this.#generals.length === 0) return [phase]
    const plain: Part = { writer: new RecordWriter(), owners: [] }
    const behind = new Map<Uint8Array, Part[]>()
    for (const [i, at] of startsOf(phase.records).entries()) {
      const general = this.#generals.find((one) => hides(one, phase.records, at))
      push(general === undefined ? plain : this.#partOf(behind, general), phase, i, at)
    }
    if (behind.size === 0) return [phase]
    const parts = [phaseOf(phase, plain)]
    try {
      for (const [general, some] of behind) {
        for (const part of some) parts.push(await this.#around(general, phaseOf(phase, part)))
      }
      return parts
    } catch (error) {
      for (const { keys } of parts) wipeAll(keys)
      throw error
    }
  }

  #partOf(behind: Map<Uint8Array, Part[]>, general: Uint8Array): Part {
    const parts = behind.get(general) ?? []
    behind.set(general, parts)
    const last = parts.at(-1)
    // A send, less what is done to the general one.
    if (last !== undefined && last.owners.length < this.#xfrm.chunk - 2) return last
    const part = { writer: new RecordWriter(), owners: [] }
    parts.push(part)
    return part
  }

  async #around(general: Uint8Array, part: Phase): Promise<Phase> {
    const { algorithms } = this.#keyring
    const query = { policies: false, one: general, reqid: 0, details: true, keys: [], algorithms }
    const found = await readOne(this.#xfrm, query)
    // What the kernel shows no keys of can't be put back.
    if (found === undefined || !sameIdentity(found.records, 0, general, 0) || isWithheld(found.records)) {
      wipeAll(found?.keys)
      return part
    }
    for (const name of found.algorithms) this.#keyring.algorithm(name)
    const writer = new RecordWriter()
    writer.record(general, Operation.deleteState)
    for (const at of startsOf(part.records)) append(writer, part.records, at)
    appendPlain(writer, found.records, 0, true)
    return { ...part, records: writer.take(), owners: [Owner.others, ...part.owners, Owner.others], keys: found.keys }
  }
}

/** Overwrites the keys that a phase brought. */
export function wipeAll(keys: readonly Uint8Array[] = []): void {
  for (const key of keys) key.fill(0)
}

interface Part {
  readonly writer: RecordWriter
  readonly owners: number[]
}

function push({ writer, owners }: Part, phase: Phase, i: number, at: number): void {
  append(writer, phase.records, at)
  owners.push(phase.owners[i]!)
}

function append(writer: RecordWriter, records: Uint8Array, at: number): void {
  writer.record(recordAt(records, at), records[at + State.operation]!)
}

function phaseOf({ name }: Phase, { writer, owners }: Part): Phase {
  return { name, records: writer.take(), owners }
}

/** Whether the kernel, asked for the state there, may take the general one, which is not to be taken for it. */
function hides(general: Uint8Array, records: Uint8Array, at: number): boolean {
  if (isPolicyRecord(records, at) || spiAt(records, at) !== spiAt(general, 0)) return false
  const [one, other] = [markOf(records, at), markOf(general, 0)]
  return (
    records[at + State.family] === general[State.family] &&
    (one.value & one.mask & other.mask) >>> 0 === other.value &&
    (other.value & other.mask & one.mask) >>> 0 !== one.value &&
    Buffer.compare(
      records.subarray(at + State.destination, at + State.source),
      general.subarray(State.destination, State.source),
    ) === 0
  )
}

function isWithheld(record: Uint8Array): boolean {
  return [State.cipherKey, State.authKey].some((offset) => u32(record, offset) === WITHHELD_KEY)
}

function markOf(records: Uint8Array, at: number): Mark {
  const mark = attributeAt(records, at, XFRMA.MARK)
  if (mark < 0) return { value: 0, mask: 0 }
  return { value: u32(records, mark), mask: u32(records, mark + 4) }
}

function spiAt(records: Uint8Array, at: number): number {
  return u32(records, at + State.spi)
}
