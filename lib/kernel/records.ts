import { ADDRESS_BYTES } from '../base/address.js'
import { giveBack, takeBuffer } from './record-buffers.js'

/**
 * Records: how a batch of XFRM operations crosses into C++, and how a dump comes back. native/record.h holds the same
 * layout and says what each field means; a test compares the offsets below with the compiler's.
 */

export const HEAD_BYTES = 72
const RECORD_ALIGN = 8

export const Operation = {
  addState: 1,
  updateState: 2,
  deleteState: 3,
  addPolicy: 4,
  updatePolicy: 5,
  deletePolicy: 6,
} as const

/** Offsets in bytes from a record's start; all integers in host byte order. */
export const State = {
  length: 0,
  operation: 4,
  family: 5,
  protocol: 6,
  mode: 7,
  destination: 8,
  source: 24,
  spi: 40,
  reqid: 44,
  flags: 48,
  replayWindow: 49,
  salted: 50,
  cipher: 51,
  cipherAlgorithm: 52,
  icvBits: 54,
  cipherKey: 56,
  authAlgorithm: 60,
  authTruncateBits: 62,
  authKey: 64,
  reserved: 68,
} as const

export const Policy = {
  length: 0,
  operation: 4,
  family: 5,
  direction: 6,
  action: 7,
  destination: 8,
  source: 24,
  destinationPort: 40,
  destinationPortMask: 42,
  sourcePort: 44,
  sourcePortMask: 46,
  destinationPrefix: 48,
  sourcePrefix: 49,
  protocol: 50,
  flags: 51,
  interfaceIndex: 52,
  priority: 56,
  index: 60,
  share: 64,
  reserved: 65,
  user: 68,
} as const

export const Cipher = { none: 0, aead: 1, encryption: 2 } as const
export const NO_KEY = 0xffffffff
export const WITHHELD_KEY = 0xfffffffe
export const NO_ALGORITHM = 0xffff

/** Parts of the kernel's fixed structures that travel in the tail, beside XFRMA_* attributes. */
export const Tail = {
  lifetime: 0x1001,
  selector: 0x1002,
  current: 0x1003,
  statistics: 0x1004,
  sequence: 0x1005,
  hard: 0x1006,
  mapping: 0x1007,
  acquire: 0x1008,
} as const

/** What a record from a monitor bears in place of an operation. */
export const Event = {
  stateAdded: 1,
  stateUpdated: 2,
  stateDeleted: 3,
  policyAdded: 4,
  policyUpdated: 5,
  policyDeleted: 6,
  statesFlushed: 7,
  policiesFlushed: 8,
  stateExpired: 9,
  policyExpired: 10,
  mapping: 11,
  acquire: 12,
  lost: 13,
} as const

/** Offsets in the tails of the same names. */
export const MappingTail = { source: 0, port: 16, knownPort: 18 } as const
export const AcquireTail = { destination: 0, source: 16, sequence: 32, protocol: 36, family: 38 } as const

/** Appends records to one growing buffer. No object a record: the caller sets the fields of the record it began. */
export class RecordWriter {
  readonly #head: number
  /** Bytes of the next buffer, once there is something to write. */
  #capacity: number
  #buffer: Uint8Array = new Uint8Array(0)
  #view = viewOf(this.#buffer)
  #words = wordsOf(this.#buffer)
  #start = 0
  #end = 0
  #count = 0

  /** @param head of the records: their bytes before the tail, a multiple of eight */
  constructor(capacity = 16384, head = HEAD_BYTES) {
    this.#head = head
    this.#capacity = capacity
  }

  /** Records begun so far. */
  get count(): number {
    return this.#count
  }

  /** Begins a record of zeros. What is set next is set in it. */
  begin(operation: number): void {
    this.#seal()
    this.#reserve(this.#head)
    this.#start = this.#end
    this.#end += this.#head
    this.#count++
    this.#words[this.#start >> 2] = this.#head
    this.#buffer[this.#start + State.operation] = operation
  }

  u8(offset: number, value: number): void {
    this.#buffer[this.#start + offset] = value
  }

  u16(offset: number, value: number): void {
    this.#view.setUint16(this.#start + offset, value, LITTLE_ENDIAN)
  }

  u32(offset: number, value: number): void {
    this.#words[(this.#start + offset) >> 2] = value
  }

