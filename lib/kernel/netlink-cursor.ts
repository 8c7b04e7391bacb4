import { HEADER_BYTES, malformed, TYPE_MASK, viewOf } from './attributes.js'
import { align4, LITTLE_ENDIAN } from './records.js'

const MESSAGE_HEADER = 16
/** struct nfgenmsg: family, version, resource. */
const NFGENMSG = 4

/** Walks messages and attributes by the ten thousand: no object is made of any. */
export class Cursor {
  /** Of the message or attribute that it stands on: NFT_MSG_*, RTM_*, NFTA_*, IFLA_*, and a message's family. */
  type = 0
  family = 0
  /** Where its payload is: of a message, the attributes. */
  start = 0
  end = 0
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #buffer: Buffer | undefined
  #next = 0
  #limit = 0
  readonly #headBytes: number

  /** All of `bytes`, before the first. @param headBytes of what stands between a message's header and its attributes */
  constructor(bytes: Uint8Array, headBytes = NFGENMSG) {
    this.#bytes = bytes
    this.#headBytes = headBytes
    this.#view = viewOf(bytes)
    this.#limit = bytes.length
  }

  /** The attributes in the payload of what another cursor on the same bytes stands on, before the first. */
  enter({ start, end }: Cursor): this {
    this.#next = start
    this.#limit = end
    return this
  }

  /** Goes to the next message; false at the end. @throws XfrmeshError where a length leads out of the bytes */
  nextMessage(): boolean {
    const at = this.#next
    if (at >= this.#limit) return false
    const length = at + MESSAGE_HEADER <= this.#limit ? this.#view.getUint32(at, LITTLE_ENDIAN) : 0
    if (length < MESSAGE_HEADER + this.#headBytes || at + length > this.#limit) {
      throw malformed('a message of no possible length')
    }
    this.type = this.#view.getUint16(at + 4, LITTLE_ENDIAN) & 0xff
    this.family = this.#bytes[at + MESSAGE_HEADER]!
    this.start = at + MESSAGE_HEADER + this.#headBytes
    this.end = at + length
    this.#next = at + align4(length)
    return true
  }

  /** Goes to the next attribute; false at the end. @throws XfrmeshError where a length leads out of the bytes */
  next(): boolean {
    const at = this.#next
    if (at >= this.#limit) return false
    const length = at + HEADER_BYTES <= this.#limit ? this.#view.getUint16(at, LITTLE_ENDIAN) : 0
    if (length < HEADER_BYTES || at + length > this.#limit) throw malformed('an attribute of no possible length')
    this.type = this.#view.getUint16(at + 2, LITTLE_ENDIAN) & TYPE_MASK
    this.start = at + HEADER_BYTES
    this.end = at + length
    this.#next = at + align4(length)
    return true
  }

  /** What a message has before its attributes. */
  get head(): DataView {
    return viewOf(this.#bytes.subarray(this.start - this.#headBytes, this.start))
  }

  /** The payload, as a part of the bytes. */
  get payload(): Uint8Array {
    return this.#bytes.subarray(this.start, this.end)
  }

  /** In network byte order, as nftables has integers. */
  u32(): number {
    this.#sized(4)
    return this.#view.getUint32(this.start)
  }

  /** Handles are counted up from 1, times are of days: 2^53 are never reached. */
  u64(): number {
    this.#sized(8)
    return this.#view.getUint32(this.start) * 0x1_0000_0000 + this.#view.getUint32(this.start + 4)
  }

  text(): string {
    return readText(this.buffer, this.start, this.end)
  }

  /** All of the bytes, to read texts from. */
  get buffer(): Buffer {
    return (this.#buffer ??= bufferOf(this.#bytes))
  }

  /** A copy of the payload. */
  copy(): Uint8Array {
    const copy = new Uint8Array(this.end - this.start)
    for (let i = 0; i < copy.length; i++) copy[i] = this.#bytes[this.start + i]!
    return copy
  }

  /** Whether the payload is what there is between two other places of the same bytes. */
  repeats(start: number, end: number): boolean {
    if (end - start !== this.end - this.start) return false
    for (let i = start, j = this.start; i < end; i++, j++) if (this.#bytes[i] !== this.#bytes[j]) return false
    return true
  }

  #sized(length: number): void {
    const found = this.end - this.start
    if (found !== length) throw malformed(`attribute ${this.type} has ${found} bytes, not ${length}`)
  }
}

/** A string up to its NUL, or to the end. */
export function readText(bytes: Uint8Array, start = 0, end = bytes.length): string {
  const text = bufferOf(bytes).toString('utf8', start, bytes[end - 1] === 0 ? end - 1 : end)
  const nul = text.indexOf('\0')
  return nul < 0 ? text : text.slice(0, nul)
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}
