import type { Family } from '../base/address.js'
import { Holdings, Kind, type Entry } from './holdings.js'
import type { Ledger } from './ledger.js'
import { OWNER_WORDS } from './owner.js'
import { families } from './rules.js'
import { ADDRESS_WORDS, type Subnet } from './subnet.js'

/**
 * How mappings are kept. `rules`: a rule each, as the CNI plugins write them. `set`: an element each of a map from addresses
 * to their subnets' chains, which costs a packet the same however many there are.
 */
export type Layout = 'rules' | 'set'

/** Mappings in columns, by their number: four words of each address, and its subnet. */
export interface Addresses {
  readonly words: Uint32Array
  readonly subnets: readonly Subnet[]
}

/** Attachments, one after the other. What `take` gets holds until it returns. */
export interface Owners {
  each(take: (attachment: Attachment) => void): void
}

/** An attachment: where its owner's words are in a column, and its comment in slots. */
export interface Attachment {
  readonly owners: Uint32Array
  readonly owner: number
  readonly comments: Uint8Array
  readonly comment: number
}

/** What is to be done, all at once; chains and maps follow from it. */
export interface Plan {
  /** Rows of the ledger. */
  readonly deleteRules: readonly number[]
  readonly deleteElements: readonly number[]
  /** Rows of `made`. */
  readonly addRules: readonly number[]
  readonly addElements: readonly number[]
  readonly made: Holdings
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
  /** Rows of the ledger. */
  readonly #gone = new Set<number>()
  readonly #made: Holdings

  /** @param capacity how many mappings it is about to make */
  constructor(ledger: Ledger, layout: Layout, capacity = 0) {
    this.#ledger = ledger
    this.#layout = layout
    this.#made = new Holdings(capacity)
  }

  /** Takes all that is the owner's away. */
  remove(words: Uint32Array, at: number): void {
    const ledger = this.#ledger
    for (let row = ledger.of(words, at); row >= 0; row = ledger.next(row)) this.#gone.add(row)
    const made = this.#made
    for (let row = made.of(words, at); row >= 0; row = made.of(words, at)) made.delete(row)
  }

  /** Makes the mappings `from` to `to` an attachment's, and takes all else that is the attachment's away. */
  add(attachment: Attachment, addresses: Addresses, from: number, to: number): void {
    this.remove(attachment.owners, attachment.owner)
    const kind = this.#layout === 'set' ? Kind.element : Kind.rule
    const entry: Entry = { kind, ...attachment, addresses: addresses.words, address: 0, subnet: undefined }
    for (let i = from; i < to; i++) {
      entry.address = i * ADDRESS_WORDS
      entry.subnet = addresses.subnets[i]
      if (kind === Kind.element) this.#clear(addresses.words, entry.address)
      this.#made.add(entry)
    }
  }

  /** Takes all away that is of owners who begin with these two words, but for those of these attachments. */
  collect(network: Uint32Array, valid: Owners): void {
    const ledger = this.#ledger
    const stays = new Set<number>()
    valid.each(({ owners, owner }) => stays.add(ledger.of(owners, owner)))
    for (const row of ledger.rows()) {
      const at = row * OWNER_WORDS
      if (ledger.owners[at] !== network[0] || ledger.owners[at + 1] !== network[1]) continue
      if (!stays.has(ledger.of(ledger.owners, at))) this.#gone.add(row)
    }
  }

  /** undefined if there is nothing to do. */
  plan(): Plan | undefined {
    const ledger = this.#ledger
    const deleteRules: number[] = []
    const deleteElements: number[] = []
    for (const row of this.#gone) (ledger.kinds[row] === Kind.rule ? deleteRules : deleteElements).push(row)
    const made = this.#made
    const addRules: number[] = []
    const addElements: number[] = []
    for (const row of made.rows()) (made.kinds[row] === Kind.rule ? addRules : addElements).push(row)
    if (this.#gone.size === 0 && addRules.length === 0 && addElements.length === 0) return undefined
    const oldOnes = deleteElements.map((row) => ledger.subnets[row]!)
    const newOnes = addElements.map((row) => made.subnets[row]!)
    return {
      deleteRules,
      deleteElements,
      addRules,
      addElements,
      made,
      ...this.#subnets(oldOnes, newOnes),
      ...this.#families(oldOnes, newOnes),
    }
  }

  /** Has no element hold an address: who had it gets a rule. */
  #clear(words: Uint32Array, at: number): void {
    const made = this.#made
    const other = made.at(words, at)
    if (other >= 0) {
      made.demote(other)
      return
    }
    const ledger = this.#ledger
    const held = ledger.at(words, at)
    if (held < 0 || this.#gone.has(held)) return
    this.#gone.add(held)
    made.add({ ...ledger.entry(held), kind: Kind.rule })
  }

  #subnets(gone: readonly Subnet[], made: readonly Subnet[]): Pick<Plan, 'newSubnets' | 'oldSubnets'> {
    const newSubnets = new Map(Array.from(new Set(made), (subnet) => [subnet.text, subnet]))
    const fewer = new Map<string, number>()
    const oldSubnets: Subnet[] = []
    for (const subnet of gone) {
      const count = (fewer.get(subnet.text) ?? 0) + 1
      fewer.set(subnet.text, count)
      if (count === this.#ledger.inSubnet(subnet.text) && !newSubnets.has(subnet.text)) oldSubnets.push(subnet)
    }
    return { newSubnets: [...newSubnets.values()], oldSubnets }
  }

  #families(gone: readonly Subnet[], made: readonly Subnet[]): Pick<Plan, 'newFamilies' | 'oldFamilies'> {
    const has = (family: Family) => made.some((subnet) => subnet.family === family)
    const left = (family: Family) =>
      this.#ledger.inFamily(family) - gone.filter((subnet) => subnet.family === family).length
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
  const { deleteRules, deleteElements, addRules, addElements, made } = plan
  for (const row of deleteRules) ledger.delete(row)
  for (const row of deleteElements) ledger.delete(row)
  ledger.reserve(addRules.length + addElements.length)
  for (let i = 0; i < addRules.length; i++) {
    const entry = made.entry(addRules[i]!)
    // Nobody asks for a rule's comment.
    entry.comments = undefined
    ledger.handles[ledger.add(entry)] = handles.mappings[i]!
  }
  for (const row of addElements) ledger.add(made.entry(row))
  for (const family of plan.oldFamilies) {
    ledger.maps.delete(family)
    ledger.mapRules.delete(family)
  }
  for (const family of plan.newFamilies) {
    ledger.maps.add(family)
    if (!ledger.mapRules.has(family)) ledger.mapRules.set(family, handles.maps.get(family)!)
  }
}
