import { XfrmeshError } from '../base/errors.js'
import { align4, LITTLE_ENDIAN } from './records.js'

/** What the kernel answers in netlink attributes (struct nlattr, linux/netlink.h), whose headers are in host byte order. */

export const HEADER_BYTES = 4
export const TYPE_MASK = 0x3fff

/** The attributes in `bytes`, in order. @throws XfrmeshError where a length leads out of `bytes` */
export function* eachAttribute(bytes: Uint8Array): Generator<[type: number, payload: Uint8Array]> {
  const view = viewOf(bytes)
  for (let at = 0; at < bytes.length;) {
    const length = at + HEADER_BYTES <= bytes.length ? view.getUint16(at, LITTLE_ENDIAN) : 0
    if (length < HEADER_BYTES || at + length > bytes.length) throw malformed('an attribute of no possible length')
    yield [view.getUint16(at + 2, LITTLE_ENDIAN) & TYPE_MASK, bytes.subarray(at + HEADER_BYTES, at + length)]
    at += align4(length)
  }
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function malformed(what: string): XfrmeshError {
  return new XfrmeshError('ERR_XFRMESH_MALFORMED', `the kernel's answer cannot be read: ${what}`)
}
