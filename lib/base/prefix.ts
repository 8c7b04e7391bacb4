import { ADDRESS_BYTES, AF_INET, formatAddress, parseAddress, type Family } from './address.js'
import { InvalidArgument } from './errors.js'

/** A range of addresses, as in 10.0.0.0/8: its bits past the length are zero. */
export interface Prefix {
  /** Canonical. */
  readonly text: string
  readonly family: Family
  /** 16 bytes, IPv4 in the first four. */
  readonly bytes: Uint8Array
  /** In bits. */
  readonly length: number
}

const EXPECTED = "a range of addresses with its prefix length, as in '10.0.0.0/8' or '2001:db8::/32'"

/** @throws InvalidArgument also for bits past the length: an address is no range */
export function prefix(value: unknown, argument: string): Prefix {
  const [, address, digits] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(typeof value === 'string' ? value : '') ?? []
  const bytes = new Uint8Array(ADDRESS_BYTES)
  const family = address === undefined ? 0 : parseAddress(address, bytes)
  const length = Number(digits)
  if (family === 0 || length > widthOf(family) || (family === AF_INET && address!.includes(':'))) {
    throw new InvalidArgument(argument, EXPECTED, value)
  }
  const range = masked(bytes, length)
  const text = `${formatAddress(range, 0, family)}/${length}`
  if (Buffer.compare(range, bytes) !== 0) {
    throw new InvalidArgument(argument, `${EXPECTED}: ${text}, if that is the range`, value)
  }
  return { text, family, bytes: range, length }
}

/** Bits of an address. */
export function widthOf(family: Family): 32 | 128 {
  return family === AF_INET ? 32 : 128
}

function masked(bytes: Uint8Array, length: number): Uint8Array {
  return bytes.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, length - i * 8))))
}
