import { eachAttribute, HEADER_BYTES, malformed, viewOf } from './attributes.js'
import { align4, LITTLE_ENDIAN } from './records.js'

/**
 * Netlink attributes (struct nlattr, linux/netlink.h) as nftables has them: integers in network byte order, strings that
 * end in NUL. Headers are in host byte order.
 */

const NESTED = 0x8000
/** What an attribute holds at most: its length is 16 bits and counts its header. */
export const LONGEST_PAYLOAD = 0xffff - HEADER_BYTES

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** Appends attributes to one growing buffer. Throws a RangeError where something does not fit into one. */
export class AttributeWriter {
  #buffer = new Uint8Array(512)
  #view = new DataView(this.#buffer.buffer)
  #end = 0

  u8(type: number, value: number): this {
    this.#buffer[this.#begin(type, 1)] = value
    return this
  }

  u32(type: number, value: number): this {
    const at = this.#begin(type, 4)
    this.#view.setUint32(at, value)
    return this
  }

  u64(type: number, value: bigint): this {
    const at = this.#begin(type, 8)
    this.#view.setBigUint64(at, value)
    return this
  }

  text(type: number, value: string): this {
    const bytes = encoder.encode(value)
    const at = this.#begin(type, bytes.length + 1)
    this.#buffer.set(bytes, at)
    return this
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#begin(type, value.length)
    this.#buffer.set(value, at)
    return this
  }

  /** What `fill` writes, as the payload of one attribute. */
  nest(type: number, fill: (writer: this) => void): this {
    const at = this.#begin(type | NESTED, 0)
    fill(this)
    const payload = this.#end - at
    if (payload > LONGEST_PAYLOAD) throw tooLong(payload)
    this.#view.setUint16(at - HEADER_BYTES, HEADER_BYTES + payload, LITTLE_ENDIAN)
    return this
  }

  /** A nest whose attributes are encoded already. */
  nested(type: number, attributes: Uint8Array): this {
    return this.bytes(type | NESTED, attributes)
  }

  /** What was written so far. Writing on may make it a copy. */
  get written(): Uint8Array {
    return this.#buffer.subarray(0, this.#end)
  }

  /** Writes a header, makes room for the payload, zeroed and padded, and says where it starts. */
  #begin(type: number, payload: number): number {
    if (payload > LONGEST_PAYLOAD) throw tooLong(payload)
    const at = this.#end + HEADER_BYTES
    const end = at + align4(payload)
    if (end > this.#buffer.length) this.#grow(end)
    this.#view.setUint16(this.#end, HEADER_BYTES + payload, LITTLE_ENDIAN)
    this.#view.setUint16(this.#end + 2, type, LITTLE_ENDIAN)
    this.#end = end
    return at
  }

  #grow(least: number): void {
    const old = this.#buffer
    this.#buffer = new Uint8Array(Math.max(old.length * 2, least))
    this.#buffer.set(old)
    this.#view = new DataView(this.#buffer.buffer)
  }
}

/** The attributes in `bytes` by type; of several of one type, the last. */
export class Attributes {
  readonly #byType: Map<number, Uint8Array>

  constructor(bytes: Uint8Array) {
    this.#byType = new Map(eachAttribute(bytes))
  }

  has(type: number): boolean {
    return this.#byType.has(type)
  }

  /** Whether there is none of another type. */
  only(...types: number[]): boolean {
    return [...this.#byType.keys()].every((type) => types.includes(type))
  }

  bytes(type: number): Uint8Array {
    const payload = this.#byType.get(type)
    if (payload === undefined) throw malformed(`attribute ${type} is missing`)
    return payload
  }

  u8(type: number): number {
    return this.#sized(type, 1).getUint8(0)
  }

  u32(type: number): number {
    return this.#sized(type, 4).getUint32(0)
  }

  i32(type: number): number {
    return this.#sized(type, 4).getInt32(0)
  }

  u64(type: number): bigint {
    return this.#sized(type, 8).getBigUint64(0)
  }

  text(type: number): string {
    return readText(this.bytes(type))
  }

  nest(type: number): Attributes {
    return new Attributes(this.bytes(type))
  }

  #sized(type: number, length: number): DataView {
    const payload = this.bytes(type)
    if (payload.length !== length) throw malformed(`attribute ${type} has ${payload.length} bytes, not ${length}`)
    return viewOf(payload)
  }
}

/** A string up to its NUL, or to the end. */
export function readText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end))
}

/** How many bytes a string takes in an attribute, its NUL included. */
export function textBytes(text: string): number {
  return encoder.encode(text).length + 1
}

function tooLong(bytes: number): RangeError {
  return new RangeError(`${bytes} bytes in one netlink attribute, which holds ${LONGEST_PAYLOAD}`)
}
