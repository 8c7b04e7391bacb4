import { isDeepStrictEqual } from 'node:util'
import { counter, type Expression } from './nft-expressions.js'
import type { Chain, NftSet, Rule, Table } from './nft.js'
import type { TableName } from './nft-names.js'
import type { BaseChain, SetOptions } from './nft-options.js'
import { NftTransaction } from './nft-transaction.js'

/** A table as a value: which chains, rules and sets it should have, and how what the kernel has differs from it. */
export interface TableShape {
  readonly comment: string
  readonly sets: readonly Omit<SetOptions, 'family' | 'table'>[]
  readonly chains: readonly ShapedChain[]
}

export interface ShapedChain {
  readonly chain: string
  readonly base?: Required<BaseChain>
  readonly rules: readonly (readonly Expression[])[]
}

/** What the kernel has of a table. */
export interface FoundTable {
  readonly table: Table
  readonly chains: readonly Chain[]
  readonly rules: readonly Rule[]
  readonly sets: readonly NftSet[]
}

/**
 * Replaces a table, whether it is there or not, by one of that shape with empty sets: what sees packets changes from the
 * old to the new in one step. The transaction takes more changes.
 */
export function replacing(table: TableName, { comment, sets, chains }: TableShape): NftTransaction {
  const transaction = new NftTransaction()
    // What was just added is there to be deleted.
    .addTable(table)
    .deleteTable(table)
    .addTable({ ...table, comment })
  for (const set of sets) transaction.addSet({ ...table, ...set })
  for (const { chain, base } of chains) transaction.addChain({ ...table, chain, ...(base && { base }) })
  for (const { chain, rules } of chains) {
    for (const expressions of rules) transaction.addRule({ ...table, chain, expressions })
  }
  return transaction
}

/** How what was found differs from the shape, a sentence each; whatever is in the table and is not of the shape differs. */
export function shapeDifferences(shape: TableShape, { table, chains, rules, sets }: FoundTable): string[] {
  const said: string[] = []
  if (table.flags !== 0) said.push(`the table has flags ${table.flags}: it is dormant, or another's`)
  for (const { chain, base, rules: expected } of shape.chains) {
    const there = chains.find((other) => other.chain === chain)
    const actual = rules.filter((rule) => rule.chain === chain)
    if (there === undefined) said.push(`chain ${chain} is missing`)
    else if (!isDeepStrictEqual(there.base, base)) said.push(`chain ${chain} hangs elsewhere or has another policy`)
    else if (actual.length !== expected.length) {
      said.push(`chain ${chain} has ${actual.length} rules, not ${expected.length}`)
    } else {
      const other = actual.findIndex(({ expressions }, i) => !sameRule(expressions, expected[i]!))
      if (other >= 0) said.push(`rule ${other + 1} of chain ${chain} is another`)
    }
  }
  for (const { chain } of chains)
    if (!shape.chains.some((ours) => ours.chain === chain)) said.push(`chain ${chain} is not ours`)
  for (const { set } of sets) if (!shape.sets.some((ours) => ours.set === set)) said.push(`set ${set} is not ours`)
  for (const { set } of shape.sets) if (!sets.some((there) => there.set === set)) said.push(`set ${set} is missing`)
  return said
}

/** Whether two rules do the same, whatever was counted. */
function sameRule(actual: readonly Expression[], expected: readonly Expression[]): boolean {
  const uncounted = (expression: Expression) => (expression.kind === 'counter' ? counter() : expression)
  return isDeepStrictEqual(actual.map(uncounted), expected.map(uncounted))
}
