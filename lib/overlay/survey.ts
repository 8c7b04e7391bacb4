import { ADDRESS_BYTES } from '../base/address.js'
import { ATTRIBUTE_HEAD } from '../kernel/record-parts.js'
import { LITTLE_ENDIAN, Operation, Policy, RecordReader, RecordWriter, State, WITHHELD_KEY } from '../kernel/records.js'
import { attributeAt } from '../kernel/record-identity.js'
import { XFRMA } from '../kernel/xfrm-names.js'
import { type Form, mayShare, SharedPolicy, sharedPolicies } from './form.js'
import { POLICY_DIFFERS, PortSource } from './peers.js'
import { Op, opHead } from './ops.js'
import type { Damage, Is, RecordList, Should } from './state.js'
import { claimant, claimedKey, SpiIndex } from './spi-index.js'
import { Encap, OpWriter } from './writer.js'

/**
 * Compares what the kernel has of ours with what should be, in steps: sets `is` to it (but the networks, which are the
 * firewall's), and finds the damage. Byte by byte: an SA is as it should be if its record is the one we would write to
 * add it, but for UDP ports, which can be changed. Between steps nothing of what was given may change.
 *
 * A peer's port that nobody gave is taken over from its SAs: it was learned, and packets to the assumed one would go astray.
 * Where they differ, from the outbound one: whoever turned them, and ended before all were, turned that first.
 */
export class Survey {
  readonly #is: Is
  readonly #should: Should
  readonly #form: Form
  readonly #writer: OpWriter
  readonly #scratch = new RecordWriter(1024)
  readonly #states: RecordReader
  readonly #policies: RecordReader
  /** Slots of all keys that live: wanted ones, then retired ones. */
  readonly #keys: readonly number[]
  /** Inbound SPIs that the peers' SAs may have, and whose. */
  readonly #expected = new SpiIndex()
  readonly #differing = new Map<number, { inbound: number; outbound: number }>()
  #differingShared = 0
  /** Slots of the peers whose SAs have not all the same ports, or not ours. */
  readonly #turned = new Set<number>()
  /** Ports that were learned, by inbound SAs, of peers by their slots. */
  readonly #learned = new Map<number, number>()
  readonly #stale: { states: List; policies: List }
  readonly #only: readonly number[] | undefined
  #nextPeer = 0

