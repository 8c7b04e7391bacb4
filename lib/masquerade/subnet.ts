import { AF_INET, ADDRESS_BYTES, formatAddress, parseAddress, type Family } from '../base/address.js'
import { InvalidArgument } from '../base/errors.js'

/** A subnet. There may be several of one text. */
export interface Subnet {
  readonly family: Family
  /** Length of the prefix in bits, 0 to 32 or 128. */
  readonly prefix: number
  /** Its first address, 4 or 16 bytes. */
  readonly first: Uint8Array
  /** `192.168.1.0/24` */
  readonly text: string
}

/** An address on its subnet: what leaves from it to elsewhere is masqueraded. */
export interface Mapping {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array
  /** `192.168.1.2` */
  readonly text: string
  readonly subnet: Subnet
}

/** Mappings come by the thousand and share their subnets: each is made once. */
export class Subnets {
  readonly #known = new Map<number | string, Subnet>()

  /** The subnet that an address of 4 or 16 bytes is on. */
  of(family: Family, address: Uint8Array, prefix: number): Subnet {
    const first = address.slice()
    for (let i = 0; i < first.length; i++) first[i]! &= maskByte(prefix, i)
    const key = family === AF_INET ? number(first) * 64 + prefix : `${prefix} ${first.join()}`
    let subnet = this.#known.get(key)
    if (subnet === undefined) {
      subnet = { family, prefix, first, text: `${formatAddress(first, 0, family)}/${prefix}` }
      this.#known.set(key, subnet)
    }
    return subnet
  }
}

function number(bytes: Uint8Array): number {
  return ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0
}

/** @throws InvalidArgument */
export function checkedMapping(value: unknown, argument: string, subnets: Subnets): Mapping {
  const text = typeof value === 'string' ? value : ''
  const slash = text.indexOf('/')
  const bytes = new Uint8Array(ADDRESS_BYTES)
  const given = text.slice(0, Math.max(slash, 0))
  const family = parseAddress(given, bytes)
  if (family === 0) {
    throw new InvalidArgument(argument, "an address and its prefix, as in '192.168.1.2/24' or '2001:db8::2/64'", value)
  }
  const address = family === AF_INET ? bytes.subarray(0, 4) : bytes
  const prefix = prefixOf(text, slash + 1)
  if (prefix > address.length * 8) {
    throw new InvalidArgument(argument, `an address and a prefix of 0 to ${address.length * 8} bits`, value)
  }
  if (address[0]! >= 224 && (family === AF_INET ? address[0]! < 240 : address[0] === 0xff)) {
    throw new InvalidArgument(argument, 'an address that packets come from: no multicast one', value)
  }
  return { address, text: formatAddress(address, 0, family), subnet: subnets.of(family, address, prefix) }
}

/** The decimal number from `start` to the end; Infinity if that is none. */
function prefixOf(text: string, start: number): number {
  if (start === text.length || text.length - start > 3) return Infinity
  let value = 0
  for (let i = start; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30
    if (digit < 0 || digit > 9 || (i > start && value === 0)) return Infinity
    value = value * 10 + digit
  }
  return value
}

/** `192.168.1.2/24` */
export function mappingText({ text, subnet }: Mapping): string {
  return `${text}/${subnet.prefix}`
}

/** A prefix as a mask of so many bytes. */
export function maskOf(prefix: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => maskByte(prefix, i))
}

function maskByte(prefix: number, i: number): number {
  const bits = Math.min(Math.max(prefix - i * 8, 0), 8)
  return (0xff00 >> bits) & 0xff
}
