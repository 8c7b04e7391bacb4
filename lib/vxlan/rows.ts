import { powerOfTwo } from '../base/packed-index.js'

const FIRST_CAPACITY = 64

/** How the kernel's entry stands to what is wanted, as far as is known. */
export const Standing = {
  /** It may be there or not, and be right or not. */
  unknown: 0,
  right: 1,
  /** A look found another in its place. */
  differs: 2,
  /** There is none: it is held back until its VTEP is ready. */
  held: 3,
} as const

/** Which rows of a table of columns are in use. A row keeps its number; a freed one is used again. */
export class Rows {
  /** Rows that there is room for. */
  capacity = FIRST_CAPACITY
  /** Rows in use. */
  size = 0
  readonly #grow: (capacity: number) => void
  #used = new Uint8Array(FIRST_CAPACITY)
  /** Of a free row: the next free row + 1. */
  #nextFree = new Uint32Array(FIRST_CAPACITY)
  #free = 0
  #end = 0

  /** @param grow makes the columns as long as that, before a row that needs it is given out */
  constructor(grow: (capacity: number) => void) {
    this.#grow = grow
  }

  has(row: number): boolean {
    return this.#used[row] === 1
  }

  *live(): Generator<number> {
    for (let row = 0; row < this.#end; row++) if (this.#used[row] === 1) yield row
  }

  /** Makes room for so many rows in all, if there is less. */
  reserve(count: number): void {
    if (count <= this.capacity) return
    this.capacity = powerOfTwo(count)
    this.#used = wider(this.#used, new Uint8Array(this.capacity))
    this.#nextFree = wider(this.#nextFree, new Uint32Array(this.capacity))
    this.#grow(this.capacity)
  }

  /** A row that was free. What is in its columns is anything. */
  allot(): number {
    if (this.#free === 0 && this.#end === this.capacity) this.reserve(this.capacity * 2)
    const row = this.#free > 0 ? this.#free - 1 : this.#end++
    if (this.#free > 0) this.#free = this.#nextFree[row]!
    this.#used[row] = 1
    this.size++
    return row
  }

  free(row: number): void {
    this.#used[row] = 0
    this.#nextFree[row] = this.#free
    this.#free = row + 1
    this.size--
  }
}

/** The same column with more room. */
export function wider<T extends Uint8Array | Uint32Array | Int32Array>(old: T | undefined, fresh: T): T {
  if (old) fresh.set(old)
  return fresh
}

/** Whether two keys of so many words, each at its word of a column, are the same. */
export function sameWords(one: Uint32Array, at: number, other: Uint32Array, from: number, words: number): boolean {
  for (let i = 0; i < words; i++) if (one[at + i] !== other[from + i]) return false
  return true
}

export function copyWords(from: Uint32Array, at: number, into: Uint32Array, to: number, words: number): void {
  for (let i = 0; i < words; i++) into[to + i] = from[at + i]!
}
