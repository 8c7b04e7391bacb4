import type { Prefix } from '../base/prefix.js'
import { type Remote, type Settings } from './settings.js'
import { remoteKey, spiOf, tunnelsTo } from './tunnels.js'

/**
 * What only one node may have: its addresses, its ranges, its number, and where there are no marks the SPIs that derive
 * from its addresses. Two nodes with one of these would be one to the kernel.
 */
export class Claims {
  readonly #settings: Settings
  readonly #ranges = new RangeIndex()
  readonly #owners = new Map<string, string>()

  constructor(settings: Settings) {
    this.#settings = settings
    for (const range of settings.local.subnets) this.#ranges.add(range, HERE)
    for (const ends of [settings.local.addresses, settings.local.overlay]) {
      for (const { bytes, family } of ends.values()) this.#owners.set(`address ${remoteKey(bytes, family)}`, HERE)
    }
  }

  /** Claims all that a node has. @returns why it can't have it: then nothing was claimed */
  claim(node: Remote): string | undefined {
    for (const [key, what] of this.#singles(node)) {
      const owner = this.#owners.get(key)
      if (owner !== undefined && owner !== node.name) return `${what} is ${whose(owner)} too`
    }
    for (const [i, range] of node.subnets.entries()) {
      const owner = this.#ranges.conflict(range)
      if (owner !== undefined)
        return `${range.text} overlaps a range of ${owner === HERE ? 'this node' : `node ${owner}`}`
      if (node.subnets.slice(0, i).some((other) => overlap(other, range)))
        return `${range.text} overlaps another range of it`
    }
    for (const [key] of this.#singles(node)) this.#owners.set(key, node.name)
    for (const range of node.subnets) this.#ranges.add(range, node.name)
    return undefined
  }

  /** Gives up what a node has claimed. */
  release(node: Remote): void {
    for (const [key] of this.#singles(node)) this.#owners.delete(key)
    for (const range of node.subnets) this.#ranges.remove(range)
  }

  *#singles(node: Remote): Generator<[key: string, what: string]> {
    for (const ends of [node.addresses, node.overlay]) {
      for (const { bytes, family, text } of ends.values())
        yield [`address ${remoteKey(bytes, family)}`, `address ${text}`]
    }
    if (this.#settings.marks !== false) {
      yield [`id ${node.id}`, `id ${node.id}`]
      return
    }
    for (const { remote, purpose, family } of tunnelsTo(node, this.#settings)) {
      const spi = spiOf(remote.bytes, 0, this.#settings)
      yield [`spi ${purpose} ${family} ${spi}`, `the SPI that derives from ${remote.text}`]
    }
  }
}

/** Of what is this node's own: no node's name is empty. */
const HERE = ''

function whose(owner: string): string {
  return owner === HERE ? "this node's" : `node ${owner}'s`
}

function overlap(one: Prefix, other: Prefix): boolean {
  const length = Math.min(one.length, other.length)
  return one.family === other.family && cut(one, length) === cut(other, length)
}

/** The first bits of a range, as a key. */
function cut({ bytes }: Prefix, length: number): string {
  const whole = length >> 3
  const rest = length & 7
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, whole).toString('latin1')
  return rest === 0 ? text : text + String.fromCharCode(bytes[whole]! & (0xff00 >> rest))
}

/** The ranges of one family and length: whose they are, and where longer ones lie within ranges of that length. */
interface Level {
  readonly length: number
  readonly owners: Map<string, string>
  readonly within: Map<string, string[]>
}

/** Ranges of which none overlaps another. */
class RangeIndex {
  readonly #levels = new Map<number, Level[]>()
  readonly #ranges = new Map<string, [range: Prefix, owner: string]>()

  add(range: Prefix, owner: string): void {
    this.#ranges.set(range.text, [range, owner])
    const levels = this.#level(range)
    for (const level of levels) {
      if (level.length === range.length) level.owners.set(cut(range, range.length), owner)
      else if (level.length < range.length) note(level, range, owner)
    }
  }

  remove(range: Prefix): void {
    const owner = this.#ranges.get(range.text)![1]
    this.#ranges.delete(range.text)
    for (const { length, owners, within } of this.#levels.get(range.family)!) {
      const key = cut(range, Math.min(length, range.length))
      if (length === range.length) owners.delete(key)
      if (length >= range.length) continue
      const inside = within.get(key)!
      inside.splice(inside.indexOf(owner), 1)
      if (inside.length === 0) within.delete(key)
    }
  }

  /** Who has a range that overlaps this one. */
  conflict(range: Prefix): string | undefined {
    for (const { length, owners, within } of this.#level(range)) {
      if (length > range.length) continue
      const owner =
        owners.get(cut(range, length)) ?? (length === range.length ? within.get(cut(range, length))?.[0] : undefined)
      if (owner !== undefined) return owner
    }
    return undefined
  }

  /** The levels of a range's family, its own among them. */
  #level({ family, length }: Prefix): Level[] {
    let levels = this.#levels.get(family)
    if (levels === undefined) this.#levels.set(family, (levels = []))
    if (levels.some((level) => level.length === length)) return levels
    const level = { length, owners: new Map<string, string>(), within: new Map<string, string[]>() }
    for (const [other, owner] of this.#ranges.values()) {
      if (other.family === family && other.length > length) note(level, other, owner)
    }
    levels.push(level)
    return levels
  }
}

function note({ length, within }: Level, range: Prefix, owner: string): void {
  const key = cut(range, length)
  const inside = within.get(key)
  if (inside === undefined) within.set(key, [owner])
  else inside.push(owner)
}
