import type { Family } from '../base/address.js'
import { jump, NftTransaction } from '../kernel/nft.js'
import type { Ledger } from './ledger.js'
import type { Plan } from './plan.js'
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
  const transaction = new NftTransaction(plan.draft)
  if (plan.added > 0) transaction.append(baseRecords, baseSize)
  for (const handle of plan.deleteRules) transaction.deleteRule({ ...checks, handle })
  for (const family of families) {
    const { map, bytes } = Families[family]
    transaction.deleteElements({ ...table, set: map, keyBytes: bytes, keys: plan.deleteElements[family] })
  }
  deleteMaps(transaction, plan, ledger)
  const maps = addMaps(transaction, plan, ledger)
  for (const { subnet, keys } of plan.addElements) {
    const { map, bytes } = Families[subnet.family]
    transaction.addElementsHeld({ ...table, set: map, keyBytes: bytes, keys, verdict: jump(subnetChain(subnet)) })
  }
  const firstMapping = transaction.size
  for (const { subnet, keys } of plan.addRules) {
    transaction.addRulesHeld(mappingTemplate(subnet), { subnet: compared(subnet) }, keys)
  }
  return { transaction, firstMapping, maps }
}

/**
 * What the plugins write at each add. That `postrouting` is made anew gives its rules new handles: which tells whoever
 * remembers them that something was added.
 */
const base = new NftTransaction()
  .addTable({ ...table, comment: TABLE_COMMENT })
  .addChain({ ...checks, comment: CHECKS_COMMENT })
  .addChain({ ...postrouting, base: postroutingBase })
  .flushChain(postrouting)
for (const expressions of postroutingRules) base.addRule({ ...postrouting, expressions })
const { size: baseSize } = base
const baseRecords = base.take()

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
  for (const { subnet } of plan.addElements) {
    const chain = { ...table, chain: subnetChain(subnet) }
    transaction
      .addChain(chain)
      .flushChain(chain)
      .addRule({ ...chain, expressions: subnetRule(subnet) })
  }
  return rules
}
