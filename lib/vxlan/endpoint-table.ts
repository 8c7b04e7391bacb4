import { familyOf, KEY_WORDS, unpackKey } from '../base/address-key.js'
import { ADDRESS_BYTES } from '../base/address.js'
import { Pace } from '../base/pace.js'
import { PackedIndex } from '../base/packed-index.js'
import { MAC_WORDS } from '../kernel/neighbour-records.js'
import type { EndpointList } from './endpoint-list.js'
import { FdbTable } from './fdb-table.js'
import { copyWords, Rows, Standing, wider } from './rows.js'

/** In the place of a Standing: it is wanted no more, and its row is kept until the sweep. */
const GONE = 255

/** What a list of endpoints changes in a table of them: rows. What that makes of the FDB, {@link FdbTable.due} tells. */
export interface Changes {
  /** Endpoints that are new, were elsewhere, or are not known to be right in the kernel. */
  readonly set: number[]
  /** Endpoints that went. Their columns can be read until the sweep. */
  readonly gone: number[]
}

export function noChanges(): Changes {
  return { set: [], gone: [] }
}

/** VTEPs as an Overlay has its peers: 16 bytes each, IPv4 in the first four. One stands there once for each endpoint. */
export interface Vteps {
  readonly bytes: Uint8Array
  readonly count: number
}

/**
 * The endpoints wanted on a link, by their inner addresses: a row each, which says in which pair of MAC and VTEP it is and
 * how the kernel's neighbour entry stands. Columns of typed arrays: an endpoint takes some hundred bytes.
 */
export class EndpointTable {
  readonly fdb = new FdbTable()
  /** Inner addresses as keys. */
  ips!: Uint32Array
  /** The row of the pair that an endpoint is in. */
  pairs!: Uint32Array
  /** A Standing: of its neighbour entry. */
  standing!: Uint8Array
  readonly #rows = new Rows((capacity) => this.#grow(capacity))
  readonly #index = new PackedIndex(KEY_WORDS)
  readonly #gone: number[] = []

  constructor() {
    this.#grow(this.#rows.capacity)
  }

  get size(): number {
    return this.#rows.size - this.#gone.length
  }

  /** The row of an address, or -1. */
  find(ips: Uint32Array, ip = 0): number {
    return this.#index.find(ips, ip)
  }

  *rows(): Generator<number> {
    for (const row of this.#rows.live()) if (this.standing[row] !== GONE) yield row
  }

  /** Makes room for so many endpoints in all. */
  reserve(count: number): void {
    this.#rows.reserve(count)
    this.fdb.reserve(count)
  }

  /** Whether the kernel is known to have all that an endpoint takes. */
  isRight(row: number): boolean {
    const { fdb } = this
    return this.standing[row] === Standing.right && fdb.standing[fdb.head(this.pairs[row]!)] === Standing.right
  }

  /** Wants the endpoint at `i` of a list. False if it is wanted, and right, as it is. */
  put(list: EndpointList, i: number, changes: Changes): boolean {
    const { fdb } = this
    const mac = i * MAC_WORDS
    const vtep = i * KEY_WORDS
    let row = this.#index.find(list.ips, i * KEY_WORDS)
    if (row >= 0 && fdb.leads(this.pairs[row]!, list.macs, mac, list.vteps, vtep)) {
      if (this.isRight(row)) return false
    } else {
      const before = row < 0 ? -1 : this.pairs[row]!
      const pair = fdb.retain(list.macs, mac, list.vteps, vtep)
      if (row < 0) {
        row = this.#insert(list.ips, i * KEY_WORDS)
      } else {
        if (!fdb.isSameMac(before, pair)) this.standing[row] = Standing.unknown
        fdb.drop(before)
      }
      this.pairs[row] = pair
    }
    fdb.touch(fdb.head(this.pairs[row]!))
    changes.set.push(row)
    return true
  }

  /** No longer wants the endpoint at `i` of a list. False if it is not wanted, or elsewhere. */
  take(list: EndpointList, i: number, changes: Changes): boolean {
    const row = this.#index.find(list.ips, i * KEY_WORDS)
    if (row < 0 || !this.fdb.leads(this.pairs[row]!, list.macs, i * MAC_WORDS, list.vteps, i * KEY_WORDS)) return false
    this.remove(row, changes)
    return true
  }

  remove(row: number, changes: Changes): void {
    this.#index.remove(row)
    this.standing[row] = GONE
    this.#gone.push(row)
    changes.gone.push(row)
    this.fdb.drop(this.pairs[row]!)
  }

  /** Frees the rows of what went. */
  async sweep(): Promise<void> {
    const pace = new Pace()
    for (let row = this.#gone.pop(); row !== undefined; row = this.#gone.pop()) {
      this.#rows.free(row)
      if (pace.isDue) await pace.breathe()
    }
    await this.fdb.sweep()
  }

  /** Nothing is known of the kernel's entries any more. To be called after a sweep. */
  forget(): void {
    this.standing.fill(Standing.unknown)
    this.fdb.forget()
  }

  /**
   * The VTEPs at which endpoints come and go with a list of them. `comes`: whether those in the list are to be wanted, or no
   * longer. Changes nothing.
   */
  async moves(list: EndpointList, comes: boolean): Promise<{ gained: Vteps; lost: Vteps }> {
    const gained = new VtepWriter(comes ? list.size : 0)
    const lost = new VtepWriter(list.size)
    const pace = new Pace()
    for (let i = 0; i < list.size; i++) {
      if (pace.isDue) await pace.breathe()
      const row = this.#index.find(list.ips, i * KEY_WORDS)
      const pair = row < 0 ? -1 : this.pairs[row]!
      const isThere = pair >= 0 && this.fdb.leadsTo(pair, list.vteps, i * KEY_WORDS)
      if (!comes) {
        const isMeant = isThere && this.fdb.leads(pair, list.macs, i * MAC_WORDS, list.vteps, i * KEY_WORDS)
        if (isMeant) lost.add(this.fdb.vteps, pair * KEY_WORDS)
      } else if (!isThere) {
        gained.add(list.vteps, i * KEY_WORDS)
        if (pair >= 0) lost.add(this.fdb.vteps, pair * KEY_WORDS)
      }
    }
    return { gained: gained.vteps, lost: lost.vteps }
  }

  #insert(ips: Uint32Array, ip: number): number {
    const row = this.#rows.allot()
    copyWords(ips, ip, this.ips, row * KEY_WORDS, KEY_WORDS)
    this.standing[row] = Standing.unknown
    this.#index.add(row)
    return row
  }

  #grow(capacity: number): void {
    this.ips = wider(this.ips, new Uint32Array(capacity * KEY_WORDS))
    this.pairs = wider(this.pairs, new Uint32Array(capacity))
    this.standing = wider(this.standing, new Uint8Array(capacity))
    this.#index.rebuild(this.ips, capacity, this.rows())
  }
}

class VtepWriter {
  readonly #bytes: Uint8Array
  #count = 0

  constructor(room: number) {
    this.#bytes = new Uint8Array(room * ADDRESS_BYTES)
  }

  add(keys: Uint32Array, at: number): void {
    const bytes = new Uint8Array(keys.buffer)
    unpackKey(bytes, at * 4, familyOf(keys, at), this.#bytes, this.#count++ * ADDRESS_BYTES)
  }

  get vteps(): Vteps {
    return { bytes: this.#bytes, count: this.#count }
  }
}
