import { AF_INET } from '../base/address.js'
import { U16 } from '../base/check.js'
import { attribute, ATTRIBUTE_HEAD, espTemplate, joined, words } from '../kernel/record-parts.js'
import { recordAt } from '../kernel/record-identity.js'
import {
  Cipher,
  HEAD_BYTES,
  LITTLE_ENDIAN,
  NO_ALGORITHM,
  NO_KEY,
  Operation,
  Policy,
  RecordWriter,
  State,
} from '../kernel/records.js'
import {
  DIRECTION_FWD,
  DIRECTION_IN,
  DIRECTION_OUT,
  FLAG_ESN,
  IPPROTO_ESP,
  IPPROTO_UDP,
  MODE_TRANSPORT,
  XFRMA,
} from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import { OLD_WINDOW, replayState } from '../kernel/xfrm-replay.js'
import { type Form, SharedPolicy } from './form.js'
import { codeOf, keyOf, Op } from './ops.js'
import type { Damage, Is, Should } from './state.js'

/** Where the template is in a policy's record: XFRMA_TMPL is the first attribute of its tail. */
export const OWN_TEMPLATE = HEAD_BYTES + ATTRIBUTE_HEAD

/**
 * Ports of struct xfrm_encap_tmpl in an SA's record, in network byte order: XFRMA_ENCAP is the first attribute of its tail.
 * The source port of an inbound SA is the peer's, as the destination port of an outbound one is; the other is ours.
 */
export const Encap = {
  sourcePort: HEAD_BYTES + ATTRIBUTE_HEAD + 2,
  destinationPort: HEAD_BYTES + ATTRIBUTE_HEAD + 4,
} as const
const ENCAP_BYTES = 24
const UDP_ENCAP_ESPINUDP = 2

/**
 * Seconds that the kernel (from 5.17 on; older ones pass over it) says nothing more of packets that still come from the same
 * other port or address than the SA's. Of a new port it tells at once.
 */
const MAPPING_THRESHOLD = 5

/**
 * What goes into UDP loses our mark as it is encrypted (the kernel's output mark, of no bits): to the guard, UDP that bears it
 * on another port than VXLAN's is VXLAN that a rule has turned there, and the first byte of an SPI may look like its flags.
 * What was not encrypted keeps the mark, and is caught.
 */
const UNMARKED = attribute(XFRMA.SET_MARK, words(0))

/** SAs to add and to delete, as records that lack what differs from peer to peer. */
interface CommonState {
  readonly add: Uint8Array
  readonly delete: Uint8Array
}

/** Names of algorithms by the index that the records have: the side table beside the keyring's. */
export function algorithms(form: Form): string[] {
  return [form.suite.algorithm]
}

/**
 * Turns operations of a plan into records, straight from packed addresses. What adds an object is also how the object
 * looks in a dump without details. Keys are named by `keyring.index()`, so the side table is `keyring.sideTable()`.
 */
export class OpWriter {
  /** By form: what it encodes once takes as long as some hundred operations. */
  static readonly #made = new WeakMap<Form, OpWriter>()
  readonly #form: Form
  readonly #local: Uint32Array
  readonly #prefix: number
  readonly #headWindow: number
  /** Tails, encoded once: the end of an SA's, of a peer's own policy, of a shared one, of a policy to delete. */
  readonly #replayTail: Uint8Array
  readonly #ownTail: Uint8Array
  readonly #sharedTail: Uint8Array
  readonly #identityTail: Uint8Array
  readonly #inbound: CommonState
  readonly #outbound: CommonState

  private constructor(form: Form) {
    this.#form = form
    this.#local = new Uint32Array(form.local.bytes.slice().buffer)
    this.#prefix = form.local.family === AF_INET ? 32 : 128
    const wide = form.esn || form.replayWindow > OLD_WINDOW
    this.#headWindow = wide ? 0 : form.replayWindow
    this.#replayTail = wide ? attribute(XFRMA.REPLAY_ESN_VAL, replayState(form.replayWindow)) : new Uint8Array(0)
    this.#identityTail = form.exclusive ? new Uint8Array(0) : attribute(XFRMA.MARK, words(form.mark, 0xffffffff))
    const template = espTemplate({ family: form.local.family, reqid: form.mark, mode: MODE_TRANSPORT })
    this.#sharedTail = joined(attribute(XFRMA.TMPL, template), this.#identityTail)
    this.#ownTail = this.#sharedTail.slice()
    this.#ownTail.set(form.local.bytes, OWN_TEMPLATE - HEAD_BYTES + TemplateLayout.source)
    this.#inbound = this.#common(State.destination)
    this.#outbound = this.#common(State.source)
  }

