import { hexDigit } from './address.js'
import { InvalidArgument } from './errors.js'

/** Ethernet addresses in packed tables: six bytes, written as in 02:42:0a:00:00:02. */

export const MAC_BYTES = 6

const TEXT_LENGTH = 17
const COLON = 0x3a

/** Parses `02:42:0a:00:00:02`, in either case, into six bytes of `into` at `offset`; false if it is no such text. */
export function parseMac(text: string, into: Uint8Array, offset: number): boolean {
  if (text.length !== TEXT_LENGTH) return false
  for (let i = 0; i < MAC_BYTES; i++) {
    const high = hexDigit(text.charCodeAt(i * 3))
    const low = hexDigit(text.charCodeAt(i * 3 + 1))
    if (high < 0 || low < 0 || (i > 0 && text.charCodeAt(i * 3 - 1) !== COLON)) return false
    into[offset + i] = (high << 4) | low
  }
  return true
}

/** The usual text, in lower case. */
export function formatMac(bytes: Uint8Array, offset: number): string {
  const pairs = Array.from({ length: MAC_BYTES }, (_, i) => bytes[offset + i]!.toString(16).padStart(2, '0'))
  return pairs.join(':')
}

/** Whether it is one host's: neither a group's (IEEE 802's I/G bit) nor zero. */
export function isUnicast(bytes: Uint8Array, offset: number): boolean {
  if ((bytes[offset]! & 1) !== 0) return false
  for (let i = 0; i < MAC_BYTES; i++) if (bytes[offset + i] !== 0) return true
  return false
}

/** The address of one host into six bytes of `into` at `offset`. @throws InvalidArgument */
export function packHostMac(value: unknown, argument: string, into: Uint8Array, offset: number): void {
  if (typeof value !== 'string' || !parseMac(value, into, offset)) {
    throw new InvalidArgument(argument, "an Ethernet address, as in '02:42:0a:00:00:02'", value)
  }
  if (isUnicast(into, offset)) return
  const why = (into[offset]! & 1) === 0 ? 'zero' : "a group's"
  throw new InvalidArgument(argument, `the Ethernet address of one host; ${value} is ${why}`)
}
