/** A VNI is 24 bits; RFC 7348 excludes none. */
const VNI_BITS = 24
export const LAST_VNI = 2 ** VNI_BITS - 1

/** A page is of 4,096 VNIs, a bit each: who gives out VNIs does so one after the other, and 10,000 in a row are three pages. */
const PAGE_BITS = 12
const PAGE_WORDS = 2 ** PAGE_BITS / 32

/**
 * A set of VNIs, which stays as it is made. They come by the thousand, and what is made of two sets is made 32 at a time;
 * pages that are the same in both are not copied. However they lie, it takes some 2 MiB at most.
 */
export class VniSet {
  static readonly none = new VniSet()
  /** The pages that are not empty, by the high bits of their VNIs. */
  #pages: Pages
  #size: number

  /** @throws RangeError for what is no VNI */
  constructor(vnis: Iterable<number> = []) {
    this.#pages = pagesOf(vnis)
    this.#size = sizeOf(this.#pages)
  }

  /** The same set, if it is one. @throws RangeError for what is no VNI */
  static of(vnis: Iterable<number>): VniSet {
    return vnis instanceof VniSet ? vnis : new VniSet(vnis)
  }

  static #of(pages: Pages): VniSet {
    const set = new VniSet()
    set.#pages = pages
    set.#size = sizeOf(pages)
    return set
  }

  get size(): number {
    return this.#size
  }

  has(vni: number): boolean {
    return ((this.#pages.get(vni >> PAGE_BITS)?.[wordOf(vni)] ?? 0) & bitOf(vni)) !== 0
  }

  /** Those in one of the two, or in both. */
  union(other: VniSet): VniSet {
    if (this.size === 0) return other
    if (other.size === 0) return this
    const pages = new Map(this.#pages)
    for (const [high, theirs] of other.#pages) {
      const page = pages.get(high)
      pages.set(high, page === undefined ? theirs : combined(page, theirs, (a, b) => a | b))
    }
    return VniSet.#of(pages)
  }

  /** Those that are not in the other. */
  minus(other: VniSet): VniSet {
    if (this.size === 0 || other.size === 0) return this
    const pages = new Map(this.#pages)
    for (const [high, page] of this.#pages) {
      const theirs = other.#pages.get(high)
      if (theirs !== undefined)
        put(
          pages,
          high,
          combined(page, theirs, (a, b) => a & ~b),
        )
    }
    return VniSet.#of(pages)
  }

  /** Those that are in the other too. */
  and(other: VniSet): VniSet {
    return this.minus(this.minus(other))
  }

  /** In ascending order. */
  forEach(visit: (vni: number) => void): void {
    for (const high of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const page = this.#pages.get(high)!
      for (let i = 0; i < PAGE_WORDS; i++) {
        const first = (high << PAGE_BITS) + i * 32
        for (let word = page[i]!; word !== 0; word &= word - 1) visit(first + 31 - Math.clz32(word & -word))
      }
    }
  }

  /** In ascending order. */
  [Symbol.iterator](): IterableIterator<number> {
    const all: number[] = []
    this.forEach((vni) => all.push(vni))
    return all.values()
  }
}

type Pages = Map<number, Uint32Array>

function pagesOf(vnis: Iterable<number>): Pages {
  const pages: Pages = new Map()
  // Not through the iterator: before it is compiled that makes an object for each.
  const list: readonly number[] = Array.isArray(vnis) ? vnis : [...vnis]
  let high = -1
  let page: Uint32Array = new Uint32Array()
  for (let i = 0; i < list.length; i++) {
    const vni = list[i]!
    if ((vni & LAST_VNI) !== vni) throw new RangeError(`a VNI is ${VNI_BITS} bits, and not ${vni}`)
    if (vni >> PAGE_BITS !== high) {
      high = vni >> PAGE_BITS
      page = pages.get(high) ?? new Uint32Array(PAGE_WORDS)
      pages.set(high, page)
    }
    page[(vni >> 5) & (PAGE_WORDS - 1)]! |= 1 << (vni & 31)
  }
  return pages
}

function sizeOf(pages: Pages): number {
  let size = 0
  for (const page of pages.values()) for (const word of page) size += bitsIn(word)
  return size
}

/** A page of both; one that is as the first is that one. */
function combined(one: Uint32Array, other: Uint32Array, word: (a: number, b: number) => number): Uint32Array {
  let made = one
  for (let i = 0; i < PAGE_WORDS; i++) {
    const bits = word(one[i]!, other[i]!) >>> 0
    if (bits === one[i]) continue
    if (made === one) made = one.slice()
    made[i] = bits
  }
  return made
}

/** A page with none in it is left out. */
function put(pages: Pages, high: number, page: Uint32Array): void {
  if (page.some((word) => word !== 0)) pages.set(high, page)
  else pages.delete(high)
}

/** Which word of its page a VNI is in. */
function wordOf(vni: number): number {
  return (vni >> 5) & (PAGE_WORDS - 1)
}

function bitOf(vni: number): number {
  return 1 << (vni & 31)
}

/** How many bits of a word are set: those of pairs are counted, then of fours, then of bytes, which a product adds. */
function bitsIn(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555)
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333)
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}
