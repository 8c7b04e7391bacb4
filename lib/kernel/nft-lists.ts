import { malformed } from './attributes.js'
import { Attributes, type AttributeWriter } from './netlink-attributes.js'
import { Cursor } from './netlink-cursor.js'
import {
  ChainAttribute,
  Families,
  familyNumber,
  HookAttribute,
  hookNamed,
  nameOf,
  OBJECT_COUNTER,
  ObjectAttribute,
  Policies,
  SET_IS_MAP,
  SetAttribute,
  SetDescription,
  TableAttribute,
  type ChainName,
  type CounterName,
  type NftFamily,
  type Policy,
  type SetName,
  type TableName,
} from './nft-names.js'
import { readCounted, type Counted } from './nft-rule-list.js'
import { DATA_VERDICT, typeNumbered, type DataType } from './nft-types.js'
import { readComment, readSetComment } from './nft-userdata.js'

/** What the kernel has, read from the messages that it answers a request or a dump with. */

export interface Table extends TableName {
  readonly handle: number
  /** NFT_TABLE_F_*: 1 dormant (its chains see no packet), 2 owned by a socket, 4 kept when that socket closes. */
  readonly flags: number
  /** How many chains, sets and other objects it has. */
  readonly use: number
  readonly comment: string | undefined
}

export interface Chain extends ChainName {
  readonly handle: number
  /** undefined for a chain that packets enter only by a jump or goto. The hook is one of {@link Hook}, or another family's. */
  readonly base:
    { readonly type: string; readonly hook: string; readonly priority: number; readonly policy: Policy } | undefined
  /** How many rules it has, and elements and rules that jump to it. */
  readonly use: number
  readonly comment: string | undefined
}

export interface NftSet extends SetName {
  readonly handle: number
  /** NFT_SET_*: 1 anonymous, 2 constant, 4 intervals, 8 a map, 16 with timeouts, 32 filled by rules … */
  readonly flags: number
  /** Of the keys; `nft`'s number for it if it is none of ours, a concatenation for one. */
  readonly type: DataType | number
  readonly keyBytes: number
  /** What it maps to; undefined if it is a set. */
  readonly map: 'verdict' | DataType | number | undefined
  /** How long elements stay that do not say so themselves. */
  readonly timeoutMs: number | undefined
  /** Most elements. */
  readonly size: number | undefined
  readonly comment: string | undefined
}

/** A counter with a name. */
export interface NftCounter extends CounterName, Counted {
  readonly handle: number
  /** How many rules count in it. */
  readonly use: number
  readonly comment: string | undefined
}

/** The payload of a request: struct nfgenmsg, then attributes. */
export function requestPayload(family: NftFamily | undefined, attributes: AttributeWriter): Uint8Array {
  const header = Uint8Array.of(family === undefined ? 0 : familyNumber(family), 0, 0, 0)
  return Buffer.concat([header, attributes.written])
}

const GENERATION_ID = 1

export function readGeneration(messages: Uint8Array): number {
  const message = new Cursor(messages)
  if (!message.nextMessage()) throw malformed('no generation in it')
  return new Attributes(message.payload).u32(GENERATION_ID)
}

/** What each message describes, but for those of families that we do not know. */
function* eachMessage(messages: Uint8Array): Generator<{ family: NftFamily; attributes: Attributes }> {
  for (const message = new Cursor(messages); message.nextMessage();) {
    const family = nameOf(Families, message.family)
    if (family !== undefined) yield { family, attributes: new Attributes(message.payload) }
  }
}

export function readTables(messages: Uint8Array): Table[] {
  return Array.from(eachMessage(messages), ({ family, attributes }) => ({
    family,
    table: attributes.text(TableAttribute.name),
    handle: handle(attributes, TableAttribute.handle),
    flags: optionalU32(attributes, TableAttribute.flags) ?? 0,
    use: optionalU32(attributes, TableAttribute.use) ?? 0,
    comment: comment(attributes, TableAttribute.userdata),
  }))
}

export function readChains(messages: Uint8Array): Chain[] {
  return Array.from(eachMessage(messages), ({ family, attributes }) => ({
    family,
    table: attributes.text(ChainAttribute.table),
    chain: attributes.text(ChainAttribute.name),
    handle: handle(attributes, ChainAttribute.handle),
    base: attributes.has(ChainAttribute.hook) ? readBase(family, attributes) : undefined,
    use: optionalU32(attributes, ChainAttribute.use) ?? 0,
    comment: comment(attributes, ChainAttribute.userdata),
  }))
}

function readBase(family: NftFamily, attributes: Attributes): Chain['base'] {
  const place = attributes.nest(ChainAttribute.hook)
  const policy = nameOf(Policies, attributes.u32(ChainAttribute.policy))
  if (policy === undefined) throw malformed('a base chain with an unknown policy')
  return {
    type: attributes.text(ChainAttribute.type),
    hook: hookNamed(family, place.u32(HookAttribute.number)),
    priority: place.i32(HookAttribute.priority),
    policy,
  }
}

export function readSets(messages: Uint8Array): NftSet[] {
  return Array.from(eachMessage(messages), ({ family, attributes }) => {
    const flags = optionalU32(attributes, SetAttribute.flags) ?? 0
    const type = optionalU32(attributes, SetAttribute.keyType) ?? 0
    return {
      family,
      table: attributes.text(SetAttribute.table),
      set: attributes.text(SetAttribute.name),
      handle: handle(attributes, SetAttribute.handle),
      flags,
      type: typeNumbered(type) ?? type,
      keyBytes: attributes.u32(SetAttribute.keyBytes),
      map: (flags & SET_IS_MAP) === 0 ? undefined : mapsTo(attributes),
      timeoutMs: attributes.has(SetAttribute.timeout) ? Number(attributes.u64(SetAttribute.timeout)) : undefined,
      size: attributes.has(SetAttribute.description)
        ? optionalU32(attributes.nest(SetAttribute.description), SetDescription.size)
        : undefined,
      comment: attributes.has(SetAttribute.userdata)
        ? readSetComment(attributes.bytes(SetAttribute.userdata))
        : undefined,
    }
  })
}

/** A map of objects, counters for one, has no type of data. */
function mapsTo(attributes: Attributes): NftSet['map'] {
  const type = optionalU32(attributes, SetAttribute.dataType) ?? 0
  return type === DATA_VERDICT ? 'verdict' : (typeNumbered(type) ?? type)
}

export function readCounters(messages: Uint8Array): NftCounter[] {
  return Array.from(eachMessage(messages))
    .filter(({ attributes }) => attributes.u32(ObjectAttribute.type) === OBJECT_COUNTER)
    .map(({ family, attributes }) => ({
      family,
      table: attributes.text(ObjectAttribute.table),
      counter: attributes.text(ObjectAttribute.name),
      handle: handle(attributes, ObjectAttribute.handle),
      ...readCounted(attributes.nest(ObjectAttribute.data)),
      use: optionalU32(attributes, ObjectAttribute.use) ?? 0,
      comment: comment(attributes, ObjectAttribute.userdata),
    }))
}

function optionalU32(attributes: Attributes, type: number): number | undefined {
  return attributes.has(type) ? attributes.u32(type) : undefined
}

function comment(attributes: Attributes, type: number): string | undefined {
  return attributes.has(type) ? readComment(attributes.bytes(type)) : undefined
}

/** The kernel counts handles up from 1 in each table: 2^53 are never reached. */
function handle(attributes: Attributes, type: number): number {
  return Number(attributes.u64(type))
}
