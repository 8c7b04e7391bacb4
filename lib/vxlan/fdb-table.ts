import { KEY_WORDS } from '../base/address-key.js'
import { Pace } from '../base/pace.js'
import { PackedIndex } from '../base/packed-index.js'
import { MAC_WORDS } from '../kernel/neighbour-records.js'
import { copyWords, Rows, sameWords, Standing, wider } from './rows.js'

const NONE = -1

/**
 * The FDB entries wanted of a link: a row for each pair of a MAC and a VTEP that it is at, with the number of endpoints
 * that count on it.
 *
 * The kernel leads a MAC to one VTEP. Where endpoints have it at several, it is the one that came last, and when that goes,
 * the one before: the rows of a MAC are a chain in that order, and its head is what the kernel should have.
 *
 * Columns are replaced when the table grows: read them anew after a {@link retain}.
 */
export class FdbTable {
  /** MACs, {@link MAC_WORDS} a row. */
  macs!: Uint32Array
  /** VTEPs as keys, {@link KEY_WORDS} a row. */
  vteps!: Uint32Array
  /** Of the heads of chains: a Standing. Of other rows it says nothing. */
  standing!: Uint8Array

  #counts!: Uint32Array
  /** The next in the chain, or NONE. */
  #next!: Int32Array
  readonly #rows = new Rows((capacity) => this.#grow(capacity))
  /** The heads, by MAC. */
  readonly #index = new PackedIndex(MAC_WORDS)
  /** Which rows these are: 1. */
  #isHead!: Uint8Array
  /** Rows that were without endpoints at some time since the last sweep. */
  #left: number[] = []
  /** Rows to be looked at by the next {@link due}, and a mark at each. */
  #touched: number[] = []
  #marks!: Uint8Array

  constructor() {
    this.#grow(this.#rows.capacity)
  }

  /** Pairs. */
  get size(): number {
    return this.#rows.size
  }

  /** Endpoints at a pair. */
  count(row: number): number {
    return this.#counts[row]!
  }

  /** Whether a row leads the MAC to the VTEP that are given as words. */
  leads(row: number, macs: Uint32Array, mac: number, vteps: Uint32Array, vtep: number): boolean {
    return sameWords(this.macs, row * MAC_WORDS, macs, mac, MAC_WORDS) && this.leadsTo(row, vteps, vtep)
  }

  leadsTo(row: number, vteps: Uint32Array, vtep: number): boolean {
    return sameWords(this.vteps, row * KEY_WORDS, vteps, vtep, KEY_WORDS)
  }

  isSameMac(one: number, other: number): boolean {
    return sameWords(this.macs, one * MAC_WORDS, this.macs, other * MAC_WORDS, MAC_WORDS)
  }

  /** The head of the chain of a row's MAC. */
  head(row: number): number {
    return this.#isHead[row] === 1 ? row : this.#index.find(this.macs, row * MAC_WORDS)
  }

  /** The head of a MAC's chain, or -1. */
  find(macs: Uint32Array, mac = 0): number {
    return this.#index.find(macs, mac)
  }

  /** The heads of all chains. */
  *heads(): Generator<number> {
    for (const row of this.#rows.live()) if (this.#isHead[row] === 1) yield row
  }

  /** Makes room for so many pairs in all. */
  reserve(count: number): void {
    this.#rows.reserve(count)
  }

  /** One endpoint more at a pair, which the first puts at the head of its MAC's chain. Returns its row. */
  retain(macs: Uint32Array, mac: number, vteps: Uint32Array, vtep: number): number {
    const head = this.#index.find(macs, mac)
    for (let row = head; row !== NONE; row = this.#next[row]!) {
      if (!this.leadsTo(row, vteps, vtep)) continue
      this.#counts[row]!++
      return row
    }
    const row = this.#rows.allot()
    copyWords(macs, mac, this.macs, row * MAC_WORDS, MAC_WORDS)
    copyWords(vteps, vtep, this.vteps, row * KEY_WORDS, KEY_WORDS)
    this.#counts[row] = 1
    this.#next[row] = NONE
    this.standing[row] = Standing.unknown
    if (head === NONE) {
      this.#index.add(row)
      this.#isHead[row] = 1
    } else {
      this.#lead(row, head)
      if (this.#counts[head]! > 0) this.#next[row] = head
    }
    return row
  }

  /** One endpoint less at a pair. The last row of a MAC stays to be found, without endpoints, until the sweep. */
  drop(row: number): void {
    if (--this.#counts[row]! > 0) return
    this.#left.push(row)
    const head = this.head(row)
    const next = this.#next[row]!
    if (row !== head) {
      let before = head
      while (this.#next[before] !== row) before = this.#next[before]!
      this.#next[before] = next
    } else if (next === NONE) {
      this.touch(head)
    } else {
      this.#lead(next, head)
      // What the kernel has is the old head's.
      this.standing[next] = Standing.unknown
      this.touch(next)
    }
  }

  /** Has the entry of a head looked at by the next {@link due}. */
  touch(head: number): void {
    if (this.#marks[head] === 1) return
    this.#marks[head] = 1
    this.#touched.push(head)
  }

  /** Of the rows touched since the last call: those whose entry is to be set in the kernel, and those to be deleted. */
  async due(): Promise<{ set: number[]; gone: number[] }> {
    const set: number[] = []
    const gone: number[] = []
    const pace = new Pace()
    for (const row of this.#touched) {
      if (pace.isDue) await pace.breathe()
      this.#marks[row] = 0
      if (this.#isHead[row] !== 1) continue
      if (this.#counts[row] === 0) gone.push(row)
      else if (this.standing[row] !== Standing.right) set.push(row)
    }
    this.#touched = []
    return { set, gone }
  }

  /** Frees the rows without endpoints. Until then no other takes their place, and their columns can be read. */
  async sweep(): Promise<void> {
    const pace = new Pace()
    for (const row of this.#left) {
      if (pace.isDue) await pace.breathe()
      if (!this.#rows.has(row) || this.#counts[row]! > 0) continue
      if (this.#isHead[row] === 1) this.#index.remove(row)
      this.#isHead[row] = 0
      this.#rows.free(row)
    }
    this.#left = []
  }

  /** Nothing is known of the kernel's entries any more. */
  forget(): void {
    this.standing.fill(Standing.unknown)
  }

  /** Puts a row at the head of its MAC's chain, in the place of another. */
  #lead(row: number, head: number): void {
    this.#index.replace(head, row)
    this.#isHead[head] = 0
    this.#isHead[row] = 1
  }

  #grow(capacity: number): void {
    this.macs = wider(this.macs, new Uint32Array(capacity * MAC_WORDS))
    this.vteps = wider(this.vteps, new Uint32Array(capacity * KEY_WORDS))
    this.standing = wider(this.standing, new Uint8Array(capacity))
    this.#counts = wider(this.#counts, new Uint32Array(capacity))
    this.#marks = wider(this.#marks, new Uint8Array(capacity))
    this.#next = wider(this.#next, new Int32Array(capacity))
    this.#isHead = wider(this.#isHead, new Uint8Array(capacity))
    this.#index.rebuild(this.macs, capacity, this.heads())
  }
}
