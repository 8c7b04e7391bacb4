import { array, oneOf, options } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { AttributeWriter } from './netlink-attributes.js'
import { writeExpression } from './nft-expression-codec.js'
import type { Expression } from './nft-expressions.js'
import { HoleWriter, type HolePlace } from './nft-holes.js'
import { checkedName, familyNumber, LIST_ELEMENT, RuleAttribute } from './nft-names.js'
import type { RuleOptions } from './nft-options.js'
import { NLM_F_APPEND, NLM_F_CREATE } from './nft-records.js'

/**
 * A rule of which there will be many that differ in some bytes and their comments: encoded once, copied and filled in for
 * each by {@link NftTransaction.addRuleFrom}. What differs stands in the expressions as a {@link Hole}.
 */
export class RuleTemplate {
  /** @internal */
  readonly family: number
  /** @internal */
  readonly flags: number
  /** All of the rule but its comment. @internal */
  readonly attributes: Uint8Array
  /** @internal */
  readonly holes: readonly HolePlace[]

  /** @throws InvalidArgument */
  constructor(value: Omit<RuleOptions, 'comment'>) {
    const rule = options<RuleOptions>(value, 'rule', ['family', 'table', 'chain', 'expressions', 'at'])
    const writer = new HoleWriter()
    this.family = familyNumber(rule.family)
    this.flags = writeRule(writer, rule)
    this.attributes = writer.written
    this.holes = writer.holes
  }

  /** Writes a rule's attributes, but for its comment. @internal */
  write(writer: AttributeWriter, values: Readonly<Record<string, Uint8Array>>): void {
    const start = writer.raw(this.attributes)
    for (const { name, at, bytes } of this.holes) {
      const value: unknown = values[name]
      if (!(value instanceof Uint8Array) || value.length !== bytes) {
        throw new InvalidArgument(`values.${name}`, `a Uint8Array of ${bytes} bytes`, value)
      }
      writer.overwrite(start + at, value)
    }
  }
}

/** Writes what a rule has beside its comment, and returns the flags of its message. @throws InvalidArgument */
export function writeRule(writer: AttributeWriter, rule: RuleOptions): number {
  const at = rule.at === undefined ? 'end' : oneOf(rule.at, 'rule.at', ['end', 'head'])
  const expressions = array(rule.expressions, 'rule.expressions') as readonly Expression[]
  writer
    .text(RuleAttribute.table, checkedName(rule.table, 'rule.table'))
    .text(RuleAttribute.chain, checkedName(rule.chain, 'rule.chain'))
  try {
    writer.nest(RuleAttribute.expressions, (list) => {
      for (const [i, expression] of expressions.entries()) {
        list.nest(LIST_ELEMENT, () => writeExpression(list, expression, `rule.expressions[${i}]`))
      }
    })
  } catch (error) {
    if (error instanceof RangeError) throw new InvalidArgument('rule.expressions', 'less than 64 KiB once encoded')
    throw error
  }
  return at === 'end' ? NLM_F_CREATE | NLM_F_APPEND : NLM_F_CREATE
}
