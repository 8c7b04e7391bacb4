import { InvalidArgument } from './errors.js'

/** Addresses as bytes. An address is 16 bytes as `xfrm_address_t` holds it: IPv4 in the first four, the rest zero. */

/** Address families as the kernel numbers them (linux/socket.h). */
export const AF_INET = 2
export const AF_INET6 = 10
export type Family = typeof AF_INET | typeof AF_INET6

export const ADDRESS_BYTES = 16

/**
 * Parses `text`, up to `end`, into `into` at `offset` (16 bytes) and returns its family, or 0 if it is no address. An
 * IPv4-mapped IPv6 address is its IPv4 address. Zone ids, prefixes, leading zeros (`010.0.0.1`) and short forms (`10.1`)
 * are no addresses here.
 */
export function parseAddress(text: string, into: Uint8Array, offset = 0, end = text.length): Family | 0 {
  if (!parse4(text, 0, end, into, offset)) return parse6(text, end, into, offset)
  // A loop: for twelve bytes fill() takes longer than all the rest.
  for (let i = offset + 4; i < offset + ADDRESS_BYTES; i++) into[i] = 0
  return AF_INET
}

/** Parses from `start` to `end` into four bytes. No allocation, here and below: peers come by the 100,000. */
function parse4(text: string, start: number, end: number, into: Uint8Array, offset: number): boolean {
  let value = 0
  let digits = 0
  let at = 0
  for (let i = start; i <= end; i++) {
    const c = i < end ? text.charCodeAt(i) : DOT
    if (c === DOT) {
      if (digits === 0 || at === 4) return false
      into[offset + at++] = value
      value = 0
      digits = 0
    } else {
      if (c < 0x30 || c > 0x39 || (digits > 0 && value === 0)) return false
      value = value * 10 + c - 0x30
      if (++digits > 3 || value > 255) return false
    }
  }
  return at === 4
}

function parse6(text: string, end: number, into: Uint8Array, offset: number): Family | 0 {
  let at = 0
  let gap = -1
  let value = 0
  let digits = 0
  // A colon that begins the text is the first of two, and the second says so.
  const first = text.charCodeAt(0) === COLON ? 1 : 0
  if (first === 1 && text.charCodeAt(1) !== COLON) return 0
  for (let i = first; i < end; i++) {
    const c = text.charCodeAt(i)
    const digit = hexDigit(c)
    if (digit >= 0) {
      if (at === ADDRESS_BYTES || ++digits > 4) return 0
      value = (value << 4) | digit
    } else if (c === COLON && digits === 0) {
      if (gap >= 0) return 0
      gap = at
    } else if (c === COLON) {
      if (i + 1 === end) return 0
      into[offset + at++] = value >> 8
      into[offset + at++] = value & 0xff
      value = digits = 0
    } else {
      if (c !== DOT || at > 12 || !parse4(text, i - digits, end, into, offset + at)) return 0
      at += 4
      digits = 0
      break
    }
  }
  if (digits > 0) {
    into[offset + at++] = value >> 8
    into[offset + at++] = value & 0xff
  }
  if (gap >= 0 ? at === ADDRESS_BYTES : at !== ADDRESS_BYTES) return 0
  if (gap >= 0) {
    const tail = ADDRESS_BYTES - at + gap
    into.copyWithin(offset + tail, offset + gap, offset + at)
    into.fill(0, offset + gap, offset + tail)
  }
  if (!isMapped(into, offset)) return AF_INET6
  into.copyWithin(offset, offset + 12, offset + 16)
  into.fill(0, offset + 4, offset + ADDRESS_BYTES)
  return AF_INET
}

const DOT = 0x2e
const COLON = 0x3a

/** Value of a hexadecimal digit's character code, or -1. */
export function hexDigit(c: number): number {
  if (c >= 0x30 && c <= 0x39) return c - 0x30
  const lower = c | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}

/** ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
function isMapped(bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < 10; i++) if (bytes[offset + i] !== 0) return false
  return bytes[offset + 10] === 0xff && bytes[offset + 11] === 0xff
}

/** The address in its canonical text (RFC 5952 for IPv6). */
export function formatAddress(bytes: Uint8Array, offset: number, family: number): string {
  if (family === AF_INET) return `${bytes[offset]!}.${bytes[offset + 1]!}.${bytes[offset + 2]!}.${bytes[offset + 3]!}`
  const words = Array.from({ length: 8 }, (_, i) => (bytes[offset + i * 2]! << 8) | bytes[offset + i * 2 + 1]!)
  let start = -1
  let length = 1
  for (let i = 0; i < 8; i++) {
    let run = 0
    while (i + run < 8 && words[i + run] === 0) run++
    if (run > length) {
      start = i
      length = run
    }
  }
  const hex = (from: number, to: number) =>
    words
      .slice(from, to)
      .map((word) => word.toString(16))
      .join(':')
  return start < 0 ? hex(0, 8) : `${hex(0, start)}::${hex(start + length, 8)}`
}

/** An address as a value: its canonical text, family and 16 bytes. */
export interface Address {
  readonly text: string
  readonly family: Family
  readonly bytes: Uint8Array
}

/** Any address that parses. @throws InvalidArgument */
export function address(value: unknown, argument: string): Address {
  const bytes = new Uint8Array(ADDRESS_BYTES)
  const family = typeof value === 'string' ? parseAddress(value, bytes) : 0
  if (family === 0) throw new InvalidArgument(argument, whyNot(value), value)
  return { text: formatAddress(bytes, 0, family), family, bytes }
}

/** Why all nodes have addresses of one family, where one is of another. */
export const ONE_FAMILY = 'a VXLAN link carries one family'

/** What an address that did not parse should have been. */
export function whyNot(value: unknown): string {
  if (typeof value === 'string' && value.includes('%')) return 'an address without a zone'
  if (typeof value === 'string' && value.includes('/')) return 'an address without a prefix length'
  return "an IPv4 or IPv6 address, as in '192.0.2.1' or '2001:db8::1'"
}

/** Why an address cannot be a host's own or a peer's: 'unspecified', 'multicast', 'broadcast', 'loopback'; or undefined. */
export function unusable(bytes: Uint8Array, offset: number, family: number): string | undefined {
  const first = bytes[offset]!
  if (family === AF_INET) {
    if (first === 0) return 'unspecified'
    if (first >= 224 && first <= 239) return 'multicast'
    if (first === 127) return 'loopback'
    for (let i = 0; i < 4; i++) if (bytes[offset + i] !== 255) return undefined
    return 'broadcast'
  }
  if (first === 0xff) return 'multicast'
  if (first === 0xfe && (bytes[offset + 1]! & 0xc0) === 0x80) return 'link-local: it needs a zone, and an SA has none'
  for (let i = 0; i < 15; i++) if (bytes[offset + i] !== 0) return undefined
  return bytes[offset + 15] === 0 ? 'unspecified' : bytes[offset + 15] === 1 ? 'loopback' : undefined
}

/** The address of a host: no unspecified, multicast, broadcast, loopback or link-local one. @throws InvalidArgument */
export function hostAddress(value: unknown, argument: string): Address {
  const found = address(value, argument)
  const why = unusable(found.bytes, 0, found.family)
  if (why !== undefined) throw new InvalidArgument(argument, `the address of a host; ${found.text} is ${why}`)
  return found
}
