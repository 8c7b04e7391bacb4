import { giveBack, takeBuffer } from '../kernel/record-buffers.js'

/** Bytes of a first buffer: an attachment is told in some hundred. */
const LEAST = 4096
/** Longest text that is taken, in UTF-16 code units; no name and no address that is any good is longer. */
const LONGEST = 255
/** The most that one of those takes, its NUL too. */
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
    this.#least = like === undefined ? LEAST : like.#buffer.length
  }

  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length)
  }

  /** How many bytes there are. */
  get length(): number {
    return this.#length
  }

  /** Adds a string of ASCII without a NUL. False for anything else, which is not added. */
  add(text: unknown): boolean {
    if (typeof text !== 'string' || text.length > LONGEST) return false
    this.#reserve()
    const { length } = text
    const bytes = this.#buffer
    const at = this.#length
    if (length >= SHORT) {
      if (text.includes('\0') || bytes.write(text, at) !== length) return false
    } else {
      for (let i = 0; i < length; i++) {
        const unit = text.charCodeAt(i)
        if (unit === 0 || unit > 0x7f) return false
        bytes[at + i] = unit
      }
    }
    bytes[at + length] = 0
    this.#length = at + length + 1
    return true
  }

  /** Puts others in the place of those from a byte on: no longer than 255 characters, and without a NUL. */
  replace(from: number, texts: readonly string[]): void {
    this.#length = from
    for (const text of texts) {
      this.#reserve()
      this.#length += this.#buffer.write(text, this.#length)
      this.#buffer[this.#length++] = 0
    }
  }

  read(): string[] {
    return this.#buffer.toString('utf8', 0, this.#length).split('\0')
  }

  /** Gives the memory back: nobody needs the texts any more. */
  release(): void {
    giveBack(this.bytes)
    this.#buffer = none
    this.#length = 0
  }

  #reserve(): void {
    if (this.#length + ROOM <= this.#buffer.length) return
    const before = this.bytes
    this.#buffer = Buffer.from(takeBuffer(Math.max(this.#least, 2 * before.buffer.byteLength)).buffer)
    this.#buffer.set(before)
    giveBack(before)
  }
}
