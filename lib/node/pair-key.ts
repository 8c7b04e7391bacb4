import { createHash } from 'node:crypto'
import { ADDRESS_BYTES, AF_INET } from '../base/address.js'
import { InvalidArgument } from '../base/errors.js'

/** Characters of a boot id, as /proc/sys/kernel/random/boot_id has it, that a key derives from. */
export const BOOT_ID_CHARACTERS = 36

/** Longest key: no more is cut from SHA-512. */
const LONGEST_KEY = 64
/** Longest key that is cut from SHA-256. */
const SHORT_KEY = 32

/** The two ends of an SA. Addresses are 16 bytes each, IPv4 in the first four; boot ids 36 bytes of text. */
export interface KeyEnds {
  readonly family: number
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourceBootId: Uint8Array
  readonly destinationBootId: Uint8Array
}

/**
 * The key of the SA from one node to another, as Cilium derives it: SHA-256 over the shared key, with its salt if it has
 * one, source, destination, and the boot ids of both, cut to the shared key's length; SHA-512 for more than 32 bytes. What
 * is outbound here is inbound there, and a reboot of either changes it.
 *
 * @returns bytes that are the caller's to wipe
 * @throws InvalidArgument for a shared key of more than 64 bytes
 */
export function pairKey(shared: Uint8Array, ends: KeyEnds): Uint8Array {
  if (shared.length > LONGEST_KEY) throw new InvalidArgument('shared', `a key of at most ${LONGEST_KEY} bytes`, shared)
  const addressBytes = ends.family === AF_INET ? 4 : ADDRESS_BYTES
  const hash = createHash(shared.length <= SHORT_KEY ? 'sha256' : 'sha512')
    .update(shared)
    .update(ends.source.subarray(0, addressBytes))
    .update(ends.destination.subarray(0, addressBytes))
    .update(ends.sourceBootId)
    .update(ends.destinationBootId)
    .digest()
  const key = new Uint8Array(new ArrayBuffer(shared.length))
  key.set(hash.subarray(0, shared.length))
  hash.fill(0)
  return key
}
