import { timingSafeEqual } from 'node:crypto'
import { inspect, types } from 'node:util'
import { InvalidArgument } from './errors.js'

let bytesOf: (key: Key) => Uint8Array

/**
 * Key bytes, held so that nothing shows them: not `util.inspect`, JSON, a template string, nor structuredClone (which
 * makes an empty object of it). {@link reveal} is the one way out.
 */
export class Key {
  #bytes: Uint8Array

  static {
    bytesOf = (key) => key.#bytes
  }

  /**
   * Copies `bytes`: what happens to them later changes nothing here, and they are the caller's to wipe.
   * @throws InvalidArgument for anything but bytes: a number would be a key of zeros, that long
   */
  constructor(bytes: Uint8Array) {
    if (!types.isUint8Array(bytes)) throw new InvalidArgument('bytes', 'a Uint8Array')
    this.#bytes = ownBytes(bytes)
  }

  /** In bytes; 0 once wiped. */
  get length(): number {
    return this.#bytes.length
  }

  /** Whether it holds the same bytes, in a time that depends on their number alone. A wiped key equals none. */
  equals(other: Key | Uint8Array): boolean {
    const bytes = other instanceof Key ? other.#bytes : other
    return this.#bytes.length > 0 && bytes.length === this.#bytes.length && timingSafeEqual(bytes, this.#bytes)
  }

  /** Overwrites the bytes, for all who hold this key or a view of it. */
  wipe(): void {
    this.#bytes.fill(0)
    this.#bytes = new Uint8Array(0)
  }

  toString(): string {
    return `Key(${this.length} bytes)`
  }

  toJSON(): string {
    return this.toString()
  }

  [inspect.custom](): string {
    return this.toString()
  }
}

/**
 * A copy of the first `length` bytes of a key, which can be wiped: overwritten, they are nowhere in this process. A Buffer's
 * `slice` is no copy, and V8 keeps what a typed array of up to 64 bytes allocates for itself in its heap, where the
 * garbage collector leaves copies behind; what an ArrayBuffer was made for stays in one place.
 */
export function ownBytes(bytes: Uint8Array, length = bytes.length): Uint8Array {
  const own = new Uint8Array(new ArrayBuffer(length))
  own.set(length === bytes.length ? bytes : bytes.subarray(0, length))
  return own
}

/** The bytes themselves, not a copy: for handing to the addon, and nothing else. Empty once wiped. */
export function reveal(key: Key): Uint8Array {
  return bytesOf(key)
}
