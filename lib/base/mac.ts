import { InvalidArgument } from './errors.js'

/** Ethernet addresses: six bytes, written as in 02:42:0a:00:00:02. */

const MAC_BYTES = 6
/** Of the first byte: an address of a group of hosts, broadcast too (IEEE 802). */
const GROUP_BIT = 1

/** The address of one host: no group's, not zero. @throws InvalidArgument */
export function hostMac(value: unknown, argument: string): Uint8Array {
  if (typeof value !== 'string' || !/^[\da-f]{2}(:[\da-f]{2}){5}$/i.test(value)) {
    throw new InvalidArgument(argument, "an Ethernet address, as in '02:42:0a:00:00:02'", value)
  }
  const bytes = Uint8Array.from(value.split(':'), (byte) => parseInt(byte, 16))
  if ((bytes[0]! & GROUP_BIT) !== 0 || bytes.every((byte) => byte === 0)) {
    throw new InvalidArgument(argument, 'the Ethernet address of one host: neither of a group nor zero', value)
  }
  return bytes
}

/** In lower case; undefined for what is no Ethernet address. */
export function formatMac(bytes: Uint8Array): string | undefined {
  if (bytes.length !== MAC_BYTES) return undefined
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':')
}
