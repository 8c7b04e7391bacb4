/** Finds rows of a table by their keys, which lie packed in a column of it. Rows are numbers; a key is in it once. */
export class PackedIndex {
  /** Words of a key. */
  readonly #width: number
  /** The column: the key of row r begins at word r * width. */
  #keys!: Uint32Array
  /** Open addressing, linear probing: row + 1, 0 for none. Never more than half full. */
  #table!: Uint32Array

  /** @param width in 32-bit words */
  constructor(width: number) {
    this.#width = width
  }

  /** Takes a column with room for so many rows in place of the one before, and the rows that are in it. */
  rebuild(keys: Uint32Array, capacity: number, rows: Iterable<number>): void {
    this.#keys = keys
    this.#table = new Uint32Array(powerOfTwo(capacity * 2))
    for (const row of rows) this.add(row)
  }

  /** The row of the key at word `at` of `words`, or -1. */
  find(words: Uint32Array, at = 0): number {
    const table = this.#table
    const mask = table.length - 1
    for (let i = this.#hash(words, at) & mask; ; i = (i + 1) & mask) {
      const row = table[i]! - 1
      if (row < 0 || this.#equal(row, words, at)) return row
    }
  }

  /** Adds a row whose key is in the column by now, and in no other row of the index. */
  add(row: number): void {
    const mask = this.#table.length - 1
    let i = this.#home(row)
    while (this.#table[i] !== 0) i = (i + 1) & mask
    this.#table[i] = row + 1
  }

  /** Puts a row in the place of another that has the same key. */
  replace(row: number, by: number): void {
    const mask = this.#table.length - 1
    let i = this.#home(row)
    while (this.#table[i] !== row + 1) i = (i + 1) & mask
    this.#table[i] = by + 1
  }

  /** Takes a row out and moves up those that a probe would no longer reach. */
  remove(row: number): void {
    const table = this.#table
    const mask = table.length - 1
    let gap = this.#home(row)
    while (table[gap] !== row + 1) gap = (gap + 1) & mask
    for (let i = (gap + 1) & mask; table[i] !== 0; i = (i + 1) & mask) {
      const home = this.#home(table[i]! - 1)
      if (((i - home) & mask) < ((i - gap) & mask)) continue
      table[gap] = table[i]!
      gap = i
    }
    table[gap] = 0
  }

  #equal(row: number, words: Uint32Array, at: number): boolean {
    const from = row * this.#width
    for (let i = 0; i < this.#width; i++) if (this.#keys[from + i] !== words[at + i]) return false
    return true
  }

  #home(row: number): number {
    return this.#hash(this.#keys, row * this.#width) & (this.#table.length - 1)
  }

  /** Mixes the words so that keys that differ in any one bit part, whichever the byte order: MurmurHash3's finalizer. */
  #hash(words: Uint32Array, at: number): number {
    let h = 0
    for (let i = 0; i < this.#width; i++) {
      h ^= words[at + i]!
      h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
      h ^= h >>> 16
    }
    return h
  }
}

/** The least power of two that is not below `least`, 1 to 2^30. */
export function powerOfTwo(least: number): number {
  return 1 << (32 - Math.clz32(least - 1))
}
