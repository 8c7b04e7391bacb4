import { InvalidArgument } from '../base/errors.js'
import { textBytes, type AttributeWriter } from './netlink-attributes.js'
import { readText } from './netlink-cursor.js'
import { LITTLE_ENDIAN } from './records.js'

/**
 * User data: bytes that the kernel keeps with a table, a chain, a rule, a set or an element and never reads. `nft` stores in them what
 * it wants to see again, as a list of [type, length, value] with one byte each for the first two (libnftnl's udata.h).
 */

/** Longest comment that `nft` takes, in bytes, without the NUL that ends it. */
const LONGEST_COMMENT = 128
const LONGEST_TEXT = `a string of up to ${LONGEST_COMMENT} bytes`

/** Types at the top, by what the user data belongs to. */
const COMMENT = 0
const SET_KEY_BYTE_ORDER = 0
const SET_DATA_BYTE_ORDER = 1
const SET_KEY_TYPEOF = 3
const SET_DATA_INTERVAL = 6
const SET_COMMENT = 7

const TYPEOF_EXPRESSION = 0
const TYPEOF_DATA = 1
const EXPRESSION_PAYLOAD = 7
const PayloadField = { description: 0, type: 1, base: 2, offset: 3, length: 4 } as const
/** A field that `nft` has no name for: it then prints `@th,96,24`. */
const RAW_DESCRIPTION = 0
/** `nft` passes over it when it reads such a field, and may write anything. */
const RAW_TYPE = 0

/** A field of a packet by its place in the transport header, in bits: what `nft` writes `@th,96,24`. */
export interface TransportField {
  readonly offset: number
  readonly length: number
}
/** `nft`'s number of the transport layer (PROTO_BASE_TRANSPORT_HDR); not the kernel's. */
const TRANSPORT_LAYER = 3

/** @throws InvalidArgument for what is no comment */
export function checkedComment(value: unknown, argument: string): string {
  if (typeof value !== 'string') throw new InvalidArgument(argument, LONGEST_TEXT, value)
  commentBytes(value, argument)
  return value
}

/** How many bytes a comment takes, its NUL included. @throws InvalidArgument for what is none */
function commentBytes(value: unknown, argument: string): number {
  if (value instanceof Uint8Array) {
    if (value.length <= LONGEST_COMMENT && !value.includes(0)) return value.length + 1
    throw new InvalidArgument(argument, `up to ${LONGEST_COMMENT} bytes, none of them zero`, value)
  }
  if (typeof value === 'string' && !value.includes('\0')) {
    const bytes = textBytes(value)
    if (bytes - 1 <= LONGEST_COMMENT) return bytes
  }
  throw new InvalidArgument(argument, LONGEST_TEXT, value)
}

/**
 * Writes the user data of a table, a chain, a rule or an element as an attribute of that type, if there is a comment.
 * @throws InvalidArgument for what is no comment
 */
export function writeComment(writer: AttributeWriter, type: number, comment: unknown, argument: string): void {
  if (comment === undefined) return
  const bytes = commentBytes(comment, argument)
  const prefix = commentPrefixes[bytes]!
  if (comment instanceof Uint8Array) writer.bytes(type, Buffer.concat([prefix, comment, Uint8Array.of(0)]))
  else writer.prefixedText(type, prefix, comment as string, bytes)
}

/** By the length of the comment with its NUL. */
const commentPrefixes = Array.from({ length: LONGEST_COMMENT + 2 }, (_, length) => Uint8Array.of(COMMENT, length))

/** struct CommentSlot (native/nft/transaction.h): the user data of a comment, zeroes after it. */
export const COMMENT_SLOT_BYTES = 132

/** Comments, each in a slot. @throws InvalidArgument for what is no comment, naming it by its place */
export function commentSlots(comments: readonly unknown[], argument: string): Uint8Array {
  const slots = Buffer.alloc(comments.length * COMMENT_SLOT_BYTES)
  for (let i = 0, at = 0; i < comments.length; i++, at += COMMENT_SLOT_BYTES) {
    const comment = comments[i]
    if (comment === undefined) continue
    slots[at + 1] = commentBytes(comment, `${argument}[${i}]`)
    if (typeof comment === 'string') slots.write(comment, at + 2)
    else slots.set(comment as Uint8Array, at + 2)
  }
  return slots
}

/** The comment in user data, which lies between these places. */
export function readComment(bytes: Uint8Array, start = 0, end = bytes.length): string | undefined {
  return readEntry(bytes, COMMENT, start, end)
}

export interface SetUserdata {
  /** Of the keys; with `field` it is that of a packet's bytes. */
  readonly keyOrder?: number | undefined
  /** The field that keys are compared with, where they have no type with a name. */
  readonly field?: TransportField | undefined
  /** Of a map's values. */
  readonly dataOrder?: number | undefined
  readonly comment?: string | undefined
}

/** The user data of a set, without which `nft` can print neither a key that is a raw field nor a number in its order. */
export function setUserdata({ keyOrder, field, dataOrder, comment }: SetUserdata): Uint8Array {
  const parts: Uint8Array[] = []
  if (keyOrder !== undefined) parts.push(entry(SET_KEY_BYTE_ORDER, u32(keyOrder)))
  if (dataOrder !== undefined) parts.push(entry(SET_DATA_BYTE_ORDER, u32(dataOrder)))
  if (field !== undefined) parts.push(entry(SET_KEY_TYPEOF, typeofField(field)))
  // Whether a map's values are intervals.
  if (dataOrder !== undefined) parts.push(entry(SET_DATA_INTERVAL, u32(0)))
  if (comment !== undefined) parts.push(entry(SET_COMMENT, text(comment)))
  return Buffer.concat(parts)
}

function typeofField(field: TransportField): Uint8Array {
  const payload = [
    entry(PayloadField.description, u32(RAW_DESCRIPTION)),
    entry(PayloadField.type, u32(RAW_TYPE)),
    entry(PayloadField.base, u32(TRANSPORT_LAYER)),
    entry(PayloadField.offset, u32(field.offset)),
    entry(PayloadField.length, u32(field.length)),
  ]
  return Buffer.concat([entry(TYPEOF_EXPRESSION, u32(EXPRESSION_PAYLOAD)), entry(TYPEOF_DATA, Buffer.concat(payload))])
}

export function readSetComment(userdata: Uint8Array): string | undefined {
  return readEntry(userdata, SET_COMMENT)
}

/** The text of the first entry of that type; undefined if there is none: user data is anybody's. */
function readEntry(bytes: Uint8Array, type: number, start = 0, end = bytes.length): string | undefined {
  for (let at = start, next = start; at + 2 <= end; at = next) {
    next = at + 2 + bytes[at + 1]!
    if (next > end) return undefined
    if (bytes[at] === type) return readText(bytes, at + 2, next)
  }
  return undefined
}

function entry(type: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(type, value.length), value])
}

function text(value: string): Uint8Array {
  return Buffer.from(`${value}\0`)
}

/** `nft` stores its integers in host byte order. */
function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, LITTLE_ENDIAN)
  return bytes
}
