import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import type { Nft } from '../kernel/nft.js'
import { DraftChange, DraftKind, type NativeDraft, type NativeDrafted, type NativeGroups } from '../kernel/mappings.js'
import { checksDisagree, type Given } from './given.js'
import type { Ledger } from './ledger.js'
import { networkBytes } from './owner.js'
import { families, Families } from './rules.js'
import { readSubnets, type Subnet } from './subnet.js'

/**
 * How mappings are kept. `rules`: a rule each, as the CNI plugins write them. `set`: an element each of a map from addresses
 * to their subnets' chains, which costs a packet the same however many there are.
 */
export type Layout = 'rules' | 'set'

/** What a call does about the attachments that it was given. */
export type Change = { readonly what: 'add' | 'remove' } | { readonly what: 'collect'; readonly network: string }

/** Mappings on one subnet: their addresses as packets have them. The draft holds their comments. */
export interface Mappings {
  readonly subnet: Subnet
  readonly keys: Uint8Array
}

/** What is to be done, all at once; chains and maps follow from it. native/masquerade/draft.h says how it comes about. */
export interface Plan {
  /** Handles. */
  readonly deleteRules: Float64Array
  /** Addresses. */
  readonly deleteElements: Readonly<Record<Family, Uint8Array>>
  /** A subnet once. */
  readonly addElements: readonly Mappings[]
  /** In their order. */
  readonly addRules: readonly Mappings[]
  /** Subnets whose last element goes. */
  readonly oldSubnets: readonly Subnet[]
  /** Families whose map is to be there for new elements, and those whose last element goes. */
  readonly newFamilies: readonly Family[]
  readonly oldFamilies: readonly Family[]
  /** How many mappings it makes, and how many of these are rules; and how many it takes away. */
  readonly added: number
  readonly rules: number
  readonly removed: number
  /** Its draft in C++. */
  readonly draft: NativeDraft
}

/**
 * Plans a change from what the table holds; undefined if there is nothing to do.
 * @throws InvalidArgument if what was given is refused
 */
export async function plan(
  nft: Pick<Nft, 'run'>,
  ledger: Ledger,
  given: Given,
  change: Change,
  layout: Layout,
): Promise<Plan | undefined> {
  const network = change.what === 'collect' ? networkBytes(change.network) : new Uint8Array()
  const draft = () =>
    nft.run('masquerade: plan', (socket, job) =>
      socket.draft(
        job,
        DraftChange[change.what],
        layout === 'set' ? DraftKind.element : DraftKind.rule,
        network,
        ledger.mappings,
        given.slices,
        given.size,
      ),
    )
  let drafted = await draft()
  if (drafted.refused.length > 0) {
    await given.mend(drafted.refused)
    drafted = await draft()
    if (drafted.refused.length > 0) throw checksDisagree()
  }
  return planOf(drafted, ledger)
}

function planOf(drafted: NativeDrafted, ledger: Ledger): Plan | undefined {
  const { deleteRules, delete4, delete6, keys } = drafted
  const removed =
    deleteRules.length + delete4.length / Families[AF_INET].bytes + delete6.length / Families[AF_INET6].bytes
  const count = ({ counts }: NativeGroups) => counts.reduce((all, one) => all + one, 0)
  const rules = count(drafted.rules)
  const added = count(drafted.elements) + rules
  if (removed + added === 0) return undefined
  let at = 0
  const cut = ({ subnets, counts }: NativeGroups): Mappings[] =>
    readSubnets(subnets).map((subnet, i) => ({
      subnet,
      keys: keys.subarray(at, (at += counts[i]! * subnet.first.length)),
    }))
  const addElements = cut(drafted.elements)
  const addRules = cut(drafted.rules)
  const has = (family: Family) => addElements.some(({ subnet }) => subnet.family === family)
  const left = { [AF_INET]: drafted.left4, [AF_INET6]: drafted.left6 }
  return {
    deleteRules,
    deleteElements: { [AF_INET]: delete4, [AF_INET6]: delete6 },
    addElements,
    addRules,
    oldSubnets: readSubnets(drafted.oldSubnets),
    newFamilies: families.filter(has),
    oldFamilies: families.filter((family) => ledger.maps.has(family) && !has(family) && left[family] === 0),
    added,
    rules,
    removed,
    draft: drafted.draft,
  }
}

/** Handles of the rules that a plan made. */
export interface MadeHandles {
  /** Of its mappings' rules, in their order. */
  readonly mappings: Float64Array
  /** Of the rules that look addresses up in new maps. */
  readonly maps: ReadonlyMap<Family, number>
}

/** Has the ledger tell of what a plan made of the table. */
export async function apply(nft: Pick<Nft, 'run'>, plan: Plan, ledger: Ledger, handles: MadeHandles): Promise<void> {
  for (const family of plan.oldFamilies) {
    ledger.maps.delete(family)
    ledger.mapRules.delete(family)
  }
  for (const family of plan.newFamilies) {
    ledger.maps.add(family)
    if (!ledger.mapRules.has(family)) ledger.mapRules.set(family, handles.maps.get(family)!)
  }
  await nft.run('masquerade: ledger', (socket, job) => socket.apply(job, plan.draft, handles.mappings))
}
