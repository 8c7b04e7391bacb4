import { isDeepStrictEqual } from 'node:util'
import type { Chain, ElementsOptions, Expression, NftSet, Rule, SetName, Table, TableName } from '../kernel/nft.js'
import { counter } from '../kernel/nft-expressions.js'
import { NftTransaction } from '../kernel/nft-transaction.js'
import { type Guard, VNI_BYTES, VNI_OFFSET, VNI_SET } from './guard.js'
import type { VniSet } from './vni-set.js'

/** The {@link Guard} as a table: what puts it there, and how what the kernel has differs from it. */

/** The VXLAN port that a table found is for, if it begins as a guard does. */
export function portOf(rules: readonly Rule[]): number | undefined {
  const port = rules.find(({ chain }) => chain === 'output')?.expressions[3]
  if (port?.kind !== 'cmp' || port.data.length !== 2) return undefined
  return (port.data[0]! << 8) | port.data[1]!
}

/** The name of the set in a table. */
export function vniSet(table: TableName): SetName {
  return { ...table, set: VNI_SET }
}

/**
 * Replaces a table, whether it is there or not, by the guard of these networks. What sees packets changes from the old
 * to the new in one step. Rules that were there `before` go on counting where they were.
 */
export function replacing(
  table: TableName,
  guard: Guard,
  networks: VniSet,
  before: readonly Rule[] = [],
): NftTransaction {
  const transaction = new NftTransaction()
    // What was just added is there to be deleted.
    .addTable(table)
    .deleteTable(table)
    .addTable({ ...table, comment: 'networks that xfrmesh encrypts' })
    .addSet({ ...vniSet(table), keyBytes: VNI_BYTES, typeof: { offset: VNI_OFFSET * 8, length: VNI_BYTES * 8 } })
  for (const { chain, base } of guard.chains) transaction.addChain({ ...table, chain, ...(base && { base }) })
  for (const { chain, rules } of guard.chains) {
    const there = before.filter((rule) => rule.chain === chain)
    for (const rule of rules) {
      const same = there.find(({ expressions }) => sameRule(expressions, rule))
      transaction.addRule({ ...table, chain, expressions: same?.expressions ?? rule })
    }
  }
  return transaction.addElements(elementsOf(table, networks))
}

/** Networks as elements of the set. */
export function elementsOf(table: TableName, networks: VniSet): ElementsOptions {
  const keys = new Uint8Array(networks.size * VNI_BYTES)
  let at = 0
  networks.forEach((vni) => {
    keys[at++] = vni >> 16
    keys[at++] = vni >> 8
    keys[at++] = vni
  })
  return { ...vniSet(table), keyBytes: VNI_BYTES, keys }
}

/** The network that a key of the set is. */
export function networkOf(key: Uint8Array): number {
  return (key[0]! << 16) | (key[1]! << 8) | key[2]!
}

/** Whether the set is one whose keys are VNIs. */
export function holdsNetworks({ set, keyBytes }: NftSet): boolean {
  return set === VNI_SET && keyBytes === VNI_BYTES
}

/** What the kernel has of a table. */
export interface Found {
  readonly table: Table
  readonly chains: readonly Chain[]
  readonly rules: readonly Rule[]
  readonly sets: readonly NftSet[]
}

/** How what was found differs from the guard, a sentence each; whatever is in the table and is not of the guard differs. */
export function differences(guard: Guard, found: Found): string[] {
  const { table, chains, rules, sets } = found
  const said: string[] = []
  if (table.flags !== 0) said.push(`the table has flags ${table.flags}: it is dormant, or another's`)

  for (const { chain, base, rules: expected } of guard.chains) {
    const there = chains.find((other) => other.chain === chain)
    if (there === undefined) {
      said.push(`chain ${chain} is missing`)
      continue
    }
    if (!isDeepStrictEqual(there.base, base)) said.push(`chain ${chain} hangs elsewhere or has another policy`)
    const actual = rules.filter((rule) => rule.chain === chain)
    if (actual.length !== expected.length) {
      said.push(`chain ${chain} has ${actual.length} rules, not ${expected.length}`)
    } else {
      for (const [i, rule] of actual.entries()) {
        if (!sameRule(rule.expressions, expected[i]!)) said.push(`rule ${i + 1} of chain ${chain} is another`)
      }
    }
  }
  for (const { chain } of chains) {
    if (!guard.chains.some((ours) => ours.chain === chain)) said.push(`chain ${chain} is not ours`)
  }

  if (!sets.some(({ set }) => set === VNI_SET)) said.push(`set ${VNI_SET} is missing`)
  for (const { set, keyBytes, flags } of sets) {
    if (set !== VNI_SET) said.push(`set ${set} is not ours`)
    else if (keyBytes !== VNI_BYTES || flags !== 0) said.push(`set ${set} is of another kind`)
  }
  return said
}

/** Whether they do the same, whatever was counted. */
function sameRule(actual: readonly Expression[], expected: readonly Expression[]): boolean {
  const uncounted = (expression: Expression) => (expression.kind === 'counter' ? counter() : expression)
  return isDeepStrictEqual(actual.map(uncounted), expected.map(uncounted))
}