  /** Copies an address: four words from `words` at word index `from` (addresses lie packed, 16 bytes each). */
  address(offset: number, words: Uint32Array, from: number): void {
    const at = (this.#start + offset) >> 2
    this.#words[at] = words[from]!
    this.#words[at + 1] = words[from + 1]!
    this.#words[at + 2] = words[from + 2]!
    this.#words[at + 3] = words[from + 3]!
  }

  bytes(offset: number, bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#start + offset)
  }

  /** Appends an attribute to the record's tail. They must come in ascending order of type. */
  attribute(type: number, payload: Uint8Array): void {
    const length = 4 + payload.length
    this.#reserve(align4(length) + RECORD_ALIGN)
    this.u16(this.#end - this.#start, length)
    this.u16(this.#end - this.#start + 2, type)
    this.#buffer.set(payload, this.#end + 4)
    this.#end += align4(length)
    this.#words[this.#start >> 2] = this.#end - this.#start
  }

  /** Appends attributes that are encoded already, to a record that has none yet: they start at {@link HEAD_BYTES}. */
  tail(attributes: Uint8Array): void {
    this.#reserve(attributes.length + RECORD_ALIGN)
    this.#buffer.set(attributes, this.#end)
    this.#end += attributes.length
    this.#words[this.#start >> 2] = this.#end - this.#start
  }

  /** Pads the last record: a tail continues at four bytes, as netlink's attributes do, a record begins at eight. */
  #seal(): void {
    this.#end = align8(this.#end)
    if (this.#count > 0) this.#words[this.#start >> 2] = this.#end - this.#start
  }

  /** Takes back the record begun last. Nothing can be set until the next is begun. */
  discard(): void {
    this.#buffer.fill(0, this.#start, this.#end)
    this.#end = this.#start
    this.#count--
  }

  /** Appends a whole record made by another writer, or found in a dump. */
  record(bytes: Uint8Array, operation: number): void {
    this.#seal()
    this.#reserve(bytes.length)
    this.#start = this.#end
    this.#buffer.set(bytes, this.#start)
    this.#end += bytes.length
    this.#count++
    this.#buffer[this.#start + State.operation] = operation
  }

  /** Takes the records written so far and leaves the writer empty. Whoever needs them no more gives them back: giveBack(). */
  take(): Uint8Array {
    this.#seal()
    const taken = this.#buffer.subarray(0, this.#end)
    this.#use(new Uint8Array(0))
    this.#start = this.#end = this.#count = 0
    return taken
  }

  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#buffer.length) return
    const old = this.#buffer.subarray(0, this.#end)
    this.#use(takeBuffer(Math.max(this.#buffer.length * 2, this.#capacity, this.#end + bytes)))
    this.#buffer.set(old)
    this.#capacity = this.#buffer.length
    giveBack(old)
  }

  #use(buffer: Uint8Array): void {
    this.#buffer = buffer
    this.#view = viewOf(buffer)
    this.#words = wordsOf(buffer)
  }
}

function viewOf({ buffer }: Uint8Array): DataView {
  return new DataView(buffer)
}

function wordsOf({ buffer }: Uint8Array): Uint32Array {
  return new Uint32Array(buffer)
}

/** Whether this machine stores the low byte first: records and netlink's own integers are in host order. */
export const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

/**
 * Walks a buffer of records: `next()` moves to the next one and says whether there is one; then read its fields. The buffer
 * begins at a multiple of four bytes of its memory, as those of dumps and of {@link RecordWriter} do.
 */
export class RecordReader {
  readonly buffer: Uint8Array
  /** The same in words: a record starts at {@link start} / 4. */
  readonly words: Uint32Array
  readonly #view: DataView
  #next = 0
  /** Where the present record starts. */
  start = 0
  /** Its length, tail included. */
  length = 0

  constructor(buffer: Uint8Array) {
    this.buffer = buffer
    this.words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.byteLength >> 2)
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)
  }

  next(): boolean {
    if (this.#next >= this.buffer.length) return false
    this.start = this.#next
    this.length = this.u32(0)
    this.#next += this.length
    return true
  }

  u8(offset: number): number {
    return this.buffer[this.start + offset]!
  }

  u16(offset: number): number {
    return this.#view.getUint16(this.start + offset, LITTLE_ENDIAN)
  }

  u32(offset: number): number {
    return this.#view.getUint32(this.start + offset, LITTLE_ENDIAN)
  }

  i32(offset: number): number {
    return this.#view.getInt32(this.start + offset, LITTLE_ENDIAN)
  }

  address(offset: number): Uint8Array {
    return this.buffer.subarray(this.start + offset, this.start + offset + ADDRESS_BYTES)
  }

  /** The record's own bytes. */
  record(): Uint8Array {
    return this.buffer.subarray(this.start, this.start + this.length)
  }

  /** The tail's attributes, [type, payload], in order. */
  *attributes(): Generator<[type: number, payload: Uint8Array]> {
    let at = this.start + HEAD_BYTES
    const end = this.start + this.length
    while (at + 4 <= end) {
      const length = this.#view.getUint16(at, LITTLE_ENDIAN)
      if (length < 4) return
      yield [this.#view.getUint16(at + 2, LITTLE_ENDIAN), this.buffer.subarray(at + 4, at + length)]
      at += align4(length)
    }
  }
}

/** Netlink's alignment: of messages and attributes. */
export function align4(n: number): number {
  return (n + 3) & ~3
}

/** That of records. */
export function align8(n: number): number {
  return (n + 7) & ~7
}
