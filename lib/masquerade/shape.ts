import { InvalidState } from '../base/errors.js'
import type { Chain, NftSet, Table } from '../kernel/nft.js'
import { checks, Families, families, postrouting, postroutingBase, prefixOfChain, table } from './rules.js'

/** NFT_SET_MAP: it is a map, and nothing else is said of it. */
const IS_MAP = 8

/** A table by our name that neither the plugins nor we would have made. */

export interface Shape {
  readonly table: Table
  readonly chains: readonly Chain[]
  readonly sets: readonly NftSet[]
}

/**
 * What rules say is not looked at: those of `postrouting` and of the subnets' chains are made anew with each addition, by
 * the plugins and here.
 * @throws InvalidState ERR_XFRMESH_OTHER_SHAPE, saying all that differs
 */
export function checkShape(shape: Shape): void {
  const said = [...differences(shape)]
  if (said.length > 0) throw otherShape(said.join('; '))
}

export function otherShape(difference: string): InvalidState {
  return new InvalidState(
    `table inet ${table.table} is not as the CNI plugins and xfrmesh make it: ${difference}; nothing was changed`,
    'ERR_XFRMESH_OTHER_SHAPE',
  )
}

/** A clause each. */
function* differences({ table, chains, sets }: Shape): Generator<string> {
  if (table.flags !== 0) yield `its flags are ${table.flags}, not 0 (1 is dormant, 2 is owned by a process)`
  for (const { chain, base } of chains) {
    if (chain === postrouting.chain) {
      const { type, hook, priority } = postroutingBase
      const same = base?.type === type && base.hook === hook && base.priority === priority && base.policy === 'accept'
      if (!same) yield `chain ${chain} is ${told(base)}, not ${told({ ...postroutingBase, policy: 'accept' })}`
    } else if (base !== undefined && (chain === checks.chain || prefixOfChain(chain) !== undefined)) {
      yield `chain ${chain} is ${told(base)}, not ${told(undefined)}`
    }
  }
  for (const family of families) {
    const { map, type } = Families[family]
    const set = sets.find((one) => one.set === map)
    if (set === undefined) continue
    if (set.type !== type || set.map !== 'verdict' || set.flags !== IS_MAP) {
      yield `set ${map} is not a plain map from ${type} to verdicts`
    }
  }
}

function told(base: Chain['base']): string {
  if (base === undefined) return 'a chain that is jumped to'
  const { type, hook, priority, policy } = base
  return `one of type ${type} at hook ${hook}, priority ${priority}, policy ${policy}`
}
