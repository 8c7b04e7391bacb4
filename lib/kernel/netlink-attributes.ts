import { HEADER_BYTES, malformed, viewOf } from './attributes.js'
import { Cursor, readText } from './netlink-cursor.js'
import { giveBack, takeBuffer } from './record-buffers.js'
import { align4, LITTLE_ENDIAN } from './records.js'

/**
 * Netlink attributes (struct nlattr, linux/netlink.h), whose headers are in host byte order. Strings end in NUL; the order
 * of integers is a protocol's own: nftables has network byte order, the default here, rtnetlink the host's.
 */

const NESTED = 0x8000
/** What an attribute holds at most: its length is 16 bits and counts its header. */
export const LONGEST_PAYLOAD = 0xffff - HEADER_BYTES
const noBytes = new Uint8Array()

/** Appends attributes to one growing buffer. Throws a RangeError where something does not fit into one. */
export class AttributeWriter {
  #buffer = Buffer.from(takeBuffer(512).buffer)
  #view = viewOf(this.#buffer)
  #end = 0
  readonly #littleEndian: boolean

  /** @param littleEndian whether integers are to be */
  constructor(littleEndian = false) {
    this.#littleEndian = littleEndian
  }

  u8(type: number, value: number): this {
    const at = this.#begin(type, 1)
    this.#buffer[at] = value
    return this
  }

  u32(type: number, value: number): this {
    const at = this.#begin(type, 4)
    this.#view.setUint32(at, value, this.#littleEndian)
    return this
  }

  u64(type: number, value: bigint): this {
    const at = this.#begin(type, 8)
    this.#view.setBigUint64(at, value, this.#littleEndian)
    return this
  }

  text(type: number, value: string): this {
    return this.prefixedText(type, noBytes, value)
  }

  /** Bytes, then a text and its NUL, which takes so many bytes. */
  prefixedText(type: number, prefix: Uint8Array, value: string, valueBytes = textBytes(value)): this {
    const at = this.#begin(type, prefix.length + valueBytes)
    this.overwrite(at, prefix)
    this.#buffer.write(value, at + prefix.length)
    return this
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#begin(type, value.length)
    this.#buffer.set(value, at)
    return this
  }

  /** Begins a nest; what is written until `close` is its payload. Returns what `close` takes. */
  open(type: number): number {
    return this.#begin(type | NESTED, 0) - HEADER_BYTES
  }

  close(nest: number): this {
    const length = this.#end - nest
    if (length - HEADER_BYTES > LONGEST_PAYLOAD) throw tooLong(length - HEADER_BYTES)
    this.#view.setUint16(nest, length, LITTLE_ENDIAN)
    return this
  }

  /** What `fill` writes, as the payload of one attribute. */
  nest(type: number, fill: (writer: this) => void): this {
    const nest = this.open(type)
    fill(this)
    return this.close(nest)
  }

  /** A nest whose attributes are encoded already. */
  nested(type: number, attributes: Uint8Array): this {
    return this.bytes(type | NESTED, attributes)
  }

  /** What is no attribute, as it is, padded to four bytes. Returns where it starts. */
  raw(value: Uint8Array): number {
    const at = this.skip(value.length)
    this.#buffer.set(value, at)
    return at
  }

  /** Leaves zeroes, to a multiple of four bytes. Returns where they start. */
  skip(bytes: number): number {
    const at = this.#end
    const end = at + align4(bytes)
    if (end > this.#buffer.length) this.#grow(end)
    this.#end = end
    return at
  }

  /** How much was written. */
  get position(): number {
    return this.#end
  }

  /** Forgets what was written from there on. */
  truncate(position: number): void {
    this.#buffer.fill(0, position, this.#end)
    this.#end = position
  }

  /** What was written so far. Not to be kept if more is written. */
  get written(): Uint8Array {
    return this.#buffer.subarray(0, this.#end)
  }

  /** The buffer from its beginning, to change what was written. Not to be kept: writing on may make it another. */
  get view(): DataView {
    return this.#view
  }

  /** Writes over what was written, a few bytes: a call of `set` takes longer. */
  overwrite(at: number, value: Uint8Array, from = 0, bytes = value.length): void {
    const buffer = this.#buffer
    for (let i = 0; i < bytes; i++) buffer[at + i] = value[from + i]!
  }

  /** Writes a header, makes room for the payload, zeroed and padded, and says where it starts. */
  #begin(type: number, payload: number): number {
    if (payload > LONGEST_PAYLOAD) throw tooLong(payload)
    const at = this.skip(HEADER_BYTES + payload)
    this.#view.setUint16(at, HEADER_BYTES + payload, LITTLE_ENDIAN)
    this.#view.setUint16(at + 2, type, LITTLE_ENDIAN)
    return at + HEADER_BYTES
  }

  #grow(least: number): void {
    const old = this.#buffer
    // Memory that nothing is written to is none, so that what is copied counts.
    const { buffer, length } = takeBuffer(Math.max(old.length * 4, least))
    this.#buffer = Buffer.from(buffer, 0, length)
    this.#buffer.set(old.subarray(0, this.#end))
    this.#view = viewOf(this.#buffer)
    giveBack(old.subarray(0, this.#end))
  }
}

/** The attributes in `bytes` by type; of several of one type, the last. */
export class Attributes {
  readonly #bytes: Uint8Array
  readonly #types: number[] = []
  /** Where each payload starts and ends, one after the other. */
  readonly #places: number[] = []
  readonly #littleEndian: boolean

  /** @param littleEndian whether integers are */
  constructor(bytes: Uint8Array, littleEndian = false) {
    this.#bytes = bytes
    this.#littleEndian = littleEndian
    for (const cursor = new Cursor(bytes); cursor.next();) {
      this.#types.push(cursor.type)
      this.#places.push(cursor.start, cursor.end)
    }
  }

  has(type: number): boolean {
    return this.#types.includes(type)
  }

  /** Whether there is none of another type. */
  only(...types: number[]): boolean {
    return this.#types.every((type) => types.includes(type))
  }

  bytes(type: number): Uint8Array {
    const index = this.#types.lastIndexOf(type)
    if (index < 0) throw malformed(`attribute ${type} is missing`)
    return this.#bytes.subarray(this.#places[index * 2], this.#places[index * 2 + 1])
  }

  u8(type: number): number {
    return this.#sized(type, 1).getUint8(0)
  }

  u32(type: number): number {
    return this.#sized(type, 4).getUint32(0, this.#littleEndian)
  }

  i32(type: number): number {
    return this.#sized(type, 4).getInt32(0, this.#littleEndian)
  }

  u64(type: number): bigint {
    return this.#sized(type, 8).getBigUint64(0, this.#littleEndian)
  }

  text(type: number): string {
    return readText(this.bytes(type))
  }

  nest(type: number): Attributes {
    return new Attributes(this.bytes(type), this.#littleEndian)
  }

  #sized(type: number, length: number): DataView {
    const payload = this.bytes(type)
    if (payload.length !== length) throw malformed(`attribute ${type} has ${payload.length} bytes, not ${length}`)
    return viewOf(payload)
  }
}

/** How many bytes a string takes in an attribute, its NUL included. */
export function textBytes(text: string): number {
  return Buffer.byteLength(text) + 1
}

function tooLong(bytes: number): RangeError {
  return new RangeError(`${bytes} bytes in one netlink attribute, which holds ${LONGEST_PAYLOAD}`)
}
