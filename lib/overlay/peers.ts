import { ADDRESS_BYTES, type Family, formatAddress, parseAddress } from '../base/address.js'
import { PackedIndex, powerOfTwo } from '../base/packed-index.js'

/** `policy` of a peer whose own policy is installed, but not as it should be. */
export const POLICY_DIFFERS = 255

/** Where a peer's port is from. */
export const PortSource = {
  /** It is this node's own: nobody said another. If the kernel's SAs of an earlier process have another, that is taken over. */
  assumed: 0,
  /** The caller gave it: it stays. */
  given: 1,
  /** An authenticated packet came from it, to this process or an earlier one. */
  learned: 2,
} as const

/** Who has references to a peer: those who added it, or endpoints at it. Neither takes the other's. */
export type Referrer = 'callers' | 'endpoints'

const WORDS = ADDRESS_BYTES / 4
const FIRST_CAPACITY = 64

/**
 * The peers of an Overlay: what is wanted of each (its references) and what is installed for it, in columns of typed
 * arrays, a row ("slot") a peer. A peer keeps its slot until it is released; free slots are used again.
 *
 * Columns are replaced when the table grows: read them from the table anew after an {@link insert}.
 */
export class PeerTable {
  /** All addresses are of this family: packed, those of two families could be equal. */
  readonly family: Family
  /** Addresses, four words a slot, in the byte order of records. */
  words!: Uint32Array
  /** The same addresses, 16 bytes a slot. */
  bytes!: Uint8Array
  /** How often each was added and not removed, and endpoints at it. Change it by {@link retain} and {@link drop}. */
  references!: Uint32Array
  /** How many of these are endpoints'. */
  endpoints!: Uint32Array
  /** Mask of the key slots whose inbound SA is installed. */
  inbound!: Uint32Array
  /** Mask of the key slots whose outbound SA is installed. */
  outbound!: Uint32Array
  /** Key slot + 1 of the SA that the peer's own policy names; 0 if it has none; {@link POLICY_DIFFERS}. */
  policy!: Uint8Array
  /** UDP port of the peer's that its SAs should have; 0 where ESP goes without UDP. */
  port!: Uint16Array
  /** One of {@link PortSource}. */
  portSource!: Uint8Array
  /** The port that all its SAs do have; 0 if they differ. */
  installedPort!: Uint16Array
  /** 1 if the last attempt to make it as it should be failed. */
  degraded!: Uint8Array

  /** 1 where a slot is in use. A free slot's first word is the next free slot + 1. */
  #live!: Uint8Array
  /** Slots by address. */
  readonly #index = new PackedIndex(WORDS)
  #end = 0
  #free = 0
  #size = 0
  #wanted = 0
  readonly #scratch = new Uint32Array(WORDS)
  readonly #scratchBytes = new Uint8Array(this.#scratch.buffer)

  constructor(family: Family) {
    this.family = family
    this.#grow(FIRST_CAPACITY)
  }

  /** Slots in use. */
  get size(): number {
    return this.#size
  }

  /** Peers with references. */
  get wanted(): number {
    return this.#wanted
  }

  /** All slots in use are below it. */
  get end(): number {
    return this.#end
  }

  has(slot: number): boolean {
    return slot < this.#end && this.#live[slot] === 1
  }

