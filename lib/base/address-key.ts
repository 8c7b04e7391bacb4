import { ADDRESS_BYTES, AF_INET, AF_INET6, formatAddress, parseAddress, type Family } from './address.js'

/**
 * Addresses of both families as keys of tables: 16 bytes, four words, each. IPv4 is ::ffff:a.b.c.d (RFC 4291, 2.5.5.2),
 * for packed as records have it, in the first four bytes, it could equal an IPv6 address.
 */

export const KEY_WORDS = ADDRESS_BYTES / 4

/** The word that holds its last two bytes, and no others: before an IPv4 address, and before a MAC. */
export const LAST_TWO_BYTES = new Uint32Array(new Uint8Array([0, 0, 0xff, 0xff]).buffer)[0]!

/** Parses `text` into 16 bytes at `offset`, as {@link parseAddress} does; returns its family, or 0 if it is no address. */
export function parseKey(text: string, into: Uint8Array, offset: number): Family | 0 {
  const family = parseAddress(text, into, offset)
  if (family !== AF_INET) return family
  // Loops: for so few bytes copyWithin() and fill() take longer.
  for (let i = offset; i < offset + 4; i++) into[i + 12] = into[i]!
  for (let i = offset; i < offset + 10; i++) into[i] = 0
  into[offset + 10] = into[offset + 11] = 0xff
  return family
}

/** The family of the key at word `at`. */
export function familyOf(words: Uint32Array, at: number): Family {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === LAST_TWO_BYTES ? AF_INET : AF_INET6
}

/** Canonical text of the key at `offset` of `bytes`, of a family that is known. */
export function keyText(bytes: Uint8Array, offset: number, family: Family): string {
  return formatAddress(bytes, family === AF_INET ? offset + 12 : offset, family)
}

/** The address as records have it, into 16 bytes. */
export function unpackKey(bytes: Uint8Array, offset: number, family: Family, into: Uint8Array, to: number): void {
  const start = family === AF_INET ? offset + 12 : offset
  const end = offset + ADDRESS_BYTES
  for (let i = 0; i < ADDRESS_BYTES; i++) into[to + i] = start + i < end ? bytes[start + i]! : 0
}
