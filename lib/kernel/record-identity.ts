import { HEAD_BYTES, LITTLE_ENDIAN, Operation, Policy, State } from './records.js'
import { XFRMA } from './xfrm-names.js'

/** Which object a record is about, for the kernel. Records are given by where they start in a buffer. */

/** Whether a record is about a policy. */
export function isPolicyRecord(records: Uint8Array, at: number): boolean {
  return records[at + State.operation]! >= Operation.addPolicy
}

/** The length of the record that starts there. */
export function recordLength(records: Uint8Array, at: number): number {
  return u32(records, at + State.length)
}

/** The record that starts there, where it stands. */
export function recordAt(records: Uint8Array, at: number): Uint8Array {
  return records.subarray(at, at + recordLength(records, at))
}

/** Where each record starts. */
export function startsOf(records: Uint8Array): number[] {
  const at: number[] = []
  for (let start = 0; start < records.length; start += recordLength(records, start)) at.push(start)
  return at
}

/** Whether two records are equal, whatever is to be done with them. */
export function sameRecord(a: Uint8Array, atA: number, b: Uint8Array, atB: number): boolean {
  const length = recordLength(a, atA)
  if (length !== recordLength(b, atB)) return false
  return sameBytes(a, atA, b, atB, State.operation + 1, length)
}

/**
 * Whether two records are about one object: a state is told by its destination, SPI, protocol and mark; a policy by its
 * direction, selector, mark and interface id.
 */
export function sameIdentity(a: Uint8Array, atA: number, b: Uint8Array, atB: number): boolean {
  const isPolicy = isPolicyRecord(a, atA)
  if (isPolicy !== isPolicyRecord(b, atB) || a[atA + State.family] !== b[atB + State.family]) return false
  if (!isPolicy) {
    return (
      sameBytes(a, atA, b, atB, State.spi, State.spi + 4) &&
      a[atA + State.protocol] === b[atB + State.protocol] &&
      sameBytes(a, atA, b, atB, State.destination, State.source) &&
      sameAttribute(a, atA, b, atB, XFRMA.MARK)
    )
  }
  return (
    a[atA + Policy.direction] === b[atB + Policy.direction] &&
    sameBytes(a, atA, b, atB, Policy.destination, Policy.flags) &&
    sameBytes(a, atA, b, atB, Policy.interfaceIndex, Policy.priority) &&
    sameAttribute(a, atA, b, atB, XFRMA.MARK) &&
    sameAttribute(a, atA, b, atB, XFRMA.IF_ID)
  )
}

/** The identity as a text: the same for {@link sameIdentity}'s, and for no others. */
export function identityKey(records: Uint8Array, at: number): string {
  const isPolicy = isPolicyRecord(records, at)
  const parts = isPolicy
    ? [
        [Policy.family, Policy.action],
        [Policy.destination, Policy.flags],
        [Policy.interfaceIndex, Policy.priority],
      ]
    : [
        [State.family, State.mode],
        [State.destination, State.source],
        [State.spi, State.reqid],
      ]
  const text = (from: number, to: number) => Buffer.from(records.subarray(from, to)).toString('latin1')
  const attributes = [XFRMA.MARK, XFRMA.IF_ID].map((type) => {
    const found = attributeAt(records, at, type)
    return found < 0 ? '' : text(found, found - 4 + u16(records, found - 4))
  })
  return [isPolicy ? 'policy' : 'state', ...parts.map(([from, to]) => text(at + from!, at + to!)), ...attributes].join(
    '|',
  )
}

/** Where an attribute's payload starts in a record's tail; -1 if it has none. */
export function attributeAt(records: Uint8Array, at: number, type: number): number {
  const end = at + recordLength(records, at)
  for (let place = at + HEAD_BYTES; place + 4 <= end;) {
    const length = u16(records, place)
    if (length < 4) return -1
    if (u16(records, place + 2) === type) return place + 4
    place += (length + 3) & ~3
  }
  return -1
}

/** The types of the attributes in a record's tail, in order. */
export function attributeTypes(records: Uint8Array, at: number): number[] {
  const types: number[] = []
  const end = at + recordLength(records, at)
  for (let place = at + HEAD_BYTES; place + 4 <= end;) {
    const length = u16(records, place)
    if (length < 4) break
    types.push(u16(records, place + 2))
    place += (length + 3) & ~3
  }
  return types
}

function sameAttribute(a: Uint8Array, atA: number, b: Uint8Array, atB: number, type: number): boolean {
  const [inA, inB] = [attributeAt(a, atA, type), attributeAt(b, atB, type)]
  if (inA < 0 || inB < 0) return inA === inB
  const length = u16(a, inA - 4)
  return length === u16(b, inB - 4) && sameBytes(a, inA, b, inB, 0, length - 4)
}

/** Whether the bytes from one offset to another are the same in both, as seen from where each starts. */
export function sameBytes(a: Uint8Array, atA: number, b: Uint8Array, atB: number, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (a[atA + i] !== b[atB + i]) return false
  return true
}

/** What a record has at a place, in host byte order, read without a view of it: u16() and u32(). It must have it. */
export function u16(bytes: Uint8Array, at: number): number {
  return LITTLE_ENDIAN ? bytes[at]! | (bytes[at + 1]! << 8) : (bytes[at]! << 8) | bytes[at + 1]!
}

export function u32(bytes: Uint8Array, at: number): number {
  const one = u16(bytes, at)
  const other = u16(bytes, at + 2)
  return (LITTLE_ENDIAN ? one | (other << 16) : (one << 16) | other) >>> 0
}
