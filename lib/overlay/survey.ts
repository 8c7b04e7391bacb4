import { ADDRESS_BYTES } from '../base/address.js'
import { Operation, Policy, RecordReader, RecordWriter, State } from '../kernel/records.js'
import { attributeAt, sameBytes, sameIdentity, sameRecord } from '../kernel/record-identity.js'
import { XFRMA } from '../kernel/xfrm-names.js'
import { Expected } from './expected.js'
import { type Form, mayShare, SharedPolicy, sharedPolicies } from './form.js'
import { POLICY_DIFFERS, PortSource } from './peers.js'
import type { Damage, Is, RecordList, Should } from './state.js'
import { claimant, claimedKey, SpiIndex } from './spi-index.js'
import { Encap, OpWriter } from './writer.js'

/**
 * Compares what the kernel has of ours with what should be, in steps: sets `is` to it (but the networks, which are the
 * firewall's), and finds the damage. Word by word: an SA is as it should be if its record is the one we would write to add it,
 * but for UDP ports, which can be changed. Between steps nothing of what was given may change.
 *
 * A peer's port that nobody gave is taken over from its SAs: it was learned, and packets to the assumed one would go astray.
 * Where they differ, from the outbound one: whoever turned them, and ended before all were, turned that first.
 */
export class Survey {
  readonly #is: Is
  readonly #should: Should
  readonly #form: Form
  readonly #expected: Expected
  /** The shared policies that are wanted, each as a bit and as its record. */
  readonly #shared: readonly (readonly [which: number, record: Uint8Array])[]
  readonly #states: RecordReader
  readonly #policies: RecordReader
  /** Slots of all keys that live: wanted ones, then retired ones. */
  readonly #keys: readonly number[]
  /** Inbound SPIs that the peers' SAs may have, and whose. */
  readonly #spis = new SpiIndex()
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
    this.#expected = new Expected(is, should)
    this.#states = new RecordReader(states)
    this.#policies = new RecordReader(policies)
    this.#stale = { states: new List(states), policies: new List(policies) }
    this.#shared = Object.values(SharedPolicy)
      .filter((which) => (sharedPolicies(this.#form) & which) !== 0)
      .map((which) => {
        const writer = new RecordWriter(256)
        OpWriter.of(should.form).sharedPolicy(writer, Operation.addPolicy, which)
        return [which, writer.take()]
      })
    const { slots, retired } = should.keyring
    this.#keys = [
      ...slots,
      ...Array.from({ length: 32 }, (_, slot) => slot).filter((slot) => ((retired >>> slot) & 1) !== 0),
    ]
    this.#spis.reserve((only?.length ?? is.peers.size) * this.#keys.length)
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
    this.#spis.release()
    return { states: this.#differing, sharedPolicies: this.#differingShared, stale: this.#stale }
  }

  /** Forgets what was thought to be of a peer, and notes what to look for. */
  #expect(slot: number): void {
    const { peers } = this.#is
    if (!peers.has(slot)) return
    peers.inbound[slot] = peers.outbound[slot] = peers.policy[slot] = peers.installedPort[slot] = 0
    for (const key of this.#keys) {
      const spi = this.#form.spis.reverse(this.#should.keyring.tag(key), peers.bytes, slot * ADDRESS_BYTES)
      if (spi !== 0) this.#spis.add(spi, slot, key)
    }
  }

  #state(state: RecordReader): void {
    // An SA without an SPI is larval: it stands for a packet that found none, and goes by itself.
    if (state.u32(State.spi) === 0) return
    const { buffer, start } = state
    const { bytes, family } = this.#form.local
    const inbound = sameBytes(buffer, start + State.destination, bytes, 0, 0, ADDRESS_BYTES)
    const known =
      state.u8(State.family) === family &&
      attributeAt(buffer, start, XFRMA.MARK) < 0 &&
      (inbound ? this.#inbound(state) : this.#outbound(state))
    if (!known) this.#stale.states.at.push(state.start)
  }

  /** Whether this is an inbound SA of a peer's, as it should be or not: then that is noted. */
  #inbound(state: RecordReader): boolean {
    const spi = state.u32(State.spi)
    const owner = this.#spis.first(spi)
    if (owner < 0) return false
    if (this.#spis.count(spi) > 1) return this.#inboundOfSeveral(state, this.#spis.claims(spi))
    const isRight = this.#expected.isState(state, true, claimedKey(owner), claimant(owner))
    if (!isRight && this.#isWanted(owner)) this.#inboundDiffers(owner)
    else this.#hasInbound(state, owner, isRight)
    return true
  }

  #inboundOfSeveral(state: RecordReader, owners: readonly number[]): boolean {
    // An SA that several share bears the source of one, maybe of one that is gone: the kernel does not care. Of several that
    // may not share, it is that one's whose source it bears, or stale.
    const shared = mayShare(this.#form)
    const holders = shared ? owners : this.#borneBy(state, owners)
    const right = holders.filter((packed) =>
      this.#expected.isState(state, true, claimedKey(packed), claimant(packed), shared),
    )
    const wanted = owners.filter((packed) => this.#isWanted(packed))
    // Where it is nobody's that wants it, it goes as if it were the others'. Whoever is planned for first replaces it.
    if (right.length === 0 && wanted.length > 0) {
      for (const packed of wanted) this.#inboundDiffers(packed)
      return true
    }
    // Of one that several share, the ports are those of any of them. It may be one's alone, where others' keys differ.
    const andPort = right.length === 1 || (right.length > 0 && !shared)
    for (const packed of right.length > 0 ? right : holders) this.#hasInbound(state, packed, andPort)
    return holders.length > 0
  }

  #inboundDiffers(packed: number): void {
    this.#differs(claimant(packed)).inbound |= 1 << claimedKey(packed)
  }

  /** Notes that a peer has this inbound SA, and with `andPort` its port too. */
  #hasInbound(state: RecordReader, packed: number, andPort: boolean): void {
    const { peers, claims } = this.#is
    const [slot, key] = [claimant(packed), claimedKey(packed)]
    peers.inbound[slot]! |= 1 << key
    claims.add(state.u32(State.spi), slot, key)
    const port = andPort ? this.#port(slot, state, Encap.sourcePort, Encap.destinationPort) : 0
    if (port !== 0) this.#learned.set(slot, port)
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
    const key = this.#outboundKey(state.u32(State.spi), slot)
    if (key < 0) return false
    const wanted = key === keyring.primary && peers.references[slot]! > 0
    if (wanted && !this.#expected.isState(state, false, key, slot)) {
      this.#differs(slot).outbound |= 1 << key
      return true
    }
    peers.outbound[slot]! |= 1 << key
    const port = wanted ? this.#port(slot, state, Encap.destinationPort, Encap.sourcePort) : 0
    if (port !== 0) this.#learn(slot, port)
    return true
  }

  /** Slot of the key under which the SA to a peer has that SPI, or -1. */
  #outboundKey(spi: number, peer: number): number {
    for (const key of this.#keys) if (this.#forward(key, peer) === spi) return key
    return -1
  }

  /** SPI of the SA to a peer. */
  #forward(key: number, peer: number): number {
    return this.#form.spis.forward(this.#should.keyring.tag(key), this.#is.peers.bytes, peer * ADDRESS_BYTES)
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
    if (!this.#isShared(policy) && !this.#own(policy)) this.#stale.policies.at.push(policy.start)
  }

  /** Whether this is one of our shared policies, as it should be or not: then that is noted. */
  #isShared({ buffer, start }: RecordReader): boolean {
    for (const [which, wanted] of this.#shared) {
      if (!sameIdentity(buffer, start, wanted, 0)) continue
      if (sameRecord(buffer, start, wanted, 0)) this.#is.sharedPolicies |= which
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
    if (this.#expected.isPolicy(policy, slot)) {
      const key = this.#outboundKey(Expected.spiOf(policy), slot)
      if (key >= 0) {
        peers.policy[slot] = key + 1
        return true
      }
    } else if (!sameIdentity(policy.buffer, policy.start, this.#expected.policyOf(slot), 0)) return false
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
}

/** Offsets in a dump, as they are found. */
class List implements RecordList {
  readonly records: Uint8Array
  readonly at: number[] = []

  constructor(records: Uint8Array) {
    this.records = records
  }
}