  /**
   * @param states and @param policies records of all that bears our reqid, without details
   * @param only slots of peers, if the records are but theirs: `is` is then set for these alone
   */
  constructor(states: Uint8Array, policies: Uint8Array, is: Is, should: Should, only?: readonly number[]) {
    this.#is = is
    this.#only = only
    this.#should = should
    this.#form = should.form
    this.#writer = OpWriter.of(should.form)
    this.#states = new RecordReader(states)
    this.#policies = new RecordReader(policies)
    this.#stale = { states: new List(states), policies: new List(policies) }
    const { slots, retired } = should.keyring
    this.#keys = [
      ...slots,
      ...Array.from({ length: 32 }, (_, slot) => slot).filter((slot) => ((retired >>> slot) & 1) !== 0),
    ]
    if (only !== undefined) return
    is.claims.clear()
    is.sharedPolicies = 0
  }

  /** Works through up to that many peers or objects more; true once there are no more. */
  step(count: number): boolean {
    const { peers } = this.#is
    const end = this.#only?.length ?? peers.end
    for (let left = count; left > 0; left--) {
      if (this.#nextPeer < end) this.#expect(this.#slotAt(this.#nextPeer++))
      else if (this.#states.next()) this.#state(this.#states)
      else if (this.#policies.next()) this.#policy(this.#policies)
      else return true
    }
    return false
  }

  #slotAt(index: number): number {
    return this.#only === undefined ? index : this.#only[index]!
  }

  /** What was found that is not as it should be. */
  finish(): Damage {
    const { peers } = this.#is
    const { primary } = this.#should.keyring
    for (const [slot, port] of this.#learned) {
      if (((peers.outbound[slot]! >>> primary) & 1) === 0) this.#learn(slot, port)
    }
    return { states: this.#differing, sharedPolicies: this.#differingShared, stale: this.#stale }
  }

  /** Forgets what was thought to be of a peer, and notes what to look for. */
  #expect(slot: number): void {
    const { peers } = this.#is
    if (!peers.has(slot)) return
    peers.inbound[slot] = peers.outbound[slot] = peers.policy[slot] = peers.installedPort[slot] = 0
    for (const key of this.#keys) {
      const spi = this.#form.spis.reverse(this.#should.keyring.tag(key), peers.bytes, slot * ADDRESS_BYTES)
      if (spi !== 0) this.#expected.add(spi, slot, key)
    }
  }

  #state(state: RecordReader): void {
    // An SA without an SPI is larval: it stands for a packet that found none, and goes by itself.
    if (state.u32(State.spi) === 0) return
    const inbound = equal(state.address(State.destination), this.#form.local.bytes)
    const known =
      state.u8(State.family) === this.#form.local.family &&
      attribute(state.record(), XFRMA.MARK).length === 0 &&
      (inbound ? this.#inbound(state) : this.#outbound(state))
    if (!known) this.#stale.states.at.push(state.start)
  }

  /** Whether this is an inbound SA of a peer's, as it should be or not: then that is noted. */
  #inbound(state: RecordReader): boolean {
    const { peers, claims } = this.#is
    const spi = state.u32(State.spi)
    const owners = this.#expected.claims(spi)
    if (owners.length === 0) return false
    // An SA that several share bears the source of one, maybe of one that is gone: the kernel does not care. Of several that
    // may not share, it is that one's whose source it bears, or stale.
    const shared = owners.length > 1 && mayShare(this.#form)
    const holders = shared || owners.length === 1 ? owners : this.#borneBy(state, owners)
    const right = holders.filter((packed) =>
      this.#isRight(state, opHead(Op.addInbound, claimedKey(packed)), claimant(packed), shared),
    )
    const wanted = owners.filter((packed) => this.#isWanted(packed))
    // Where it is nobody's that wants it, it goes as if it were the others'. Whoever is planned for first replaces it.
    if (right.length === 0 && wanted.length > 0) {
      for (const packed of wanted) this.#differs(claimant(packed)).inbound |= 1 << claimedKey(packed)
      return true
    }
    for (const packed of right.length > 0 ? right : holders) {
      peers.inbound[claimant(packed)]! |= 1 << claimedKey(packed)
      claims.add(spi, claimant(packed), claimedKey(packed))
      if (right.length === 0 || shared) continue
      const port = this.#port(claimant(packed), state, Encap.sourcePort, Encap.destinationPort)
      if (port !== 0) this.#learned.set(claimant(packed), port)
    }
    return holders.length > 0
  }

  /** Claims of the peer whose address is the SA's source. */
  #borneBy(state: RecordReader, owners: readonly number[]): readonly number[] {
    const source = this.#peerAt(state, State.source)
    return owners.filter((packed) => claimant(packed) === source)
  }

  /** Whether this is an outbound SA to a peer, as it should be or not: then that is noted. */
  #outbound(state: RecordReader): boolean {
    const { peers } = this.#is
    const { keyring } = this.#should
    const slot = this.#peerAt(state, State.destination)
    if (slot < 0) return false
    const spi = state.u32(State.spi)
    const at = slot * ADDRESS_BYTES
    const key = this.#keys.find((each) => this.#form.spis.forward(keyring.tag(each), peers.bytes, at) === spi)
    if (key === undefined) return false
    const wanted = key === keyring.primary && peers.references[slot]! > 0
    if (wanted && !this.#isRight(state, opHead(Op.addOutbound, key), slot, false)) {
      this.#differs(slot).outbound |= 1 << key
      return true
    }
    peers.outbound[slot]! |= 1 << key
    const port = wanted ? this.#port(slot, state, Encap.destinationPort, Encap.sourcePort) : 0
    if (port !== 0) this.#learn(slot, port)
    return true
  }

  /**
   * Notes which ports an SA of a peer's has, as that which its record says are the peer's and ours. Returns the peer's if it
   * was learned, else 0.
   */
  #port(slot: number, state: RecordReader, peersAt: number, oursAt: number): number {
    const { natPort, port: vxlanPort } = this.#form
    if (natPort === 0) return 0
    const { peers } = this.#is
    const read = (at: number) => (state.u8(at) << 8) | state.u8(at + 1)
    const found = read(peersAt)
    const isOurs = read(oursAt) === natPort
    // Where our own port was another, so were those of all that had none of their own.
    const mayBeLearned = isOurs && found !== 0 && found !== vxlanPort && peers.references[slot]! > 0
    const before = peers.installedPort[slot]!
    if (!isOurs || (before !== 0 && before !== found)) this.#turned.add(slot)
    peers.installedPort[slot] = this.#turned.has(slot) ? 0 : found
    return mayBeLearned && peers.portSource[slot] === PortSource.assumed && found !== peers.port[slot] ? found : 0
  }

  #learn(slot: number, port: number): void {
    const { peers } = this.#is
    peers.port[slot] = port
    peers.portSource[slot] = PortSource.learned
  }

  #policy(policy: RecordReader): void {
    if (!this.#shared(policy) && !this.#own(policy)) this.#stale.policies.at.push(policy.start)
  }

  /** Whether this is one of our shared policies, as it should be or not: then that is noted. */
  #shared(policy: RecordReader): boolean {
    for (const which of Object.values(SharedPolicy)) {
      if ((sharedPolicies(this.#form) & which) === 0) continue
      this.#writer.sharedPolicy(this.#scratch, Operation.addPolicy, which)
      const wanted = this.#scratch.take()
      const found = policy.record()
      if (!samePolicyId(found, wanted)) continue
      if (equal(found, wanted)) this.#is.sharedPolicies |= which
      else this.#differingShared |= which
      return true
    }
    return false
  }

  /** Whether this is a peer's own policy, as it should be or not: then that is noted. */
  #own(policy: RecordReader): boolean {
    const { peers } = this.#is
    const slot = this.#form.policies === 'per-peer' ? this.#peerAt(policy, Policy.destination) : -1
    if (slot < 0) return false
    for (const key of this.#keys) {
      const spi = this.#form.spis.forward(this.#should.keyring.tag(key), peers.bytes, slot * ADDRESS_BYTES)
      this.#writer.write(this.#scratch, opHead(Op.addPolicy, key), slot, spi, this.#is, this.#should)
      const wanted = this.#scratch.take()
      if (!samePolicyId(policy.record(), wanted)) return false
      if (equal(policy.record(), wanted)) {
        peers.policy[slot] = key + 1
        return true
      }
    }
    peers.policy[slot] = POLICY_DIFFERS
    return true
  }

  #isWanted(packed: number): boolean {
    const retired = ((this.#should.keyring.retired >>> claimedKey(packed)) & 1) !== 0
    return !retired && this.#is.peers.references[claimant(packed)]! > 0
  }

  /** Slot of the peer whose address the record has there, or -1. */
  #peerAt(record: RecordReader, offset: number): number {
    const { peers } = this.#is
    if (record.u8(State.family) !== peers.family) return -1
    peers.load(record.buffer, record.start + offset)
    return peers.find()
  }

  #differs(slot: number): { inbound: number; outbound: number } {
    let entry = this.#differing.get(slot)
    if (!entry) this.#differing.set(slot, (entry = { inbound: 0, outbound: 0 }))
    return entry
  }

  /**
   * Whether the record is the one that this operation would write, but for its ports. A key that the kernel withholds is
   * taken for right.
   */
  #isRight(state: RecordReader, head: number, subject: number, anySource: boolean): boolean {
    this.#writer.write(this.#scratch, head, subject, state.u32(State.spi), this.#is, this.#should)
    let wanted = this.#scratch.take()
    let found = state.record()
    const inUdp = this.#form.natPort !== 0
    if (inUdp) {
      wanted = withoutThreshold(wanted)
      found = withoutThreshold(found)
      // With nothing of UDP it differs, whatever stands there.
      if (found.length !== wanted.length) return false
    }
    const withheld = state.u32(State.cipherKey) === WITHHELD_KEY
    if (withheld || anySource || inUdp) {
      found = found.slice()
      const same = (from: number, to: number) => found.set(wanted.subarray(from, to), from)
      if (anySource) same(State.source, State.spi)
      if (inUdp) same(Encap.sourcePort, Encap.destinationPort + 2)
      if (withheld) {
        same(State.salted, State.cipher)
        same(State.cipherKey, State.authAlgorithm)
      }
    }
    return equal(found, wanted)
  }
}

