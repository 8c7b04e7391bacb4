import { giveBack, takeBuffer } from '../kernel/record-buffers.js'

/** Bytes of a first buffer: an attachment takes some hundred. */
const LEAST = 4096
/** Longest text that is taken, in UTF-16 code units: no name and no address that is any good is longer. */
const LONGEST = 255
/** The most bytes that one of those takes, its NUL too. */
const ROOM = 3 * LONGEST + 1
/** From here on a call of Node.js's takes less than a loop. */
const SHORT = 32

const none = Buffer.alloc(0)

/**
 * Texts as UTF-8, each ending in NUL, one after the other. They are written at once into memory that was written in before:
 * to join strings makes as many bytes of young garbage, and in some virtual machines to touch those takes longer than all
 * else.
 */
export class Texts {
  readonly #least: number
  #buffer: Buffer = none
  #length = 0

  /** @param like others, which are as long, most likely */
  constructor(like?: Texts) {
    this.#least = Math.max(LEAST, like?.length ?? 0)
  }

  /** How many bytes there are. */
  get length(): number {
    return this.#length
  }

  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length)
  }

  /** False if it is not added: what is no string, has a NUL or half a surrogate pair, or more than 255 UTF-16 code units. */
  add(text: unknown): boolean {
    if (typeof text !== 'string' || text.length > LONGEST) return false
    this.#reserve()
    const end = text.length < SHORT ? this.#writeShort(text) : this.#write(text)
    if (end < 0) {
      this.#buffer.fill(0, this.#length)
      return false
    }
    this.#buffer[end] = 0
    this.#length = end + 1
    return true
  }

  /** The texts from a byte on. */
  read(from: number): string[] {
    return this.#buffer.toString('utf8', from, this.#length).split('\0').slice(0, -1)
  }

  /** Gives the memory back: nobody needs the texts any more. */
  release(): void {
    giveBack(this.bytes)
    this.#buffer = none
    this.#length = 0
  }

  /** Where it ends; -1 if it is not to be added. */
  #writeShort(text: string): number {
    const bytes = this.#buffer
    let at = this.#length
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      if (unit === 0 || unit > 0x7f) return this.#write(text)
      bytes[at++] = unit
    }
    return at
  }

  #write(text: string): number {
    if (text.includes('\0') || !text.isWellFormed()) return -1
    return this.#length + this.#buffer.write(text, this.#length)
  }

  #reserve(): void {
    if (this.#length + ROOM <= this.#buffer.length) return
    const before = this.bytes
    this.#buffer = Buffer.from(takeBuffer(Math.max(this.#least, before.length + ROOM)).buffer)
    this.#buffer.set(before)
    giveBack(before)
  }
}
