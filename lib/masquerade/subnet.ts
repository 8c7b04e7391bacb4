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
  /** `192.168.1.2`, canonical. */
  readonly text: string
  readonly subnet: Subnet
}

/** Mappings come by the thousand and share their subnets: each is made once. */
export class Subnets {
  readonly #known = new Map<string, Subnet>()
  #latest: Subnet | undefined

  /** The subnet that an address of 4 or 16 bytes, at `offset`, is on. */
  of(family: Family, bytes: Uint8Array, offset: number, prefix: number): Subnet {
    // Mostly it is the one that the mapping before is on.
    const latest = this.#latest
    if (latest?.family === family && latest.prefix === prefix && holds(latest, bytes, offset)) return latest
    const first = bytes.slice(offset, offset + (family === AF_INET ? 4 : ADDRESS_BYTES))
    for (let i = 0; i < first.length; i++) first[i]! &= maskByte(prefix, i)
    const text = `${formatAddress(first, 0, family)}/${prefix}`
    let subnet = this.#known.get(text)
    if (subnet === undefined) {
      subnet = { family, prefix, first, text }
      this.#known.set(text, subnet)
    }
    return (this.#latest = subnet)
  }
}

function holds({ first, prefix }: Subnet, bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < first.length; i++) if ((bytes[offset + i]! & maskByte(prefix, i)) !== first[i]) return false
  return true
}

/** struct Subnet (native/masquerade/subnet.h): family, prefix, and its first address in 16 bytes. */
export const SUBNET_BYTES = 18

/** Subnets as C++ has them, one after the other. */
export function readSubnets(bytes: Uint8Array): Subnet[] {
  const subnets = new Subnets()
  return Array.from({ length: bytes.length / SUBNET_BYTES }, (_, i) => {
    const at = i * SUBNET_BYTES
    return subnets.of(bytes[at] as Family, bytes, at + 2, bytes[at + 1]!)
  })
}

/** Writes a subnet as C++ has it, into zeroes. */
export function writeSubnet({ family, prefix, first }: Subnet, into: Uint8Array, at: number): void {
  into[at] = family
  into[at + 1] = prefix
  into.set(first, at + 2)
}

/** Writes an address of 4 or 16 bytes as 16, into zeroes: an IPv4 one as an IPv6 one (RFC 4291, 2.5.5.2). */
export function writeAddress(address: Uint8Array, into: Uint8Array, at: number): void {
  if (address.length === 4) into.fill(0xff, at + 10, at + 12)
  into.set(address, at + ADDRESS_BYTES - address.length)
}

const parsed = new Uint8Array(ADDRESS_BYTES)

/** An address with its prefix. @throws InvalidArgument */
export function checkedMapping(value: unknown, argument: string, subnets: Subnets): Mapping {
  const whole = typeof value === 'string' ? value : ''
  const slash = Math.max(whole.indexOf('/'), 0)
  const family = parseAddress(whole, parsed, 0, slash)
  if (family === 0) {
    throw new InvalidArgument(argument, "an address and its prefix, as in '192.168.1.2/24' or '2001:db8::2/64'", value)
  }
  const bits = family === AF_INET ? 32 : 128
  const prefix = prefixOf(whole, slash + 1)
  if (prefix > bits) throw new InvalidArgument(argument, `an address and a prefix of 0 to ${bits} bits`, value)
  const [first] = parsed
  if (first! >= 224 && (family === AF_INET ? first! < 240 : first === 0xff)) {
    throw new InvalidArgument(argument, 'an address that packets come from: no multicast one', value)
  }
  return { text: formatAddress(parsed, 0, family), subnet: subnets.of(family, parsed, 0, prefix) }
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

/** The bytes of a mapping's address, 4 or 16. */
export function bytesOf({ text, subnet }: Mapping): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_BYTES)
  parseAddress(text, bytes)
  return bytes.subarray(0, subnet.first.length)
}

/** A prefix as a mask of so many bytes. */
export function maskOf(prefix: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => maskByte(prefix, i))
}

function maskByte(prefix: number, i: number): number {
  const bits = Math.min(Math.max(prefix - i * 8, 0), 8)
  return (0xff00 >> bits) & 0xff
}
