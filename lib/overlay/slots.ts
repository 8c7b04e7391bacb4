/** Peers' slots, each once, in the order in which they came first. A Set of as many would be megabytes. */
export class Slots {
  readonly #list: number[] = []
  /** A bit for each slot that is in the list. */
  #bits = new Uint32Array(64)

  add(slot: number): void {
    const word = slot >>> 5
    const bit = 1 << (slot & 31)
    if (word >= this.#bits.length) this.#grow(word)
    if ((this.#bits[word]! & bit) !== 0) return
    this.#bits[word]! |= bit
    this.#list.push(slot)
  }

  list(): readonly number[] {
    return this.#list
  }

  #grow(word: number): void {
    const bits = new Uint32Array(Math.max(word + 1, 2 * this.#bits.length))
    bits.set(this.#bits)
    this.#bits = bits
  }
}
