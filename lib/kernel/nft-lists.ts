import { eachAttribute, malformed, viewOf } from './attributes.js'
import { Attributes, AttributeWriter } from './nft-attributes.js'
import { readExpression } from './nft-expression-codec.js'
import type { Expression } from './nft-expressions.js'
import {
  ChainAttribute,
  ElementsAttribute,
  familyNumber,
  HookAttribute,
  Hooks,
  LIST_ELEMENT,
  nameOf,
  Policies,
  RuleAttribute,
  SetAttribute,
  TableAttribute,
  type ChainName,
  type Hook,
  type NftFamily,
  type Policy,
  type RuleName,
  type SetName,
  type TableName,
} from './nft-names.js'
import { readComment, readSetComment } from './nft-userdata.js'
import { LITTLE_ENDIAN } from './records.js'

/** What the kernel has, read from the messages that it answers a request or a dump with. */

export interface Table extends TableName {
  readonly handle: number
  /** NFT_TABLE_F_*: 1 dormant (its chains see no packet), 2 owned by a socket, 4 kept when that socket closes. */
  readonly flags: number
  readonly comment: string | undefined
}
export interface Chain extends ChainName {
  readonly handle: number
  /** undefined for a chain that packets enter only by a jump or goto. */
  readonly base:
    { readonly type: string; readonly hook: Hook; readonly priority: number; readonly policy: Policy } | undefined
  readonly comment: string | undefined
}
export interface Rule extends RuleName {
  readonly expressions: readonly Expression[]
  readonly comment: string | undefined
}
export interface NftSet extends SetName {
  readonly handle: number
  /** NFT_SET_*: 1 anonymous, 2 constant, 4 intervals, 8 a map, 16 with timeouts, 32 filled by rules … */
  readonly flags: number
  readonly keyBytes: number
  readonly comment: string | undefined
}

const MESSAGE_HEADER = 16
/** struct nfgenmsg: family, version, resource. */
const GENERIC_HEADER = 4

/** The payload of a request: struct nfgenmsg, then attributes. */
export function requestPayload(family: NftFamily | undefined, attributes: AttributeWriter): Uint8Array {
  const header = Uint8Array.of(family === undefined ? 0 : familyNumber(family), 0, 0, 0)
  return Buffer.concat([header, attributes.written])
}

/** Each message's type within nftables (NFT_MSG_*) and its attributes. */
export function* eachMessage(messages: Uint8Array): Generator<[type: number, attributes: Uint8Array]> {
  const view = viewOf(messages)
  for (let at = 0; at < messages.length;) {
    const length = at + MESSAGE_HEADER <= messages.length ? view.getUint32(at, LITTLE_ENDIAN) : 0
    if (length < MESSAGE_HEADER + GENERIC_HEADER || at + length > messages.length) {
      throw malformed('a message of no possible length')
    }
    const type = view.getUint16(at + 4, LITTLE_ENDIAN) & 0xff
    yield [type, messages.subarray(at + MESSAGE_HEADER + GENERIC_HEADER, at + length)]
    at += (length + 3) & ~3
  }
}

const GENERATION_ID = 1

export function readGeneration(bytes: Uint8Array): number {
  return new Attributes(bytes).u32(GENERATION_ID)
}

export function readTable(bytes: Uint8Array, family: NftFamily): Table {
  const attributes = new Attributes(bytes)
  return {
    family,
    table: attributes.text(TableAttribute.name),
    handle: handle(attributes, TableAttribute.handle),
    flags: attributes.has(TableAttribute.flags) ? attributes.u32(TableAttribute.flags) : 0,
    comment: attributes.has(TableAttribute.userdata)
      ? readComment(attributes.bytes(TableAttribute.userdata))
      : undefined,
  }
}

export function readChain(bytes: Uint8Array, family: NftFamily): Chain {
  const attributes = new Attributes(bytes)
  return {
    family,
    table: attributes.text(ChainAttribute.table),
    chain: attributes.text(ChainAttribute.name),
    handle: handle(attributes, ChainAttribute.handle),
    base: attributes.has(ChainAttribute.hook) ? readBase(attributes) : undefined,
    comment: attributes.has(ChainAttribute.userdata)
      ? readComment(attributes.bytes(ChainAttribute.userdata))
      : undefined,
  }
}

function readBase(attributes: Attributes): Chain['base'] {
  const place = attributes.nest(ChainAttribute.hook)
  const hook = nameOf(Hooks, place.u32(HookAttribute.number))
  const policy = nameOf(Policies, attributes.u32(ChainAttribute.policy))
  if (hook === undefined || policy === undefined) throw malformed('a base chain with an unknown hook or policy')
  return { type: attributes.text(ChainAttribute.type), hook, priority: place.i32(HookAttribute.priority), policy }
}

export function readRule(bytes: Uint8Array, family: NftFamily): Rule {
  const attributes = new Attributes(bytes)
  const expressions: Expression[] = []
  if (attributes.has(RuleAttribute.expressions)) {
    for (const [type, expression] of eachAttribute(attributes.bytes(RuleAttribute.expressions))) {
      if (type === LIST_ELEMENT) expressions.push(readExpression(expression))
    }
  }
  return {
    family,
    table: attributes.text(RuleAttribute.table),
    chain: attributes.text(RuleAttribute.chain),
    handle: handle(attributes, RuleAttribute.handle),
    expressions,
    comment: attributes.has(RuleAttribute.userdata) ? readComment(attributes.bytes(RuleAttribute.userdata)) : undefined,
  }
}

export function readSet(bytes: Uint8Array, family: NftFamily): NftSet {
  const attributes = new Attributes(bytes)
  return {
    family,
    table: attributes.text(SetAttribute.table),
    set: attributes.text(SetAttribute.name),
    handle: handle(attributes, SetAttribute.handle),
    flags: attributes.has(SetAttribute.flags) ? attributes.u32(SetAttribute.flags) : 0,
    keyBytes: attributes.u32(SetAttribute.keyBytes),
    comment: attributes.has(SetAttribute.userdata)
      ? readSetComment(attributes.bytes(SetAttribute.userdata))
      : undefined,
  }
}

const Element = { key: 1 } as const
const DATA_VALUE = 1

/** Appends the keys in one message of a set's elements to `keys`. */
export function readKeys(bytes: Uint8Array, keys: Uint8Array[]): void {
  for (const [type, list] of eachAttribute(bytes)) {
    if (type !== ElementsAttribute.elements) continue
    for (const [, element] of eachAttribute(list)) {
      keys.push(new Attributes(element).nest(Element.key).bytes(DATA_VALUE))
    }
  }
}

/** The kernel counts handles up from 1 in each table: 2^53 are never reached. */
function handle(attributes: Attributes, type: number): number {
  return Number(attributes.u64(type))
}