  /** The slots in use. */
  *slots(): Generator<number> {
    for (let slot = 0; slot < this.#end; slot++) if (this.#live[slot] === 1) yield slot
  }

  /** Canonical text of a peer's address. */
  text(slot: number): string {
    return formatAddress(this.bytes, slot * ADDRESS_BYTES, this.family)
  }

  /**
   * Parses an address and keeps it as the one that {@link find} and {@link insert} are about; returns its family, or 0
   * if it is no address. No allocation for IPv4.
   */
  parse(text: string): Family | 0 {
    return parseAddress(text, this.#scratchBytes)
  }

  /** Keeps packed bytes (16 at `offset`) as the address that {@link find} and {@link insert} are about. */
  load(bytes: Uint8Array, offset = 0): void {
    for (let i = 0; i < ADDRESS_BYTES; i++) this.#scratchBytes[i] = bytes[offset + i]!
  }

  /** The address last parsed or loaded: 16 bytes, overwritten by the next. */
  get address(): Uint8Array {
    return this.#scratchBytes
  }

  /** Slot of the address last parsed or loaded, or -1. */
  find(): number {
    return this.#index.find(this.#scratch)
  }

  /** Slot of the peer of that address; -1 if there is none, or it is no address of this table's family. */
  lookup(text: string): number {
    return this.parse(text) === this.family ? this.find() : -1
  }

  /** Makes room for that many peers in all. */
  reserve(peers: number): void {
    if (peers > this.#live.length) this.#grow(powerOfTwo(peers))
  }

  /** Slot of the address last parsed or loaded; a new one, with no references and nothing installed, if it had none. */
  insert(): number {
    const found = this.find()
    if (found >= 0) return found
    if (this.#free === 0 && this.#end === this.#live.length) this.#grow(this.#end * 2)
    let slot = this.#free - 1
    if (slot >= 0) this.#free = this.words[slot * WORDS]!
    else slot = this.#end++
    this.words.set(this.#scratch, slot * WORDS)
    this.#live[slot] = 1
    this.#size++
    this.#index.add(slot)
    return slot
  }

  /** Counts one more reference and returns how many there are. */
  retain(slot: number, referrer: Referrer = 'callers'): number {
    if (referrer === 'endpoints') this.endpoints[slot]!++
    const count = ++this.references[slot]!
    if (count === 1) this.#wanted++
    return count
  }

  /** Counts one reference less of these, if there is one, and returns how many of them there were. */
  drop(slot: number, referrer: Referrer = 'callers'): number {
    const endpoints = this.endpoints[slot]!
    const all = this.references[slot]!
    const count = referrer === 'endpoints' ? endpoints : all - endpoints
    if (count === 0) return 0
    if (referrer === 'endpoints') this.endpoints[slot] = endpoints - 1
    this.references[slot] = all - 1
    if (all === 1) this.#wanted--
    return count
  }

  /** Leaves no reference to any. */
  dropAll(): void {
    this.references.fill(0)
    this.endpoints.fill(0)
    this.#wanted = 0
  }

  /** Whether nothing is wanted of it and nothing of it is installed: it may be released. */
  isGone(slot: number): boolean {
    return (
      this.references[slot] === 0 &&
      this.inbound[slot] === 0 &&
      this.outbound[slot] === 0 &&
      this.policy[slot] === 0 &&
      this.has(slot)
    )
  }

  /** Releases those of the slots (default: of all) that are gone, and returns how many those were. */
  sweep(slots: Iterable<number> = this.slots()): number {
    let count = 0
    for (const slot of slots) {
      if (!this.isGone(slot)) continue
      this.release(slot)
      count++
    }
    return count
  }

  /** Frees a slot in use, whatever is in it. */
  release(slot: number): void {
    this.#index.remove(slot)
    if (this.references[slot]! > 0) this.#wanted--
    this.references[slot] = this.endpoints[slot] = this.inbound[slot] = this.outbound[slot] = 0
    this.policy[slot] = this.degraded[slot] = this.#live[slot] = 0
    this.port[slot] = this.portSource[slot] = this.installedPort[slot] = 0
    this.words[slot * WORDS] = this.#free
    this.#free = slot + 1
    this.#size--
  }

  /** Mask of the key slots that any SA or policy of any peer still bears. */
  keysInUse(): number {
    let mask = 0
    for (let slot = 0; slot < this.#end; slot++) {
      const policy = this.policy[slot]!
      mask |= this.inbound[slot]! | this.outbound[slot]!
      if (policy !== 0 && policy !== POLICY_DIFFERS) mask |= 1 << (policy - 1)
    }
    return mask >>> 0
  }

  #grow(capacity: number): void {
    this.words = wider(this.words, new Uint32Array(capacity * WORDS))
    this.bytes = new Uint8Array(this.words.buffer)
    this.references = wider(this.references, new Uint32Array(capacity))
    this.endpoints = wider(this.endpoints, new Uint32Array(capacity))
    this.inbound = wider(this.inbound, new Uint32Array(capacity))
    this.outbound = wider(this.outbound, new Uint32Array(capacity))
    this.policy = wider(this.policy, new Uint8Array(capacity))
    this.port = wider(this.port, new Uint16Array(capacity))
    this.portSource = wider(this.portSource, new Uint8Array(capacity))
    this.installedPort = wider(this.installedPort, new Uint16Array(capacity))
    this.degraded = wider(this.degraded, new Uint8Array(capacity))
    this.#live = wider(this.#live, new Uint8Array(capacity))
    this.#index.rebuild(this.words, capacity, this.slots())
  }
}

function wider<T extends Uint8Array | Uint16Array | Uint32Array>(old: T | undefined, fresh: T): T {
  if (old) fresh.set(old)
  return fresh
}
