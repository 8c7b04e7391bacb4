import { powerOfTwo } from '../base/packed-index.js'
import { giveBack, takeBuffer } from '../kernel/record-buffers.js'

/** Who claims an SPI, in one integer: the peer's slot and the key's. Peers' slots are below 2^27. */
export function claim(peer: number, key: number): number {
  return ((peer << 5) | key) >>> 0
}

export function claimant(packed: number): number {
  return packed >>> 5
}

export function claimedKey(packed: number): number {
  return packed & 31
}

const NOBODY: readonly number[] = []
const FIRST_CAPACITY = 128

/**
 * Inbound SPIs that are in use, and who claims them. The kernel finds an inbound SA by its SPI whoever sent the packet,
 * so two peers with one SPI have one SA: this is where that is noticed. SPI 0 is none.
 */
export class SpiIndex {
  /**
   * Open addressing, linear probing; SPI 0 marks what is free. Never more than half full. Signed, as all 32-bit integers
   * that V8 keeps without a heap object are.
   */
  #spis: Int32Array = new Int32Array(FIRST_CAPACITY)
  #first: Uint32Array = new Uint32Array(FIRST_CAPACITY)
  /** All claims but the first, where there are several: SPIs are hashes, so that is rare. */
  readonly #more = new Map<number, number[]>()
  #size = 0

  /** SPIs claimed. */
  get size(): number {
    return this.#size
  }

  /** SPIs claimed more than once. */
  get shared(): number {
    return this.#more.size
  }

  /** One claim of that SPI, or -1. */
  first(spi: number): number {
    if (this.#size === 0) return -1
    const at = this.#find(spi | 0)
    return this.#spis[at] === (spi | 0) ? this.#first[at]! : -1
  }

  /** Who claims that SPI. */
  claims(spi: number): readonly number[] {
    const first = this.first(spi)
    return first < 0 ? NOBODY : [first, ...(this.#more.get(spi) ?? NOBODY)]
  }

  /** How many claim that SPI. */
  count(spi: number): number {
    return this.first(spi) < 0 ? 0 : 1 + (this.#more.get(spi)?.length ?? 0)
  }

  /** Adds a claim; a claim that is there stays one. */
  add(spi: number, peer: number, key: number): void {
    const packed = claim(peer, key)
    const signed = spi | 0
    let at = this.#find(signed)
    if (this.#spis[at] === signed) {
      const more = this.#more.get(spi)
      if (this.#first[at] === packed || more?.includes(packed)) return
      if (more) more.push(packed)
      else this.#more.set(spi, [packed])
      return
    }
    if ((this.#size + 1) * 2 > this.#spis.length) {
      this.#grow(this.#spis.length * 2)
      at = this.#find(signed)
    }
    this.#spis[at] = signed
    this.#first[at] = packed
    this.#size++
  }

  /** Removes a claim, if it is there. */
  remove(spi: number, peer: number, key: number): void {
    const packed = claim(peer, key)
    const at = this.#find(spi | 0)
    if (this.#spis[at] !== (spi | 0)) return
    const more = this.#more.get(spi)
    if (more) {
      const all = [this.#first[at]!, ...more].filter((other) => other !== packed)
      this.#first[at] = all[0]!
      if (all.length === 1) this.#more.delete(spi)
      else this.#more.set(spi, all.slice(1))
    } else if (this.#first[at] === packed) {
      this.#vacate(at)
    }
  }

  /** Makes room for that many claims more. */
  reserve(more: number): void {
    const capacity = powerOfTwo((this.#size + more) * 2)
    if (capacity > this.#spis.length) this.#grow(capacity)
  }

  /** Gives back its memory. Nothing is claimed any more. */
  release(): void {
    forget(this.#spis, this.#first)
    this.#spis = new Int32Array(FIRST_CAPACITY)
    this.#first = new Uint32Array(FIRST_CAPACITY)
    this.#more.clear()
    this.#size = 0
  }

  clear(): void {
    this.#spis.fill(0)
    this.#more.clear()
    this.#size = 0
  }

  /** Where the SPI, signed, is or would go. */
  #find(spi: number): number {
    const spis = this.#spis
    const mask = spis.length - 1
    let at = home(spi) & mask
    while (spis[at] !== spi && spis[at] !== 0) at = (at + 1) & mask
    return at
  }

  /** Frees a place and moves up those that a probe would no longer reach. */
  #vacate(at: number): void {
    const spis = this.#spis
    const mask = spis.length - 1
    let gap = at
    for (let i = (gap + 1) & mask; spis[i] !== 0; i = (i + 1) & mask) {
      if (((i - home(spis[i]!)) & mask) < ((i - gap) & mask)) continue
      spis[gap] = spis[i]!
      this.#first[gap] = this.#first[i]!
      gap = i
    }
    spis[gap] = 0
    this.#size--
  }

  #grow(capacity: number): void {
    const spis = this.#spis
    const first = this.#first
    this.#spis = new Int32Array(column(capacity))
    this.#first = new Uint32Array(column(capacity))
    for (let i = 0; i < spis.length; i++) {
      const spi = spis[i]!
      if (spi === 0) continue
      const at = this.#find(spi)
      this.#spis[at] = spi
      this.#first[at] = first[i]!
    }
    forget(spis, first)
  }
}

/** Memory for so many words, a power of two: written in before, where there is such, as that of records is. */
function column(words: number): ArrayBufferLike {
  return takeBuffer(4 * words).buffer
}

function forget(...columns: readonly (Int32Array | Uint32Array)[]): void {
  for (const { buffer } of columns) giveBack(new Uint8Array(buffer))
}

/** FNV-1a's low bits are its weak ones. */
function home(spi: number): number {
  const h = Math.imul(spi, 0x9e3779b1)
  return h ^ (h >>> 15)
}
