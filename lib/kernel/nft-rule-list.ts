import { malformed } from './attributes.js'
import { Attributes } from './netlink-attributes.js'
import { Cursor } from './netlink-cursor.js'
import { readExpression } from './nft-expression-codec.js'
import type { Expression } from './nft-expressions.js'
import {
  CounterAttribute,
  ExpressionAttribute,
  LIST_ELEMENT,
  RuleAttribute,
  type ChainName,
  type RuleName,
  type TableName,
} from './nft-names.js'
import { readComment } from './nft-userdata.js'

/** Packets and bytes counted. */
export interface Counted {
  readonly packets: bigint
  readonly bytes: bigint
}

export interface ListedRule extends RuleName {
  readonly comment: string | undefined
  /** What its first counter counted; undefined if it has none, or if counters were not asked for. */
  readonly counter: Counted | undefined
}

export interface Rule extends ListedRule {
  readonly expressions: readonly Expression[]
}

/** What to read of rules beside their handles. Reading expressions costs more than the kernel takes to list them. */
export interface RuleDetails {
  /** Default: false. */
  readonly expressions?: boolean
  /** Default: true. */
  readonly comments?: boolean
  /** Default: false. */
  readonly counters?: boolean
}

/** The rules in a dump that asked for those of a table, or of a chain. */
export function readRules(
  messages: Uint8Array,
  where: TableName | ChainName,
  details: RuleDetails & { expressions: true },
): Rule[]
export function readRules(messages: Uint8Array, where: TableName | ChainName, details: RuleDetails): ListedRule[]
export function readRules(messages: Uint8Array, where: TableName | ChainName, details: RuleDetails): ListedRule[] {
  const { family, table } = where
  const asked = 'chain' in where ? where.chain : undefined
  const { expressions: whole = false, comments = true, counters = false } = details
  const rules: ListedRule[] = []
  const message = new Cursor(messages)
  const attribute = new Cursor(messages)
  let chain = asked
  let chainBytes = new Uint8Array()
  while (message.nextMessage()) {
    let handle = 0
    let comment: string | undefined
    let counter: Counted | undefined
    let expressions: Expression[] | undefined
    attribute.enter(message)
    while (attribute.next()) {
      switch (attribute.type) {
        case RuleAttribute.handle:
          handle = attribute.u64()
          break
        case RuleAttribute.chain:
          // Rules come chain by chain: mostly it is the one that the rule before is in.
          if (asked === undefined && !sameBytes(chainBytes, attribute.payload)) {
            chainBytes = attribute.payload.slice()
            chain = attribute.text()
          }
          break
        case RuleAttribute.userdata:
          if (comments) comment = readComment(attribute.buffer, attribute.start, attribute.end)
          break
        case RuleAttribute.expressions:
          if (whole) expressions = readExpressions(attribute.payload)
          if (counters) counter = firstCounter(attribute.payload)
          break
      }
    }
    if (handle === 0 || chain === undefined) throw malformed('a rule without handle or chain')
    const rule: ListedRule = { family, table, chain, handle, comment, counter }
    rules.push(whole ? Object.assign(rule, { expressions: expressions ?? [] }) : rule)
  }
  return rules
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return false
  return true
}

function readExpressions(list: Uint8Array): Expression[] {
  const expressions: Expression[] = []
  for (const cursor = new Cursor(list); cursor.next();) {
    if (cursor.type === LIST_ELEMENT) expressions.push(readExpression(cursor.payload))
  }
  return expressions
}

/** What the first counter among expressions counted. */
export function firstCounter(list: Uint8Array): Counted | undefined {
  for (const cursor = new Cursor(list); cursor.next();) {
    const counted = cursor.type === LIST_ELEMENT ? readCounter(cursor.payload) : undefined
    if (counted !== undefined) return counted
  }
  return undefined
}

/** What an expression counted, if it is a counter. */
export function readCounter(expression: Uint8Array): Counted | undefined {
  let isCounter = false
  for (const cursor = new Cursor(expression); cursor.next();) {
    if (cursor.type === ExpressionAttribute.name) isCounter = sameBytes(cursor.payload, COUNTER)
    if (isCounter && cursor.type === ExpressionAttribute.data) return readCounted(new Attributes(cursor.payload))
  }
  return undefined
}

/** The name of the expression, with its NUL. */
const COUNTER = Uint8Array.from(Buffer.from('counter\0'))

export function readCounted(data: Attributes): Counted {
  return { packets: data.u64(CounterAttribute.packets), bytes: data.u64(CounterAttribute.bytes) }
}
