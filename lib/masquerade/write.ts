import type { Family } from '../base/address.js'
import { jump, NftTransaction, PackedComments } from '../kernel/nft.js'
import type { Holdings } from './holdings.js'
import type { Ledger } from './ledger.js'
import type { Plan } from './plan.js'
import { ADDRESS_WORDS, wordsOf, type Subnet } from './subnet.js'
import {
  checks,
  compared,
  Families,
  families,
  mappingTemplate,
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
  for (const row of plan.deleteRules) transaction.deleteRule({ ...checks, handle: ledger.handles[row]! })
  deleteElements(transaction, plan, ledger)
  deleteMaps(transaction, plan, ledger)
  const maps = addMaps(transaction, plan, ledger)
  addElements(transaction, plan)
  const firstMapping = transaction.size
  addRules(transaction, plan)
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

function deleteElements(transaction: NftTransaction, { deleteElements: all }: Plan, ledger: Ledger): void {
  for (const family of families) {
    const { map, bytes } = Families[family]
    const ours = all.filter((row) => ledger.subnets[row]!.family === family)
    transaction.deleteElements({ ...table, set: map, keyBytes: bytes, keys: keysOf(ledger, ours, family) })
  }
}

/** Addresses of one family, one after the other. */
function keysOf({ addresses }: Holdings, rows: readonly number[], family: Family): Uint8Array {
  const words = wordsOf(family)
  const keys = new Uint32Array(rows.length * words)
  for (let i = 0; i < rows.length; i++) {
    const at = (rows[i]! + 1) * ADDRESS_WORDS - words
    for (let j = 0; j < words; j++) keys[i * words + j] = addresses[at + j]!
  }
  return new Uint8Array(keys.buffer)
}

function commentsOf({ comments, slots }: Holdings, rows: readonly number[]): PackedComments {
  const packed = new PackedComments()
  for (const row of rows) packed.add(comments[row]!, slots[row])
  return packed
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

function addElements(transaction: NftTransaction, { addElements: all, made }: Plan): void {
  const bySubnet = new Map<Subnet, number[]>()
  for (const row of all) {
    const subnet = made.subnets[row]!
    const alike = bySubnet.get(subnet)
    if (alike === undefined) bySubnet.set(subnet, [row])
    else alike.push(row)
  }
  for (const [subnet, alike] of bySubnet) {
    const { map, bytes } = Families[subnet.family]
    transaction.addElements({
      ...table,
      set: map,
      keyBytes: bytes,
      keys: keysOf(made, alike, subnet.family),
      verdict: jump(subnetChain(subnet)),
      comments: commentsOf(made, alike),
    })
  }
}

/** In their order, those of one subnet that follow each other at once. */
function addRules(transaction: NftTransaction, { addRules: all, made }: Plan): void {
  for (let from = 0, to = 0; from < all.length; from = to) {
    const subnet = made.subnets[all[from]!]!
    while (to < all.length && made.subnets[all[to]!] === subnet) to++
    const alike = all.slice(from, to)
    transaction.addRulesFrom(
      mappingTemplate(subnet),
      { subnet: compared(subnet) },
      keysOf(made, alike, subnet.family),
      commentsOf(made, alike),
    )
  }
}
