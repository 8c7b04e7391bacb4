import { familyOf, LAST_TWO_BYTES } from '../base/address-key.js'
import { AF_INET } from '../base/address.js'
import { RecordReader, RecordWriter } from './records.js'

/**
 * Records of neighbours: entries of a link's forwarding database (FDB: from a MAC to where its frames go) and of the
 * neighbour tables (from an inner address to its MAC). native/route/record.h holds the same layout and says what each
 * field means; a test compares the offsets below with the compiler's.
 *
 * Addresses come and go as keys (address-key.ts). A MAC is two words: two zero bytes, then its six.
 */

export const NEIGHBOUR_BYTES = 56
export const MAC_WORDS = 2
/** Where a MAC begins in its two words. */
export const MAC_OFFSET = 2

/** linux/socket.h: the family of FDB entries. */
export const AF_BRIDGE = 7

export const NeighbourOperation = { set: 1, delete: 2 } as const
export type NeighbourOperation = (typeof NeighbourOperation)[keyof typeof NeighbourOperation]

/** Offsets in bytes; all integers in host byte order. */
export const Neighbour = {
  length: 0,
  operation: 4,
  family: 5,
  destinationFamily: 6,
  flags: 7,
  state: 8,
  port: 10,
  given: 12,
  reserved: 13,
  linkAddress: 14,
  interfaceIndex: 20,
  destination: 24,
  vni: 40,
  interfaceTo: 44,
  nexthop: 48,
  padding: 52,
} as const

/** Of `given`: fields that hold something. */
const Given = { linkAddress: 1, nexthop: 16 } as const

/** linux/neighbour.h. */
const NUD_PERMANENT = 0x80
const NTF_SELF = 0x02
const NTF_EXT_LEARNED = 0x10

/** The word with `given` and the first two bytes of the MAC. */
const MAC_HEAD = Neighbour.linkAddress - MAC_OFFSET

/** Writes records of one link's entries, all of them permanent. */
export class NeighbourWriter {
  readonly #records: RecordWriter
  readonly #interfaceIndex: number

  /** @param capacity records that there is room for at first */
  constructor(interfaceIndex: number, capacity: number) {
    this.#interfaceIndex = interfaceIndex
    this.#records = new RecordWriter(capacity * NEIGHBOUR_BYTES, NEIGHBOUR_BYTES)
  }

  get count(): number {
    return this.#records.count
  }

  /** The FDB entry of the MAC at word `mac` of `macs` to the address at word `to` of `addresses`. */
  fdb(operation: NeighbourOperation, macs: Uint32Array, mac: number, addresses: Uint32Array, to: number): void {
    this.wholeFdb(operation, macs, mac)
    this.#destination(addresses, to)
  }

  /** The FDB entry of a MAC, wherever it leads. */
  wholeFdb(operation: NeighbourOperation, macs: Uint32Array, mac: number): void {
    this.#begin(operation, AF_BRIDGE, macs, mac)
    this.#records.u8(Neighbour.flags, NTF_SELF)
  }

  /** The neighbour entry of an address, with its MAC. */
  neighbour(operation: NeighbourOperation, addresses: Uint32Array, ip: number, macs: Uint32Array, mac: number): void {
    this.#begin(operation, familyOf(addresses, ip), macs, mac)
    this.#destination(addresses, ip)
  }

  /** A record of a dump, to be deleted. */
  deletion(record: Uint8Array): void {
    this.#records.record(record, NeighbourOperation.delete)
  }

  take(): Uint8Array {
    return this.#records.take()
  }

  #begin(operation: NeighbourOperation, family: number, macs: Uint32Array, mac: number): void {
    const records = this.#records
    records.begin(operation)
    records.u8(Neighbour.family, family)
    records.u16(Neighbour.state, NUD_PERMANENT)
    records.u32(MAC_HEAD, macs[mac]!)
    records.u32(MAC_HEAD + 4, macs[mac + 1]!)
    records.u8(Neighbour.given, Given.linkAddress)
    records.u32(Neighbour.interfaceIndex, this.#interfaceIndex)
  }

  #destination(addresses: Uint32Array, at: number): void {
    const family = familyOf(addresses, at)
    this.#records.u8(Neighbour.destinationFamily, family)
    if (family === AF_INET) this.#records.u32(Neighbour.destination, addresses[at + 3]!)
    else this.#records.address(Neighbour.destination, addresses, at)
  }
}

/** Walks the records of a dump. */
export class NeighbourReader {
  readonly #reader: RecordReader

  constructor(records: Uint8Array) {
    this.#reader = new RecordReader(records)
  }

  next(): boolean {
    return this.#reader.next()
  }

  /** The present record's own bytes. */
  record(): Uint8Array {
    return this.#reader.record()
  }

  /** Whether somebody put it there to stay, and no control plane that keeps entries of its own (NTF_EXT_LEARNED). */
  get isPermanent(): boolean {
    const learned = (this.#reader.u8(Neighbour.flags) & NTF_EXT_LEARNED) !== 0
    return !learned && (this.#reader.u16(Neighbour.state) & NUD_PERMANENT) !== 0
  }

  /** Of an FDB entry: whether it leads to an address alone, over the link's own port and VNI. */
  get isPlain(): boolean {
    const { given, destinationFamily } = Neighbour
    return this.#reader.u8(given) === Given.linkAddress && this.#reader.u8(destinationFamily) !== 0
  }

  /** Whether a group of next hops stands in place of its destination. */
  get hasNexthop(): boolean {
    return (this.#reader.u8(Neighbour.given) & Given.nexthop) !== 0
  }

  /** Its MAC, into two words; zeros if it has none. */
  mac(into: Uint32Array): void {
    const at = (this.#reader.start + MAC_HEAD) >> 2
    into[0] = this.#reader.words[at]! & LAST_TWO_BYTES
    into[1] = this.#reader.words[at + 1]!
  }

  /** Where an FDB entry leads, or whose a neighbour entry is, into four words; zeros if it has none. */
  destination(into: Uint32Array): void {
    const at = (this.#reader.start + Neighbour.destination) >> 2
    if (this.#reader.u8(Neighbour.destinationFamily) === AF_INET) {
      into[0] = into[1] = 0
      into[2] = LAST_TWO_BYTES
      into[3] = this.#reader.words[at]!
    } else {
      for (let i = 0; i < 4; i++) into[i] = this.#reader.words[at + i]!
    }
  }
}
