import { type Address, address, ADDRESS_BYTES, AF_INET } from '../base/address.js'
import { integer, U32 } from '../base/check.js'

/** SPIs: derived, so that two nodes agree on them without a word. */

/** SPIs from 0 to this are reserved (RFC 4303, 2.1). A peer and a tag that derive one of them cannot be used together. */
export const RESERVED_SPIS = 255

/** FNV-1a, 32 bits. */
const BASIS = 0x811c9dc5
const PRIME = 0x01000193
/** Its tenth power. */
const PRIME_10 = 0x5887be89

/**
 * The SPI of the SA from `source` to `destination` under the key tagged `tag`: FNV-1a over the source as 16 bytes, the
 * tag as four bytes big-endian, the destination as 16 bytes, IPv4 as `::ffff:a.b.c.d`. Docker derives the same. It may
 * turn out to be a reserved one, 0 to {@link RESERVED_SPIS}.
 *
 * @param source the address that the sender is known by
 * @param destination the address that the receiver is known by
 * @param tag an unsigned 32-bit integer
 * @throws InvalidArgument
 */
export function deriveSpi(source: string, destination: string, tag: number): number {
  const from = address(source, 'source')
  const to = address(destination, 'destination')
  const start = hashAddress(BASIS, from.bytes, 0, from.family)
  return hashAddress(hashTag(start, integer(tag, 'tag', 0, U32)), to.bytes, 0, to.family) >>> 0
}

/** The SPIs between one node and its peers, from packed addresses (as records hold them) and without allocation. */
export class SpiDeriver {
  readonly #advertised: Uint8Array
  readonly #family: number
  /** The hash of our own address, as the source. */
  readonly #fromHere: number

  /** @param advertised the address that peers know this node by; peers are of its family */
  constructor(advertised: Address) {
    this.#advertised = advertised.bytes.slice()
    this.#family = advertised.family
    this.#fromHere = hashAddress(BASIS, this.#advertised, 0, this.#family)
  }

  /** Of the SA that leads from here to the peer whose 16 bytes are at `offset`. */
  forward(tag: number, peers: Uint8Array, offset: number): number {
    return hashAddress(hashTag(this.#fromHere, tag), peers, offset, this.#family) >>> 0
  }

  /** Of the SA that leads from that peer to here. */
  reverse(tag: number, peers: Uint8Array, offset: number): number {
    const fromThere = hashAddress(BASIS, peers, offset, this.#family)
    return hashAddress(hashTag(fromThere, tag), this.#advertised, 0, this.#family) >>> 0
  }
}

function hashAddress(hash: number, bytes: Uint8Array, offset: number, family: number): number {
  if (family !== AF_INET) {
    for (let i = offset; i < offset + ADDRESS_BYTES; i++) hash = Math.imul(hash ^ bytes[i]!, PRIME)
    return hash
  }
  // ::ffff: of which ten bytes are zero, and to hash a zero is to multiply.
  hash = Math.imul(Math.imul(hash, PRIME_10) ^ 0xff, PRIME)
  hash = Math.imul(hash ^ 0xff, PRIME)
  hash = Math.imul(hash ^ bytes[offset]!, PRIME)
  hash = Math.imul(hash ^ bytes[offset + 1]!, PRIME)
  hash = Math.imul(hash ^ bytes[offset + 2]!, PRIME)
  return Math.imul(hash ^ bytes[offset + 3]!, PRIME)
}

function hashTag(hash: number, tag: number): number {
  hash = Math.imul(hash ^ (tag >>> 24), PRIME)
  hash = Math.imul(hash ^ ((tag >>> 16) & 0xff), PRIME)
  hash = Math.imul(hash ^ ((tag >>> 8) & 0xff), PRIME)
  return Math.imul(hash ^ (tag & 0xff), PRIME)
}
