import { PackedIndex } from '../base/packed-index.js'
import { OWNER_WORDS } from './owner.js'
import { ADDRESS_WORDS, type Subnet } from './subnet.js'

/** What holds a mapping. */
export const Kind = { none: 0, rule: 1, element: 2 } as const
export type Kind = (typeof Kind)[keyof typeof Kind]

/** A mapping to be taken into a row: where its words are in columns, and its comment in slots. */
export interface Entry {
  kind: Kind
  owners: Uint32Array
  /** The first of its owner's words. */
  owner: number
  addresses: Uint32Array
  address: number
  subnet: Subnet | undefined
  /** undefined: it is not known, or nobody asks. */
  comments: Uint8Array | undefined
  comment: number
}

/**
 * Mappings by the thousand, in columns: a row for each, found by its owner and, if an element holds it, by its address. Of a
 * rule that was read no more is known than whose it is.
 */
export class Holdings {
  kinds = new Uint8Array()
  owners = new Uint32Array()
  addresses = new Uint32Array()
  /** Of rules, in the kernel. */
  handles = new Float64Array()
  readonly subnets: (Subnet | undefined)[] = []
  /** The slots that each comment is in, and its number there: they are shared, and not copied. */
  readonly comments: (Uint8Array | undefined)[] = []
  slots = new Uint32Array()
  #rows = 0
  /** Rows whose mappings were deleted. */
  readonly #free: number[] = []
  /** The next row of the same owner, or -1. */
  #next = new Int32Array()
  /** The first row of each owner. */
  readonly #byOwner = new PackedIndex(OWNER_WORDS)
  readonly #byAddress = new PackedIndex(ADDRESS_WORDS)

  /** @param capacity how many it has room for before it grows */
  constructor(capacity = 64) {
    this.#grow(Math.max(capacity, 1))
  }

  /** All rows with a mapping, in the order made but for those that took the place of others. */
  *rows(): Generator<number> {
    for (let row = 0; row < this.#rows; row++) if (this.kinds[row] !== Kind.none) yield row
  }

  /** The first row of an owner, or -1; {@link next} has the others. */
  of(words: Uint32Array, at: number): number {
    return isNobody(words, at) ? -1 : this.#byOwner.find(words, at)
  }

  next(row: number): number {
    return this.#next[row]!
  }

  /** The row of the element for an address, or -1. */
  at(words: Uint32Array, at: number): number {
    return this.#byAddress.find(words, at)
  }

  /** A row for a mapping; of an element the address is that of no other. Its handle is to be set. */
  add({ kind, owners, owner, addresses, address, subnet, comments, comment }: Readonly<Entry>): number {
    const row = this.#free.pop() ?? this.#rows++
    if (row === this.kinds.length) this.#grow(row * 2)
    this.kinds[row] = kind
    for (let i = 0; i < OWNER_WORDS; i++) this.owners[row * OWNER_WORDS + i] = owners[owner + i]!
    for (let i = 0; i < ADDRESS_WORDS; i++) this.addresses[row * ADDRESS_WORDS + i] = addresses[address + i]!
    this.subnets[row] = subnet
    this.comments[row] = comments
    this.slots[row] = comment
    if (kind === Kind.element) this.#byAddress.add(row)
    const first = this.of(owners, owner)
    this.#next[row] = first < 0 ? -1 : this.#next[first]!
    if (first >= 0) this.#next[first] = row
    else if (!isNobody(owners, owner)) this.#byOwner.add(row)
    return row
  }

  /** A row as another takes it in. */
  entry(row: number): Entry {
    return {
      kind: this.kinds[row] as Kind,
      owners: this.owners,
      owner: row * OWNER_WORDS,
      addresses: this.addresses,
      address: row * ADDRESS_WORDS,
      subnet: this.subnets[row],
      comments: this.comments[row],
      comment: this.slots[row]!,
    }
  }

  delete(row: number): void {
    if (this.kinds[row] === Kind.element) this.#byAddress.remove(row)
    this.kinds[row] = Kind.none
    this.subnets[row] = undefined
    this.comments[row] = undefined
    this.#free.push(row)
    const first = this.of(this.owners, row * OWNER_WORDS)
    if (first === row) {
      this.#byOwner.remove(row)
      if (this.#next[row]! >= 0) this.#byOwner.add(this.#next[row]!)
    } else if (first >= 0) {
      let before = first
      while (this.#next[before] !== row) before = this.#next[before]!
      this.#next[before] = this.#next[row]!
    }
  }

  /** Has a rule hold what an element did. */
  demote(row: number): void {
    this.#byAddress.remove(row)
    this.kinds[row] = Kind.rule
  }

  #grow(capacity: number): void {
    const grown = <T extends Uint8Array | Uint32Array | Int32Array | Float64Array>(into: T, from: T): T => {
      into.set(from)
      return into
    }
    this.kinds = grown(new Uint8Array(capacity), this.kinds)
    this.owners = grown(new Uint32Array(capacity * OWNER_WORDS), this.owners)
    this.addresses = grown(new Uint32Array(capacity * ADDRESS_WORDS), this.addresses)
    this.handles = grown(new Float64Array(capacity), this.handles)
    this.slots = grown(new Uint32Array(capacity), this.slots)
    this.#next = grown(new Int32Array(capacity), this.#next)
    this.#index(capacity)
  }

  /** Has room for so many more, and then for some. */
  reserve(more: number): void {
    const needed = this.#rows + more - this.#free.length
    if (needed > this.kinds.length) this.#grow(needed + (needed >> 1))
  }

  #index(capacity: number): void {
    this.#byOwner.rebuild(this.owners, capacity, [])
    this.#byAddress.rebuild(this.addresses, capacity, [])
    const follows = new Uint8Array(capacity)
    for (let row = 0; row < this.#rows; row++) {
      if (this.kinds[row] !== Kind.none && this.#next[row]! >= 0) follows[this.#next[row]!] = 1
    }
    for (const row of this.rows()) {
      if (follows[row] === 0 && !isNobody(this.owners, row * OWNER_WORDS)) this.#byOwner.add(row)
      if (this.kinds[row] === Kind.element) this.#byAddress.add(row)
    }
  }
}

function isNobody(words: Uint32Array, at: number): boolean {
  for (let i = 0; i < OWNER_WORDS; i++) if (words[at + i] !== 0) return false
  return true
}