  /** That of a form, which is made once. */
  static of(form: Form): OpWriter {
    const made = OpWriter.#made.get(form) ?? new OpWriter(form)
    OpWriter.#made.set(form, made)
    return made
  }

  /** Appends the record of one operation; false if the operation takes no message. */
  write(
    into: RecordWriter,
    head: number,
    subject: number,
    spi: number,
    is: Is,
    should: Should,
    damage: Damage = {},
  ): boolean {
    const code = codeOf(head)
    switch (code) {
      case Op.addInbound:
        this.#state(into, Operation.addState, true, keyOf(head), subject, spi, is, should)
        return true
      case Op.addOutbound:
        this.#state(into, Operation.addState, false, keyOf(head), subject, spi, is, should)
        return true
      case Op.updateInbound:
        this.#state(into, Operation.updateState, true, keyOf(head), subject, spi, is, should)
        return true
      case Op.updateOutbound:
        this.#state(into, Operation.updateState, false, keyOf(head), subject, spi, is, should)
        return true
      case Op.deleteInbound:
        this.#state(into, Operation.deleteState, true, keyOf(head), subject, spi, is, should)
        return true
      case Op.deleteOutbound:
        this.#state(into, Operation.deleteState, false, keyOf(head), subject, spi, is, should)
        return true
      case Op.addPolicy:
        this.#ownPolicy(into, Operation.addPolicy, subject, spi, is)
        return true
      case Op.updatePolicy:
        this.#ownPolicy(into, Operation.updatePolicy, subject, spi, is)
        return true
      case Op.deletePolicy:
        this.#ownPolicy(into, Operation.deletePolicy, subject, spi, is)
        return true
      case Op.addShared:
        this.sharedPolicy(into, Operation.addPolicy, subject)
        return true
      case Op.updateShared:
        this.sharedPolicy(into, Operation.updatePolicy, subject)
        return true
      case Op.deleteShared:
        this.sharedPolicy(into, Operation.deletePolicy, subject)
        return true
      case Op.deleteStaleState:
        into.record(recordAt(damage.stale!.states.records, subject), Operation.deleteState)
        return true
      case Op.deleteStalePolicy:
        into.record(recordAt(damage.stale!.policies.records, subject), Operation.deletePolicy)
        return true
      case Op.shareInbound:
      case Op.unshareInbound:
        return false
    }
  }

