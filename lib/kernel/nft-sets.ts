import { array, boolean, integer, oneOf, options, U16, U32 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import type { AttributeWriter } from './netlink-attributes.js'
import { LONGEST_KEY } from './nft-elements.js'
import {
  checkedName,
  ExpressionAttribute,
  namesOf,
  SET_IS_MAP,
  SetAttribute,
  SetDescription,
  SetFlags,
  type SetName,
} from './nft-names.js'
import type { SetOptions } from './nft-options.js'
import { ByteOrder, DATA_VERDICT, DataTypeNames, DataTypes } from './nft-types.js'
import { checkedComment, setUserdata, type TransportField } from './nft-userdata.js'

/** Sets and maps as their options say. */

export function writeSetName(writer: AttributeWriter, { table, set }: SetName): void {
  writer.text(SetAttribute.table, checkedName(table, 'set.table')).text(SetAttribute.name, checkedName(set, 'set.set'))
}

/** @param id a number for it within the transaction, which the kernel wants @throws InvalidArgument */
export function writeNewSet(writer: AttributeWriter, set: SetOptions, id: number): void {
  const key = keyOf(set)
  const data = set.map === undefined ? undefined : dataOf(set.map)
  const comment = set.comment === undefined ? undefined : checkedComment(set.comment, 'set.comment')
  writeSetName(writer, set)
  writer
    .u32(SetAttribute.flags, flagsOf(set))
    .u32(SetAttribute.keyType, key.type)
    .u32(SetAttribute.keyBytes, key.bytes)
    .u32(SetAttribute.id, id)
  if (data !== undefined) writer.u32(SetAttribute.dataType, data.type).u32(SetAttribute.dataBytes, data.bytes)
  if (set.size !== undefined) {
    const size = integer(set.size, 'set.size', 1, U32)
    writer.nest(SetAttribute.description, (w) => w.u32(SetDescription.size, size))
  }
  if (set.timeoutMs !== undefined) {
    writer.u64(SetAttribute.timeout, BigInt(integer(set.timeoutMs, 'set.timeoutMs', 1, Number.MAX_SAFE_INTEGER)))
  }
  if (set.counters !== undefined && boolean(set.counters, 'set.counters')) {
    writer.nest(SetAttribute.expression, (w) =>
      w.text(ExpressionAttribute.name, 'counter').nest(ExpressionAttribute.data, () => undefined),
    )
  }
  const field = set.typeof && checkedField(set.typeof, key.bytes)
  const userdata = setUserdata({ keyOrder: key.order, field, dataOrder: data?.order, comment })
  if (userdata.length > 0) writer.bytes(SetAttribute.userdata, userdata)
}

/** The type, length and byte order of keys or values. */
interface Form {
  readonly type: number
  readonly bytes: number
  readonly order: number | undefined
}

function keyOf(set: SetOptions): Form {
  const name = set.type === undefined ? 'integer' : oneOf(set.type, 'set.type', DataTypeNames)
  const { number, bytes, order } = DataTypes[name]
  if (bytes === undefined) {
    const keyBytes = integer(set.keyBytes, 'set.keyBytes', 1, LONGEST_KEY)
    return { type: number, bytes: keyBytes, order: set.typeof === undefined ? undefined : order }
  }
  if (set.typeof !== undefined) throw new InvalidArgument('set.typeof', `left out: keys of type ${name} need none`)
  if (set.keyBytes !== undefined && set.keyBytes !== bytes) {
    throw new InvalidArgument('set.keyBytes', `left out, or the ${bytes} bytes of ${name}`, set.keyBytes)
  }
  return { type: number, bytes, order }
}

const DataNames = DataTypeNames.filter((name) => DataTypes[name].bytes !== undefined)

function dataOf(map: unknown): Form {
  const name = oneOf(map, 'set.map', ['verdict', ...DataNames])
  if (name === 'verdict') return { type: DATA_VERDICT, bytes: 0, order: ByteOrder.none }
  const { number, bytes, order } = DataTypes[name]
  return { type: number, bytes: bytes!, order }
}

function flagsOf(set: SetOptions): number {
  const named = set.flags === undefined ? [] : array(set.flags, 'set.flags')
  let flags = set.map === undefined ? 0 : SET_IS_MAP
  for (const [i, name] of named.entries()) flags |= SetFlags[oneOf(name, `set.flags[${i}]`, namesOf(SetFlags))]
  return set.timeoutMs === undefined ? flags : flags | SetFlags.timeout
}

function checkedField(value: unknown, keyBytes: number): TransportField {
  const field = options<TransportField>(value, 'set.typeof', ['offset', 'length'])
  integer(field.offset, 'set.typeof.offset', 0, U16)
  if (field.length !== keyBytes * 8) {
    throw new InvalidArgument('set.typeof.length', `the ${keyBytes * 8} bits of the keys`, field.length)
  }
  return field
}
