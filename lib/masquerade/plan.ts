import type { Family } from '../base/address.js'
import type { Held, HeldElement, HeldRule, Ledger } from './ledger.js'
import type { Comment } from '../kernel/nft.js'
import { cut } from './owner.js'
import { families } from './rules.js'
import type { Mapping, Subnet } from './subnet.js'

/**
 * How mappings are kept. `rules`: a rule each, as the CNI plugins write them. `set`: an element each of a map from addresses
 * to their subnets' chains, which costs a packet the same however many there are.
 */
export type Layout = 'rules' | 'set'

/** A mapping to be made. As an element it becomes what is held. */
export interface Made {
  readonly owner: string | undefined
  readonly comment: Comment | undefined
  readonly mapping: Mapping
  kind: 'rule' | 'element'
}

/** What is to be done, all at once; chains and maps follow from it. */
export interface Plan {
  readonly deleteRules: readonly HeldRule[]
  readonly deleteElements: readonly HeldElement[]
  readonly addRules: readonly Made[]
  readonly addElements: readonly Made[]
  /** Subnets whose chains are to be there for new elements, and those whose last element goes. */
  readonly newSubnets: readonly Subnet[]
  readonly oldSubnets: readonly Subnet[]
  /** Families whose map is to be there for new elements, and those whose last element goes. */
  readonly newFamilies: readonly Family[]
  readonly oldFamilies: readonly Family[]
}

/**
 * Changes to what a {@link Ledger} tells of, one after the other. An address has one element, and so one owner there. If it
 * is mapped for another, the newest has the element, and the one before gets a rule: that is in force beside it, as it
 * would be beside the newest's rule, and goes with its owner. So who comes last never undoes what others still hold.
 */
export class Draft {
  readonly #ledger: Ledger
  readonly #layout: Layout
  readonly #gone = new Set<Held>()
  readonly #made = new Map<string | undefined, Made[]>()
  /** Elements to be made, by address. */
  readonly #claims = new Map<string, Made>()

  constructor(ledger: Ledger, layout: Layout) {
    this.#ledger = ledger
    this.#layout = layout
  }

  /** Takes all that is the owner's away. */
  remove(owner: string): void {
    for (const held of this.#ledger.of(owner)) this.#gone.add(held)
    const all = this.#made.get(owner)
    if (all === undefined) return
    for (const made of all) if (made.kind === 'element') this.#claims.delete(made.mapping.text)
    this.#made.delete(owner)
  }

  /** Makes these the owner's, and takes all else that is the owner's away. */
  add(owner: string, comment: Comment, mappings: readonly Mapping[]): void {
    this.remove(owner)
    for (const mapping of mappings) {
      const made: Made = { owner, comment, mapping, kind: 'rule' }
      if (this.#layout === 'set') this.#claim(made)
      this.#make(made)
    }
  }

  /** Takes all away that is of owners who begin so and are not valid. */
  collect(networkHash: string, valid: ReadonlySet<string>): void {
    for (const owner of this.#ledger.owners) {
      if (owner.startsWith(networkHash) && !valid.has(owner)) this.remove(owner)
    }
  }

  /** undefined if there is nothing to do. */
  plan(): Plan | undefined {
    const deleteRules: HeldRule[] = []
    const deleteElements: HeldElement[] = []
    for (const held of this.#gone) {
      if (held.kind === 'rule') deleteRules.push(held)
      else deleteElements.push(held)
    }
    const addRules: Made[] = []
    const addElements: Made[] = []
    for (const all of this.#made.values()) {
      for (const made of all) (made.kind === 'rule' ? addRules : addElements).push(made)
    }
    if (this.#gone.size === 0 && addRules.length === 0 && addElements.length === 0) return undefined
    return {
      deleteRules,
      deleteElements,
      addRules,
      addElements,
      ...this.#subnets(deleteElements, addElements),
      ...this.#families(deleteElements, addElements),
    }
  }

  #make(made: Made): void {
    const all = this.#made.get(made.owner)
    if (all === undefined) this.#made.set(made.owner, [made])
    else all.push(made)
  }

  /** Has the address's element be this one. */
  #claim(made: Made): void {
    const address = made.mapping.text
    const other = this.#claims.get(address)
    const held = this.#ledger.at(address)
    if (other !== undefined) other.kind = 'rule'
    else if (held !== undefined && !this.#gone.has(held)) {
      const { owner, comment, mapping } = held
      this.#gone.add(held)
      // What was read of a cut character may be longer than it was.
      this.#make({ owner, comment: comment === undefined ? undefined : cut(comment), mapping, kind: 'rule' })
    }
    this.#claims.set(address, made)
    made.kind = 'element'
  }

  #subnets(gone: readonly HeldElement[], made: readonly Made[]): Pick<Plan, 'newSubnets' | 'oldSubnets'> {
    const newSubnets = new Map<string, Subnet>()
    let latest: Subnet | undefined
    for (const { mapping } of made) {
      if (mapping.subnet === latest) continue
      latest = mapping.subnet
      newSubnets.set(latest.text, latest)
    }
    const fewer = new Map<string, number>()
    const oldSubnets: Subnet[] = []
    for (const { mapping } of gone) {
      const { text } = mapping.subnet
      const count = (fewer.get(text) ?? 0) + 1
      fewer.set(text, count)
      if (count === this.#ledger.inSubnet(text) && !newSubnets.has(text)) oldSubnets.push(mapping.subnet)
    }
    return { newSubnets: [...newSubnets.values()], oldSubnets }
  }

  #families(gone: readonly HeldElement[], made: readonly Made[]): Pick<Plan, 'newFamilies' | 'oldFamilies'> {
    const has = (family: Family) => made.some(({ mapping }) => mapping.subnet.family === family)
    const left = (family: Family) =>
      this.#ledger.inFamily(family) - gone.filter(({ mapping }) => mapping.subnet.family === family).length
    return {
      newFamilies: families.filter(has),
      oldFamilies: families.filter((family) => this.#ledger.maps.has(family) && !has(family) && left(family) === 0),
    }
  }
}

/** Handles of the rules that a plan made. */
export interface MadeHandles {
  /** Of `addRules`, in their order. */
  readonly mappings: ArrayLike<number>
  /** Of the rules that look addresses up in new maps. */
  readonly maps: ReadonlyMap<Family, number>
}

/** Has the ledger tell of what a plan made of the table. */
export function apply(plan: Plan, ledger: Ledger, handles: MadeHandles): void {
  for (const held of plan.deleteRules) ledger.delete(held)
  for (const held of plan.deleteElements) ledger.delete(held)
  for (const [i, { owner }] of plan.addRules.entries()) {
    // Nobody asks for a rule that is nobody's.
    if (owner !== undefined) ledger.add({ kind: 'rule', handle: handles.mappings[i]!, owner })
  }
  for (const made of plan.addElements) ledger.add(made as HeldElement)
  for (const family of plan.oldFamilies) {
    ledger.maps.delete(family)
    ledger.mapRules.delete(family)
  }
  for (const family of plan.newFamilies) {
    ledger.maps.add(family)
    if (!ledger.mapRules.has(family)) ledger.mapRules.set(family, handles.maps.get(family)!)
  }
}
