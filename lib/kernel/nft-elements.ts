import { array, boolean, integer } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { AttributeWriter } from './netlink-attributes.js'
import { writeVerdict } from './nft-expression-codec.js'
import type { Verdict } from './nft-expressions.js'
import { DataAttribute, ElementAttribute, INTERVAL_END, LIST_ELEMENT } from './nft-names.js'
import type { ElementOptions, ElementsOptions } from './nft-options.js'
import { TransactionKind, type RecordElements } from './nft-records.js'
import { commentSlots, writeComment } from './nft-userdata.js'
import { align4 } from './records.js'

/** Elements of sets and maps, as they follow a record's attributes. */

/** NFT_DATA_VALUE_MAXLEN */
export const LONGEST_KEY = 64

/**
 * Keys without gaps; C++ makes elements of them if there is nothing else to them.
 * @param held whether their comments are
 * @throws InvalidArgument, from `fill` too
 */
export function packedElements(packed: Partial<ElementsOptions>, named: boolean, held: boolean): RecordElements {
  const { keys, verdict, comments } = packed as Record<string, unknown>
  const keyBytes = integer(packed.keyBytes, 'elements.keyBytes', 1, LONGEST_KEY)
  if (!(keys instanceof Uint8Array) || keys.length % keyBytes !== 0) {
    throw new InvalidArgument('elements.keys', `a Uint8Array of keys of ${keyBytes} bytes each`, keys)
  }
  const count = keys.length / keyBytes
  if (verdict === undefined && comments === undefined && !held) {
    return { kind: TransactionKind.keys, keyBytes, count, fill: (writer) => writer.raw(keys) }
  }
  for (const [name, value] of Object.entries({ verdict, comments })) {
    if (named && value !== undefined) throw new InvalidArgument(`elements.${name}`, 'left out: keys name elements')
  }
  const slots = held ? undefined : slotsOf(comments, count)
  const common = new AttributeWriter()
  const nest = [common.open(LIST_ELEMENT), common.open(ElementAttribute.key)] as const
  const keyAt = common.bytes(DataAttribute.value, new Uint8Array(keyBytes)).position - align4(keyBytes)
  common.close(nest[1])
  if (verdict !== undefined) writeElementVerdict(common, verdict, 'elements.verdict')
  common.close(nest[0])
  return {
    kind: TransactionKind.alike,
    keyBytes,
    keyAt,
    count,
    fill: (writer) => {
      writer.raw(common.written)
      writer.raw(keys)
      if (slots !== undefined) writer.raw(slots)
    },
  }
}

function slotsOf(comments: unknown, count: number): Uint8Array {
  const all = comments === undefined ? new Array<undefined>(count) : array(comments, 'elements.comments')
  if (all.length !== count) {
    throw new InvalidArgument('elements.comments', `${count} comments: as many as there are keys`, comments)
  }
  return commentSlots(all, 'elements.comments')
}

/**
 * Elements with all that is in them, or, to delete them, what names them: they may be as listed.
 * @throws InvalidArgument, from `fill` too
 */
export function listedElements(value: unknown, named: boolean): RecordElements {
  const elements = array(value, 'elements.elements')
  const write = named ? writeElementName : writeElement
  return {
    kind: TransactionKind.elements,
    keyBytes: 0,
    count: elements.length,
    fill: (writer) => {
      for (let i = 0; i < elements.length; i++) write(writer, elements[i], `elements.elements[${i}]`)
    },
  }
}

function writeElementName(writer: AttributeWriter, value: unknown, argument: string): void {
  if (typeof value !== 'object' || value === null) throw new InvalidArgument(argument, 'an element', value)
  const { key, intervalEnd } = value as Partial<ElementOptions>
  const element = writer.open(LIST_ELEMENT)
  writeKey(writer, key, `${argument}.key`)
  writeIntervalEnd(writer, intervalEnd, argument)
  writer.close(element)
}

const known = new Set<string>(['key', 'verdict', 'data', 'intervalEnd', 'timeoutMs', 'comment'])

/** By the thousand: each property is read once, and nothing is copied that need not be. */
function writeElement(writer: AttributeWriter, value: unknown, argument: string): void {
  if (typeof value !== 'object' || value === null) throw new InvalidArgument(argument, 'an element', value)
  for (const name in value) {
    if (!known.has(name)) {
      throw new InvalidArgument(`${argument}.${name}`, `left out: there are ${[...known].join(', ')}`)
    }
  }
  const { key, verdict, data, intervalEnd, timeoutMs, comment } = value as Partial<ElementOptions>
  const element = writer.open(LIST_ELEMENT)
  writeKey(writer, key, `${argument}.key`)
  if (verdict !== undefined) writeElementVerdict(writer, verdict, `${argument}.verdict`)
  if (data !== undefined) {
    if (verdict !== undefined) throw new InvalidArgument(`${argument}.data`, 'left out where there is a verdict')
    writeData(writer, ElementAttribute.data, data, `${argument}.data`)
  }
  writeIntervalEnd(writer, intervalEnd, argument)
  if (timeoutMs !== undefined) {
    const timeout = integer(timeoutMs, `${argument}.timeoutMs`, 1, Number.MAX_SAFE_INTEGER)
    writer.u64(ElementAttribute.timeout, BigInt(timeout))
  }
  writeComment(writer, ElementAttribute.userdata, comment, `${argument}.comment`)
  writer.close(element)
}

function writeElementVerdict(writer: AttributeWriter, value: unknown, argument: string): void {
  if (typeof value !== 'object' || value === null) throw new InvalidArgument(argument, 'a verdict', value)
  const nest = writer.open(ElementAttribute.data)
  writeVerdict(writer, value as Verdict, argument)
  writer.close(nest)
}

function writeIntervalEnd(writer: AttributeWriter, value: unknown, argument: string): void {
  if (value === undefined || !boolean(value, `${argument}.intervalEnd`)) return
  writer.u32(ElementAttribute.flags, INTERVAL_END)
}

/** @throws InvalidArgument */
export function writeKey(writer: AttributeWriter, key: unknown, argument: string): void {
  writeData(writer, ElementAttribute.key, key, argument)
}

function writeData(writer: AttributeWriter, type: number, value: unknown, argument: string): void {
  if (!(value instanceof Uint8Array) || value.length === 0 || value.length > LONGEST_KEY) {
    throw new InvalidArgument(argument, `a Uint8Array of 1 to ${LONGEST_KEY} bytes`, value)
  }
  const nest = writer.open(type)
  writer.bytes(DataAttribute.value, value)
  writer.close(nest)
}
