import { InvalidArgument } from './errors.js'

/** Addresses as bytes. An address is 16 bytes as `xfrm_address_t` holds it: IPv4 in the first four, the rest zero. */

/** Address families as the kernel numbers them (linux/socket.h). */
export const AF_INET = 2
export const AF_INET6 = 10
export type Family = typeof AF_INET | typeof AF_INET6

export const ADDRESS_BYTES = 16

/**
 * Parses `text` into `into` at `offset` (16 bytes) and returns its family, or 0 if it is no address. An IPv4-mapped
 * IPv6 address is its IPv4 address. Zone ids, prefixes, leading zeros (`010.0.0.1`) and short forms (`10.1`) are no
 * addresses here.
 */
export function parseAddress(text: string, into: Uint8Array, offset = 0): Family | 0 {
  return parse4(text, into, offset) ? AF_INET : parse6(text, into, offset)
}

/** Writes four bytes and twelve zeros; on failure writes nothing that counts. No allocation: peers come by the 100,000. */
function parse4(text: string, into: Uint8Array, offset: number): boolean {
  let value = 0
  let digits = 0
  let at = 0
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text.charCodeAt(i) : 0x2e
    if (c === 0x2e) {
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
  if (at !== 4) return false
  into.fill(0, offset + 4, offset + ADDRESS_BYTES)
  return true
}

function parse6(text: string, into: Uint8Array, offset: number): Family | 0 {
  const halves = text.split('::')
  if (halves.length > 2 || text.length > 45) return 0
  const head = groups(halves[0]!, halves.length === 1)
  const tail = halves.length === 2 ? groups(halves[1]!, true) : []
  if (head === undefined || tail === undefined) return 0
  const count = head.length + tail.length
  if (halves.length === 1 ? count !== 8 : count > 7) return 0
  into.fill(0, offset, offset + ADDRESS_BYTES)
  const put = (group: number, at: number) => {
    into[offset + at * 2] = group >> 8
    into[offset + at * 2 + 1] = group & 0xff
  }
  head.forEach((group, i) => put(group, i))
  tail.forEach((group, i) => put(group, 8 - tail.length + i))
  if (!isMapped(into, offset)) return AF_INET6
  into.copyWithin(offset, offset + 12, offset + 16)
  into.fill(0, offset + 4, offset + ADDRESS_BYTES)
  return AF_INET
}

/** Colon-separated groups of 16 bits; the last may be an IPv4 address where the text ends. undefined if malformed. */
function groups(text: string, last: boolean): number[] | undefined {
  if (text === '') return []
  const out: number[] = []
  const parts = text.split(':')
  for (const [i, part] of parts.entries()) {
    if (last && i === parts.length - 1 && part.includes('.')) {
      const four = new Uint8Array(ADDRESS_BYTES)
      if (!parse4(part, four, 0)) return undefined
      out.push((four[0]! << 8) | four[1]!, (four[2]! << 8) | four[3]!)
    } else {
      if (!/^[0-9a-f]{1,4}$/i.test(part)) return undefined
      out.push(Number.parseInt(part, 16))
    }
  }
  return out
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
