import type { Family } from '../base/address.js'
import { jump, NftTransaction } from '../kernel/nft.js'
import type { Ledger } from './ledger.js'
import type { Made, Plan } from './plan.js'
import { writeAddress, type Mapping, type Subnet } from './subnet.js'
import {
  checks,
  Families,
  families,
  mappingTemplate,
  mappingValues,
  mapRule,
  postrouting,
  postroutingBase,
  postroutingRules,
  subnetChain,
  subnetRule,
  table,
} from './rules.js'

const TABLE_COMMENT = 'Masquerading for plugins from github.com/containernetworking/plugins'
const CHECKS_COMMENT = 'Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet'

/** A {@link Plan} as one transaction. */
export interface Written {
  readonly transaction: NftTransaction
  /** The number of the first rule for a mapping; the others follow it. */
  readonly firstMapping: number
  /** The numbers of the maps' own rules that are new. */
  readonly maps: ReadonlyMap<Family, number>
}

export function write(plan: Plan, ledger: Ledger): Written {
  const transaction = new NftTransaction()
  if (plan.addRules.length > 0 || plan.addElements.length > 0) writeBase(transaction)
  for (const { handle } of plan.deleteRules) transaction.deleteRule({ ...checks, handle })
  deleteElements(transaction, plan)
  deleteMaps(transaction, plan, ledger)
  const maps = addMaps(transaction, plan, ledger)
  addElements(transaction, plan)
  const firstMapping = transaction.size
  for (const { mapping, comment } of plan.addRules) {
    transaction.addRuleFrom(mappingTemplate(mapping), mappingValues(mapping), comment)
  }
  return { transaction, firstMapping, maps }
}

/**
 * What the plugins write at each add. That `postrouting` is made anew gives its rules new handles: which tells whoever
 * remembers them that something was added.
 */
function writeBase(transaction: NftTransaction): void {
  transaction
    .addTable({ ...table, comment: TABLE_COMMENT })
    .addChain({ ...checks, comment: CHECKS_COMMENT })
    .addChain({ ...postrouting, base: postroutingBase })
    .flushChain(postrouting)
  for (const expressions of postroutingRules) transaction.addRule({ ...postrouting, expressions })
}

function deleteElements(transaction: NftTransaction, { deleteElements: all }: Plan): void {
  for (const family of families) {
    const { map, bytes } = Families[family]
    const ours = all.filter(({ mapping }) => mapping.subnet.family === family)
    transaction.deleteElements({ ...table, set: map, keyBytes: bytes, keys: keysOf(ours, bytes) })
  }
}

function keysOf(all: readonly { readonly mapping: Mapping }[], bytes: number): Uint8Array {
  const keys = new Uint8Array(all.length * bytes)
  for (let i = 0; i < all.length; i++) writeAddress(all[i]!.mapping, keys, i * bytes)
  return keys
}

function deleteMaps(transaction: NftTransaction, plan: Plan, ledger: Ledger): void {
  for (const subnet of plan.oldSubnets) transaction.deleteChain({ ...table, chain: subnetChain(subnet) })
  for (const family of plan.oldFamilies) {
    const handle = ledger.mapRules.get(family)
    if (handle !== undefined) transaction.deleteRule({ ...checks, handle })
    transaction.deleteSet({ ...table, set: Families[family].map })
  }
}

function addMaps(transaction: NftTransaction, plan: Plan, ledger: Ledger): Map<Family, number> {
  const rules = new Map<Family, number>()
  for (const family of plan.newFamilies) {
    const { map, type, comment } = Families[family]
    transaction.addSet({ ...table, set: map, type, map: 'verdict', comment })
    // At the head: the plugins add their rules at the end.
    if (ledger.mapRules.has(family)) continue
    rules.set(family, transaction.size)
    transaction.addRule({ ...checks, expressions: mapRule(family), at: 'head', comment })
  }
  for (const subnet of plan.newSubnets) {
    const chain = { ...table, chain: subnetChain(subnet) }
    transaction
      .addChain(chain)
      .flushChain(chain)
      .addRule({ ...chain, expressions: subnetRule(subnet) })
  }
  return rules
}

function addElements(transaction: NftTransaction, { addElements: all }: Plan): void {
  const bySubnet = new Map<Subnet, Made[]>()
  for (const made of all) {
    const { subnet } = made.mapping
    const alike = bySubnet.get(subnet)
    if (alike === undefined) bySubnet.set(subnet, [made])
    else alike.push(made)
  }
  for (const [subnet, alike] of bySubnet) {
    const { map, bytes } = Families[subnet.family]
    transaction.addElements({
      ...table,
      set: map,
      keyBytes: bytes,
      keys: keysOf(alike, bytes),
      verdict: jump(subnetChain(subnet)),
      comments: alike.map(({ comment }) => comment),
    })
  }
}
