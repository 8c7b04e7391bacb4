import type { Family } from '../base/address.js'
import { jump, NftTransaction, type ElementOptions } from '../kernel/nft.js'
import type { Ledger } from './ledger.js'
import type { Made, Plan } from './plan.js'
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
/** Told the number in the transaction of each rule for a mapping, and of each map's own. */
export type OnRule = (change: number, of: Made | Family) => void

/** A {@link Plan} as one transaction. */
export function write(plan: Plan, ledger: Ledger, onRule: OnRule): NftTransaction {
  const transaction = new NftTransaction()
  if (plan.addRules.length > 0 || plan.addElements.length > 0) writeBase(transaction)
  for (const { handle } of plan.deleteRules) transaction.deleteRule({ ...checks, handle })
  deleteElements(transaction, plan)
  deleteMaps(transaction, plan, ledger)
  addMaps(transaction, plan, ledger, onRule)
  addElements(transaction, plan)
  for (const made of plan.addRules) {
    onRule(transaction.size, made)
    transaction.addRuleFrom(mappingTemplate(made.mapping), mappingValues(made.mapping), made.comment)
  }
  return transaction
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
    const keys = new Uint8Array(ours.length * bytes)
    for (const [i, { mapping }] of ours.entries()) keys.set(mapping.address, i * bytes)
    transaction.deleteElements({ ...table, set: map, keyBytes: bytes, keys })
  }
}

function deleteMaps(transaction: NftTransaction, plan: Plan, ledger: Ledger): void {
  for (const subnet of plan.oldSubnets) transaction.deleteChain({ ...table, chain: subnetChain(subnet) })
  for (const family of plan.oldFamilies) {
    const handle = ledger.mapRules.get(family)
    if (handle !== undefined) transaction.deleteRule({ ...checks, handle })
    transaction.deleteSet({ ...table, set: Families[family].map })
  }
}

function addMaps(transaction: NftTransaction, plan: Plan, ledger: Ledger, onRule: OnRule): void {
  for (const family of plan.newFamilies) {
    const { map, type, comment } = Families[family]
    transaction.addSet({ ...table, set: map, type, map: 'verdict', comment })
    // At the head: the plugins add their rules at the end.
    if (ledger.mapRules.has(family)) continue
    onRule(transaction.size, family)
    transaction.addRule({ ...checks, expressions: mapRule(family), at: 'head', comment })
  }
  for (const subnet of plan.newSubnets) {
    const chain = { ...table, chain: subnetChain(subnet) }
    transaction
      .addChain(chain)
      .flushChain(chain)
      .addRule({ ...chain, expressions: subnetRule(subnet) })
  }
}

function addElements(transaction: NftTransaction, { addElements: all, newSubnets }: Plan): void {
  const verdicts = new Map(newSubnets.map((subnet) => [subnet.text, jump(subnetChain(subnet))]))
  for (const family of families) {
    const ours = all.filter(({ mapping }) => mapping.subnet.family === family)
    const elements = ours.map(({ mapping, comment }): ElementOptions => {
      const verdict = verdicts.get(mapping.subnet.text)!
      return { key: mapping.address, verdict, ...(comment !== undefined && { comment }) }
    })
    transaction.addElements({ ...table, set: Families[family].map, elements })
  }
}
