/** A VNI is 24 bits; RFC 7348 excludes none. */
const VNI_BITS = 24
export const LAST_VNI = 2 ** VNI_BITS - 1

/** A page is of 4,096 VNIs, a bit each. */
const PAGE_BITS = 12
const PAGE_WORDS = 2 ** PAGE_BITS / 32

/** What an empty set has: no page but number 0, which stands for each that is not there, and stays empty. */
const NO_PAGES = new Uint16Array(2 ** (VNI_BITS - PAGE_BITS))
const NO_WORDS = new Uint32Array(PAGE_WORDS)

/**
 * A set of VNIs, as pages of bits: who gives out VNIs does so one after the other, and 10,000 in a row are three pages.
 * However they lie, it takes up to 2 MiB. They come by the thousand, and a Set takes ten times as long for each.
 */
export class VniSet {
  /** The page that VNIs with these high bits are in, for all high bits. */
  #pages = NO_PAGES
  /** The pages, one after the other, and room for more. */
  #words = NO_WORDS
  /** Pages that are used, number 0 among them. */
  #used = 1
  #size = 0

  constructor(vnis: Iterable<number> = []) {
    for (const vni of vnis) this.add(vni)
  }

  get size(): number {
    return this.#size
  }

  /** A copy. */
  copy(): VniSet {
    const set = new VniSet()
    if (this.#size === 0) return set
    set.#pages = this.#pages.slice()
    set.#words = this.#words.slice()
    set.#used = this.#used
    set.#size = this.#size
    return set
  }

  has(vni: number): boolean {
    const at = this.#pages[vni >> PAGE_BITS]! * PAGE_WORDS + wordOf(vni)
    return (this.#words[at]! & bitOf(vni)) !== 0
  }

  /** False if it was there. @throws RangeError for what is no VNI */
  add(vni: number): boolean {
    if ((vni & LAST_VNI) !== vni) throw new RangeError(`a VNI is ${VNI_BITS} bits, and not ${vni}`)
    const page = this.#pages[vni >> PAGE_BITS]! || this.#open(vni >> PAGE_BITS)
    const at = page * PAGE_WORDS + wordOf(vni)
    const word = this.#words[at]!
    if ((word & bitOf(vni)) !== 0) return false
    this.#words[at] = word | bitOf(vni)
    this.#size++
    return true
  }

  /** False if it was not there. */
  delete(vni: number): boolean {
    const at = this.#pages[vni >> PAGE_BITS]! * PAGE_WORDS + wordOf(vni)
    const word = this.#words[at]!
    if ((word & bitOf(vni)) === 0) return false
    this.#words[at] = word & ~bitOf(vni)
    if (--this.#size === 0) this.clear()
    return true
  }

  clear(): void {
    this.#pages = NO_PAGES
    this.#words = NO_WORDS
    this.#used = 1
    this.#size = 0
  }

  /** In ascending order. */
  toArray(): number[] {
    const all: number[] = []
    if (this.#size === 0) return all
    for (let high = 0; high < this.#pages.length; high++) {
      if (this.#pages[high] !== 0) this.#collect(this.#pages[high]!, high << PAGE_BITS, all)
    }
    return all
  }

  /** In ascending order, of those that are there when it begins. */
  [Symbol.iterator](): IterableIterator<number> {
    return this.toArray()[Symbol.iterator]()
  }

  /** Appends those of a page, whose first VNI is given. */
  #collect(page: number, first: number, to: number[]): void {
    for (let i = 0; i < PAGE_WORDS; i++) {
      for (let word = this.#words[page * PAGE_WORDS + i]!; word !== 0; word &= word - 1) {
        to.push(first + i * 32 + 31 - Math.clz32(word & -word))
      }
    }
  }

  /** Makes a page for VNIs with these high bits, and returns its number. */
  #open(high: number): number {
    if (this.#pages === NO_PAGES) this.#pages = new Uint16Array(NO_PAGES.length)
    const page = this.#used++
    if (this.#words.length < this.#used * PAGE_WORDS) {
      const most = (NO_PAGES.length + 1) * PAGE_WORDS
      const words = new Uint32Array(Math.min(this.#words.length * 2, most))
      words.set(this.#words)
      this.#words = words
    }
    this.#pages[high] = page
    return page
  }
}

/** What a set of VNIs is read by. */
export type Vnis = Pick<VniSet, 'has' | 'size' | typeof Symbol.iterator>

/** Which word of its page a VNI is in. */
function wordOf(vni: number): number {
  return (vni >> 5) & (PAGE_WORDS - 1)
}

function bitOf(vni: number): number {
  return 1 << (vni & 31)
}