  #state(
    into: RecordWriter,
    operation: number,
    inbound: boolean,
    key: number,
    peer: number,
    spi: number,
    { peers }: Is,
    { form, keyring }: Should,
  ): void {
    const common = inbound ? this.#inbound : this.#outbound
    const isDeletion = operation === Operation.deleteState
    into.record(isDeletion ? common.delete : common.add, operation)
    into.address(inbound ? State.source : State.destination, peers.words, peer * 4)
    into.u32(State.spi, spi)
    if (isDeletion) return
    into.u32(State.cipherKey, keyring.index(key))
    if (form.natPort !== 0) {
      const port = peers.port[peer]!
      const place = inbound ? Encap.sourcePort : Encap.destinationPort
      into.u8(place, port >> 8)
      into.u8(place + 1, port)
    }
  }

  /** What all SAs of one direction have in common: records but for the peer's address and port, the SPI and the key. */
  #common(ownAddress: typeof State.source | typeof State.destination): CommonState {
    const writer = new RecordWriter(256)
    this.#stateIdentity(writer, Operation.deleteState)
    writer.address(ownAddress, this.#local, 0)
    const deletion = writer.take()
    this.#stateIdentity(writer, Operation.addState)
    writer.address(ownAddress, this.#local, 0)
    writer.u8(State.flags, this.#form.esn ? FLAG_ESN : 0)
    writer.u8(State.replayWindow, this.#headWindow)
    writer.u8(State.salted, 1)
    writer.u8(State.cipher, Cipher.aead)
    writer.u16(State.icvBits, this.#form.suite.icvBits)
    writer.tail(this.#stateTail(ownAddress === State.destination))
    return { add: writer.take(), delete: deletion }
  }

  #stateTail(inbound: boolean): Uint8Array {
    const { natPort } = this.#form
    if (natPort === 0) return this.#replayTail
    const encap = inbound ? encapTemplate(0, natPort) : encapTemplate(natPort, 0)
    const head = joined(attribute(XFRMA.ENCAP, encap), this.#replayTail)
    return joined(head, inbound ? attribute(XFRMA.MTIMER_THRESH, words(MAPPING_THRESHOLD)) : UNMARKED)
  }

  #stateIdentity(into: RecordWriter, operation: number): void {
    into.begin(operation)
    into.u8(State.family, this.#form.local.family)
    into.u8(State.protocol, IPPROTO_ESP)
    into.u8(State.mode, MODE_TRANSPORT)
    into.u32(State.reqid, this.#form.mark)
    into.u32(State.cipherKey, NO_KEY)
    into.u16(State.authAlgorithm, NO_ALGORITHM)
    into.u32(State.authKey, NO_KEY)
  }

  /** A peer's own policy: to its address alone, the template naming addresses and SPI, as Docker does. */
  #ownPolicy(into: RecordWriter, operation: number, peer: number, spi: number, { peers }: Is): void {
    this.#policy(into, operation, DIRECTION_OUT, 0)
    into.address(Policy.source, this.#local, 0)
    into.u8(Policy.sourcePrefix, this.#prefix)
    into.address(Policy.destination, peers.words, peer * 4)
    into.u8(Policy.destinationPrefix, this.#prefix)
    if (operation === Operation.deletePolicy) {
      into.tail(this.#identityTail)
      return
    }
    into.tail(this.#ownTail)
    into.address(OWN_TEMPLATE + TemplateLayout.destination, peers.words, peer * 4)
    into.u32(OWN_TEMPLATE + TemplateLayout.spi, swapped(spi))
  }

  /** One of {@link SharedPolicy}: a template without addresses and SPI takes the packet's own, and any SA of our reqid. */
  sharedPolicy(into: RecordWriter, operation: number, which: number): void {
    const { in: inbound, through, rest } = SharedPolicy
    const direction = which === inbound ? DIRECTION_IN : which === through ? DIRECTION_FWD : DIRECTION_OUT
    this.#policy(into, operation, direction, which === rest ? 1 : 0)
    if (!this.#form.exclusive) {
      into.address(Policy.source, this.#local, 0)
      into.u8(Policy.sourcePrefix, this.#prefix)
    }
    into.tail(operation === Operation.deletePolicy ? this.#identityTail : this.#sharedTail)
  }

  #policy(into: RecordWriter, operation: number, direction: number, priority: number): void {
    const { local, port } = this.#form
    into.begin(operation)
    into.u8(Policy.family, local.family)
    into.u8(Policy.direction, direction)
    into.u16(Policy.destinationPort, port)
    into.u16(Policy.destinationPortMask, U16)
    into.u8(Policy.protocol, IPPROTO_UDP)
    into.u32(Policy.priority, priority)
  }
}

/** struct xfrm_encap_tmpl of ESP in UDP. */
export function encapTemplate(sourcePort: number, destinationPort: number): Uint8Array {
  const encap = new DataView(new ArrayBuffer(ENCAP_BYTES))
  encap.setUint16(0, UDP_ENCAP_ESPINUDP, LITTLE_ENDIAN)
  encap.setUint16(2, sourcePort)
  encap.setUint16(4, destinationPort)
  return new Uint8Array(encap.buffer)
}

/** From host to network byte order, and back. */
export function swapped(value: number): number {
  if (!LITTLE_ENDIAN) return value
  return ((value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0
}