const THRESHOLD_BYTES = 4

/** Offsets in a dump, as they are found. */
class List implements RecordList {
  readonly records: Uint8Array
  readonly at: number[] = []

  constructor(records: Uint8Array) {
    this.records = records
  }
}

/** A state's record without the limit on what is told of mappings: kernels before 5.17 do not keep it. */
function withoutThreshold(record: Uint8Array): Uint8Array {
  const at = attributeAt(record, 0, XFRMA.MTIMER_THRESH)
  if (at < 0) return record
  // Eight bytes less, by which records are aligned.
  const [start, end] = [at - ATTRIBUTE_HEAD, at + THRESHOLD_BYTES]
  const less = new Uint8Array(record.length - (end - start))
  less.set(record.subarray(0, start))
  less.set(record.subarray(end), start)
  new DataView(less.buffer).setUint32(State.length, less.length, LITTLE_ENDIAN)
  return less
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Whether two records name one policy, for the kernel: direction, selector, mark and interface id. */
function samePolicyId(a: Uint8Array, b: Uint8Array): boolean {
  if (a[Policy.direction] !== b[Policy.direction] || a[Policy.family] !== b[Policy.family]) return false
  const same = (from: number, to: number) => equal(a.subarray(from, to), b.subarray(from, to))
  if (!same(Policy.destination, Policy.flags) || !same(Policy.interfaceIndex, Policy.priority)) return false
  const sameAttribute = (type: number) => equal(attribute(a, type), attribute(b, type))
  return sameAttribute(XFRMA.MARK) && sameAttribute(XFRMA.IF_ID)
}

function attribute(record: Uint8Array, type: number): Uint8Array {
  const reader = new RecordReader(record)
  reader.next()
  for (const [found, payload] of reader.attributes()) if (found === type) return payload
  return new Uint8Array(0)
}
