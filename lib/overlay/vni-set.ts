/** What a look-up takes for an empty place: no VNI, which has 24 bits. */
const NONE = 0xffffffff
const LEAST_PLACES = 16
const VNIS = 2 ** 24

/** A set of VNIs, as a table of words: they come by the thousand, and a Set takes ten times as long for each. */
export class VniSet {
  /** Open addressing, linear probing; a power of two, never more than half full. */
  #places: Uint32Array = places(LEAST_PLACES)
  #size = 0

  constructor(vnis: Iterable<number> = []) {
    for (const vni of vnis) this.add(vni)
  }

  get size(): number {
    return this.#size
  }

  /** Makes room for so many more, as far as there are more. */
  reserve(more: number): void {
    const needed = 2 * Math.min(this.#size + more, VNIS)
    if (needed > this.#places.length) this.#grow(2 ** Math.ceil(Math.log2(needed)))
  }

  /** A copy. */
  copy(): VniSet {
    const set = new VniSet()
    set.#places = this.#places.slice()
    set.#size = this.#size
    return set
  }

  has(vni: number): boolean {
    return this.#places[this.#placeOf(vni)] === vni
  }

  /** False if it was there. */
  add(vni: number): boolean {
    const place = this.#placeOf(vni)
    if (this.#places[place] === vni) return false
    this.#places[place] = vni
    if (++this.#size * 2 > this.#places.length) this.#grow(this.#places.length * 2)
    return true
  }

  /** False if it was not there. */
  delete(vni: number): boolean {
    const all = this.#places
    const mask = all.length - 1
    let gap = this.#placeOf(vni)
    if (all[gap] !== vni) return false
    // Those that a probe would no longer reach move up.
    for (let i = (gap + 1) & mask; all[i] !== NONE; i = (i + 1) & mask) {
      const home = hash(all[i]!) & mask
      if (((i - home) & mask) < ((i - gap) & mask)) continue
      all[gap] = all[i]!
      gap = i
    }
    all[gap] = NONE
    // An empty one is gone through at once, whatever was in it.
    if (--this.#size === 0) this.clear()
    return true
  }

  clear(): void {
    if (this.#places.length > LEAST_PLACES || this.#size > 0) this.#places = places(LEAST_PLACES)
    this.#size = 0
  }

  /** In whatever order. */
  toArray(): number[] {
    const all: number[] = []
    for (const word of this.#places) if (word !== NONE) all.push(word)
    return all
  }

  /** In ascending order, of those that are there when it begins. */
  [Symbol.iterator](): IterableIterator<number> {
    return this.toArray()
      .sort((a, b) => a - b)
      [Symbol.iterator]()
  }

  /** Where it is, or would be. */
  #placeOf(vni: number): number {
    const all = this.#places
    const mask = all.length - 1
    let i = hash(vni) & mask
    while (all[i] !== vni && all[i] !== NONE) i = (i + 1) & mask
    return i
  }

  #grow(count: number): void {
    const before = this.#places
    this.#places = places(count)
    for (const vni of before) if (vni !== NONE) this.#places[this.#placeOf(vni)] = vni
  }
}

/** What a set of VNIs is read by. */
export type Vnis = Pick<VniSet, 'has' | 'size' | typeof Symbol.iterator>

function places(count: number): Uint32Array {
  return new Uint32Array(count).fill(NONE)
}

/** 2^32 divided by the golden ratio; its high bits are what is mixed. */
function hash(vni: number): number {
  return Math.imul(vni, 0x9e3779b1) >>> 8
}
