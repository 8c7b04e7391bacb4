import { timingSafeEqual } from 'node:crypto'
import { inspect } from 'node:util'

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

  /** Copies `bytes`: what happens to them later changes nothing here, and they are the caller's to wipe. */
  constructor(bytes: Uint8Array) {
    this.#bytes = new Uint8Array(bytes)
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

/** The bytes themselves, not a copy: for handing to the addon, and nothing else. Empty once wiped. */
export function reveal(key: Key): Uint8Array {
  return bytesOf(key)
}
