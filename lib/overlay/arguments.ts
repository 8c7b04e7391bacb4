import { types } from 'node:util'
import { ADDRESS_BYTES, AF_INET, ONE_FAMILY, parseAddress, unusable, whyNot } from '../base/address.js'
import { integer, options } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { natPort } from './nat-options.js'
import type { Settings } from './options.js'
import { LAST_VNI, VniSet } from './vni-set.js'

/**
 * Arguments of calls. They are taken when the call is made, since its turn may come later, and what the caller does with
 * them meanwhile changes nothing; all but VNIs are checked in their turn. A call is refused whole if any of it is wrong.
 */

/** As deep as keys lie in an argument. */
const DEPTH = 3

/** A peer: its address, as it advertises it; with `nat` also the UDP port at which it receives ESP. */
export type PeerInput =
  | string
  | {
      address: string
      /**
       * 1 to 65535, and not VXLAN's. It stays, whatever port the peer's packets come from. Default: that of `nat`, until the
       * peer's packets come from another.
       */
      port?: number
    }

/** Peers packed. */
export interface Packed {
  /** Addresses, 16 bytes each. */
  readonly bytes: Uint8Array
  /** UDP ports given; 0 where none was. */
  readonly ports: Uint16Array
  readonly count: number
}

/** A copy of keys as a caller gives them, whatever else is in it. To be wiped by {@link wipe}. */
export function taken<T>(value: T, depth = DEPTH): T {
  if (types.isUint8Array(value)) {
    // Memory outside the heap, where wiping reaches all of it.
    const copy = new Uint8Array(new ArrayBuffer(value.length))
    copy.set(value)
    return copy as T
  }
  if (typeof value !== 'object' || value === null || depth === 0) return value
  if (Array.isArray(value)) return value.map((each) => taken<unknown>(each, depth - 1)) as T
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, taken<unknown>(each, depth - 1)])) as T
}

/** Overwrites the bytes in what {@link taken} returned. */
export function wipe(value: unknown, depth = DEPTH): void {
  if (types.isUint8Array(value)) value.fill(0)
  else if (typeof value === 'object' && value !== null && depth > 0) {
    for (const each of Object.values(value)) wipe(each, depth - 1)
  }
}

/** What an iterable holds; an array as it is. A string is one too, and never what was meant. @throws InvalidArgument */
function items(value: unknown, argument: string, expected: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  if (typeof value === 'object' && value !== null && Symbol.iterator in value) return [...(value as Iterable<unknown>)]
  throw new InvalidArgument(argument, expected, value)
}

/** The networks that an iterable of VNIs holds, and how many times it holds one. @throws InvalidArgument naming `networks[2]` */
export function takenVnis(networks: unknown): { readonly asked: VniSet; readonly count: number } {
  const list = items(networks, 'networks', 'an array of VNIs, as in [4096]')
  try {
    return { asked: new VniSet(list as readonly number[]), count: list.length }
  } catch (error) {
    for (const [i, vni] of list.entries()) integer(vni, `networks[${i}]`, 0, LAST_VNI)
    throw error
  }
}

/** What an iterable of peers holds, copied. @throws InvalidArgument */
export function takenPeers(peers: unknown): readonly unknown[] {
  const list = items(peers, 'peers', "an array of addresses, as in ['192.0.2.1']")
  return list.map((peer) => (typeof peer === 'object' && peer !== null && !Array.isArray(peer) ? { ...peer } : peer))
}

/** Packs peers. @throws InvalidArgument naming `peers[2]`, if one can't be a peer of this overlay */
export async function packedPeers(
  list: readonly unknown[],
  { form, nat, advertise, advertised }: Settings,
): Promise<Packed> {
  const { family, text: own, bytes: ownBytes } = form.local
  const bytes = new Uint8Array(list.length * ADDRESS_BYTES)
  const ports = new Uint16Array(list.length)
  const pace = new Pace()
  for (let i = 0; i < list.length; i++) {
    let text = list[i]
    if (typeof text === 'object' && text !== null && !Array.isArray(text)) {
      const { address, port } = options<Exclude<PeerInput, string>>(text, `peers[${i}]`, ['address', 'port'])
      if (port !== undefined && nat === undefined) {
        throw new InvalidArgument(`peers[${i}].port`, 'left out: without nat ESP is in no UDP, and has no port', port)
      }
      if (port !== undefined) ports[i] = natPort(port, `peers[${i}].port`, form.port)
      text = address
    }
    const at = i * ADDRESS_BYTES
    const found = typeof text === 'string' ? parseAddress(text, bytes, at) : 0
    if (found === 0) throw new InvalidArgument(`peers[${i}]`, whyNot(text), text)
    if (found !== family) {
      const name = family === AF_INET ? 'IPv4' : 'IPv6'
      throw new InvalidArgument(`peers[${i}]`, `an ${name} address, as local (${own}) is: ${ONE_FAMILY}`, text)
    }
    const why = unusable(bytes, at, family)
    if (why !== undefined) throw new InvalidArgument(`peers[${i}]`, `the address of a host; ${String(text)} is ${why}`)
    if (same(bytes, at, ownBytes) || same(bytes, at, advertised)) {
      const known = own === advertise ? own : `${own}, known as ${advertise}`
      throw new InvalidArgument(`peers[${i}]`, `another node's address; ${String(text)} is this node's own (${known})`)
    }
    if (pace.isDue) await pace.breathe()
  }
  return { bytes, ports, count: list.length }
}

function same(bytes: Uint8Array, at: number, address: Uint8Array): boolean {
  for (let i = 0; i < ADDRESS_BYTES; i++) if (bytes[at + i] !== address[i]) return false
  return true
}
