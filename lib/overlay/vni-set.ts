/** A VNI is 24 bits; RFC 7348 excludes none. */
const VNI_BITS = 24
export const LAST_VNI = 2 ** VNI_BITS - 1

/** A page is of 4,096 VNIs, a bit each: who gives out VNIs does so one after the other, and 10,000 in a row are three pages. */
const PAGE_BITS = 12
const PAGE_WORDS = 2 ** PAGE_BITS / 32

interface Page {
  readonly words: Uint32Array
  /** How many are in it: never none. */
  readonly size: number
}
/** By the high bits of their VNIs. */
type Pages = ReadonlyMap<number, Page>

/**
 * A set of VNIs, which stays as it is made. They come by the thousand: what is made of two sets is made 32 at a time, and
 * shares with them the pages that are as they were. However they lie, it takes some 3 MiB at most.
 */
export class VniSet {
  static readonly none = new VniSet()
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
    return ((this.#pages.get(vni >> PAGE_BITS)?.words[wordOf(vni)] ?? 0) & bitOf(vni)) !== 0
  }

  /** Those in one of the two, or in both. */
  union(other: VniSet): VniSet {
    if (this.#pages.size < other.#pages.size) return other.union(this)
    let pages: Map<number, Page> | undefined
    for (const [high, theirs] of other.#pages) {
      const page = this.#pages.get(high)
      const both = page === undefined || page === theirs ? theirs : combined(page, theirs, (a, b) => a | b)
      if (both !== page) (pages ??= new Map(this.#pages)).set(high, both!)
    }
    return pages === undefined ? this : VniSet.#of(pages)
  }

  /** Those that are not in the other. */
  minus(other: VniSet): VniSet {
    if (other.#size === 0) return this
    const pages = new Map<number, Page>()
    let isSame = true
    for (const [high, page] of this.#pages) {
      const theirs = other.#pages.get(high)
      if (page !== theirs) {
        const left = theirs === undefined ? page : combined(page, theirs, (a, b) => a & ~b)
        if (left !== undefined) pages.set(high, left)
      }
      isSame &&= pages.get(high) === page
    }
    return isSame ? this : VniSet.#of(pages)
  }

  /** Those that are in the other too. */
  and(other: VniSet): VniSet {
    return this.minus(this.minus(other))
  }

  /** In ascending order. */
  forEach(visit: (vni: number) => void): void {
    for (const high of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const { words } = this.#pages.get(high)!
      for (let i = 0; i < PAGE_WORDS; i++) {
        const first = (high << PAGE_BITS) + i * 32
        for (let word = words[i]!; word !== 0; word &= word - 1) visit(first + 31 - Math.clz32(word & -word))
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

function pagesOf(vnis: Iterable<number>): Pages {
  const pages = new Map<number, Uint32Array>()
  let high = -1
  let words: Uint32Array = new Uint32Array()
  const put = (vni: number) => {
    if ((vni & LAST_VNI) !== vni) throw new RangeError(`a VNI is ${VNI_BITS} bits, and not ${vni}`)
    if (vni >> PAGE_BITS !== high) {
      high = vni >> PAGE_BITS
      words = pages.get(high) ?? new Uint32Array(PAGE_WORDS)
      pages.set(high, words)
    }
    words[wordOf(vni)]! |= bitOf(vni)
  }
  if (Array.isArray(vnis)) {
    // Not through its iterator: before that is compiled it makes an object for each.
    const list = vnis as readonly number[]
    for (let i = 0; i < list.length; i++) put(list[i]!)
  } else for (const vni of vnis) put(vni)
  return new Map(Array.from(pages, ([at, page]) => [at, pageOf(page)]))
}

function pageOf(words: Uint32Array): Page {
  let size = 0
  for (let i = 0; i < PAGE_WORDS; i++) size += bitsIn(words[i]!)
  return { words, size }
}

function sizeOf(pages: Pages): number {
  let size = 0
  for (const page of pages.values()) size += page.size
  return size
}

/** A page of both: the first, if it is as that one, and undefined if there is none in it. */
function combined(one: Page, other: Page, word: (a: number, b: number) => number): Page | undefined {
  let words = one.words
  for (let i = 0; i < PAGE_WORDS; i++) {
    const bits = word(one.words[i]!, other.words[i]!) >>> 0
    if (bits === one.words[i]) continue
    if (words === one.words) words = words.slice()
    words[i] = bits
  }
  if (words === one.words) return one
  const page = pageOf(words)
  return page.size === 0 ? undefined : page
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
