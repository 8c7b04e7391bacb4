import type { Family } from '../base/address.js'
import type { Comment } from '../kernel/nft.js'
import { families } from './rules.js'
import type { Mapping } from './subnet.js'

/** What the table holds, by owner and by address: what a change is planned from. */

/** A mapping as a rule of its own: what the CNI plugins write. */
export interface HeldRule {
  readonly kind: 'rule'
  /** The kernel's number of it. */
  readonly handle: number
  readonly owner: string
}

/** A mapping as an element of its family's map. */
export interface HeldElement {
  readonly kind: 'element'
  readonly mapping: Mapping
  /** undefined: it was put there by somebody who did not say whose it is. */
  readonly owner: string | undefined
  readonly comment: Comment | undefined
}

export type Held = HeldRule | HeldElement

const none: readonly Held[] = []

export class Ledger {
  readonly #byOwner = new Map<string, Held[]>()
  readonly #byAddress = new Map<string, HeldElement>()
  readonly #subnets = new Map<string, number>()
  readonly #elements = new Map<Family, number>(families.map((family) => [family, 0]))
  /** Families whose map is there. */
  readonly maps = new Set<Family>()
  /** Handles of the rules that look addresses up in those maps. */
  readonly mapRules = new Map<Family, number>()

  get owners(): Iterable<string> {
    return this.#byOwner.keys()
  }

  of(owner: string): readonly Held[] {
    return this.#byOwner.get(owner) ?? none
  }

  /** The element for an address. */
  at(address: string): HeldElement | undefined {
    return this.#byAddress.get(address)
  }

  /** How many elements lead to that subnet's chain. */
  inSubnet(subnet: string): number {
    return this.#subnets.get(subnet) ?? 0
  }

  /** How many elements that family's map has. */
  inFamily(family: Family): number {
    return this.#elements.get(family)!
  }

  add(held: Held): void {
    if (held.owner !== undefined) {
      const all = this.#byOwner.get(held.owner)
      if (all === undefined) this.#byOwner.set(held.owner, [held])
      else all.push(held)
    }
    if (held.kind === 'rule') return
    this.#byAddress.set(held.mapping.text, held)
    this.#count(held.mapping, 1)
  }

  delete(held: Held): void {
    if (held.owner !== undefined) {
      const all = this.of(held.owner).filter((other) => other !== held)
      if (all.length === 0) this.#byOwner.delete(held.owner)
      else this.#byOwner.set(held.owner, all)
    }
    if (held.kind === 'rule') return
    const { text } = held.mapping
    if (this.#byAddress.get(text) === held) this.#byAddress.delete(text)
    this.#count(held.mapping, -1)
  }

  #count({ subnet }: Mapping, change: 1 | -1): void {
    const { text, family } = subnet
    const count = this.inSubnet(text) + change
    if (count === 0) this.#subnets.delete(text)
    else this.#subnets.set(text, count)
    this.#elements.set(family, this.inFamily(family) + change)
  }
}
