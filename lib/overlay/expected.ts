import { ADDRESS_BYTES } from '../base/address.js'
import { ATTRIBUTE_HEAD } from '../kernel/record-parts.js'
import { attributeAt } from '../kernel/record-identity.js'
import {
  HEAD_BYTES,
  Operation,
  Policy,
  type RecordReader,
  RecordWriter,
  State,
  WITHHELD_KEY,
} from '../kernel/records.js'
import { XFRMA } from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import { Op, opHead } from './ops.js'
import type { Is, Should } from './state.js'
import { Encap, OpWriter, OWN_TEMPLATE, swapped } from './writer.js'

/**
 * How the kernel shows peers' objects that are as they should be: as the records that add them. But for some words these are
 * the same for all peers, so that each is made once, and what a dump has is compared with it word by word.
 */
export class Expected {
  readonly #is: Is
  readonly #should: Should
  readonly #writer: OpWriter
  /** By the slot of the key and the way. */
  readonly #states: (readonly Pattern[] | undefined)[] = []
  #policy: Pattern | undefined

  constructor(is: Is, should: Should) {
    this.#is = is
    this.#should = should
    this.#writer = OpWriter.of(should.form)
  }

  /**
   * Whether an SA is that of a peer under a key, but for its SPI, which is as it is, and its ports, which can be changed. A
   * key that the kernel withholds is taken for right.
   *
   * @param anySource whether its source may be anybody's
   */
  isState(state: RecordReader, inbound: boolean, key: number, peer: number, anySource = false): boolean {
    const patterns = (this.#states[2 * key + (inbound ? 1 : 0)] ??= this.#statePatterns(inbound, key, peer))
    const end = inbound ? State.source : State.destination
    if (!anySource && !this.#hasAddress(state, end, peer)) return false
    const withheld = state.u32(State.cipherKey) === WITHHELD_KEY
    for (const pattern of patterns) if (pattern.fits(state, withheld)) return true
    return false
  }

  /** Whether a policy is the peer's own, but for the SPI that its template names. */
  isPolicy(policy: RecordReader, peer: number): boolean {
    this.#policy ??= this.#policyPattern(peer)
    return (
      this.#policy.fits(policy, false) &&
      this.#hasAddress(policy, Policy.destination, peer) &&
      this.#hasAddress(policy, OWN_TEMPLATE + TemplateLayout.destination, peer)
    )
  }

  /** The SPI that the template of a peer's own policy names. */
  static spiOf(policy: RecordReader): number {
    return swapped(policy.u32(OWN_TEMPLATE + TemplateLayout.spi))
  }

  /** The record that adds a peer's own policy. */
  policyOf(peer: number): Uint8Array {
    const writer = new RecordWriter(256)
    this.#writer.write(writer, opHead(Op.addPolicy, 0), peer, 0, this.#is, this.#should)
    return writer.take()
  }

  #hasAddress({ words, start }: RecordReader, offset: number, peer: number): boolean {
    const [at, there] = [(start + offset) >> 2, this.#is.peers.words]
    for (let i = 0; i < ADDRESS_BYTES / 4; i++) if (words[at + i] !== there[peer * 4 + i]) return false
    return true
  }

  #statePatterns(inbound: boolean, key: number, peer: number): readonly Pattern[] {
    const writer = new RecordWriter(512)
    const head = opHead(inbound ? Op.addInbound : Op.addOutbound, key)
    this.#writer.write(writer, head, peer, 0, this.#is, this.#should)
    const record = writer.take()
    const end = inbound ? State.source : State.destination
    const free: Range[] = [
      [end, end + ADDRESS_BYTES],
      [State.spi, State.spi + 4],
    ]
    if (this.#should.form.natPort === 0) return [new Pattern(record, free)]
    // With nothing of UDP it is of another length, whatever stands there.
    free.push([Encap.sourcePort, Encap.destinationPort + 2])
    const threshold = attributeAt(record, 0, XFRMA.MTIMER_THRESH)
    if (threshold < 0) return [new Pattern(record, free)]
    // The limit on what is told of mappings, its last attribute if it is inbound: kernels before 5.17 do not keep it.
    const without = new RecordWriter(512)
    without.begin(Operation.addState)
    without.bytes(State.operation, record.subarray(State.operation, HEAD_BYTES))
    without.tail(record.subarray(HEAD_BYTES, threshold - ATTRIBUTE_HEAD))
    return [new Pattern(record, [...free, [threshold, threshold + 4]]), new Pattern(without.take(), free)]
  }

  #policyPattern(peer: number): Pattern {
    const template = OWN_TEMPLATE + TemplateLayout.destination
    return new Pattern(this.policyOf(peer), [
      [Policy.destination, Policy.destination + ADDRESS_BYTES],
      [template, template + ADDRESS_BYTES + 4],
    ])
  }
}

/** Offsets in a record, from one to before another. */
type Range = readonly [from: number, to: number]

/** Of a key that the kernel withholds it is not known either what it ends with. */
const WITHHELD: readonly Range[] = [
  [State.salted, State.cipher],
  [State.cipherKey, State.authAlgorithm],
]

/** A record, but for the bytes in some ranges. */
class Pattern {
  readonly #words: Uint32Array
  readonly #mask: Uint32Array
  readonly #maskOfWithheld: Uint32Array

  constructor(record: Uint8Array, free: readonly Range[]) {
    this.#words = new Uint32Array(record.slice().buffer)
    // What is to be done with it is no part of what it is.
    const differs: Range[] = [...free, [State.operation, State.family]]
    this.#mask = maskOf(record.length, differs)
    this.#maskOfWithheld = maskOf(record.length, [...differs, ...WITHHELD])
  }

  /** The first word is the length: what is longer or shorter does not fit. */
  fits({ words, start }: RecordReader, withheld: boolean): boolean {
    const mask = withheld ? this.#maskOfWithheld : this.#mask
    const [wanted, at] = [this.#words, start >> 2]
    for (let i = 0; i < wanted.length; i++) if (((words[at + i]! ^ wanted[i]!) & mask[i]!) !== 0) return false
    return true
  }
}

function maskOf(bytes: number, free: readonly Range[]): Uint32Array {
  const mask = new Uint8Array(bytes).fill(0xff)
  for (const [from, to] of free) mask.fill(0, from, to)
  return new Uint32Array(mask.buffer)
}
