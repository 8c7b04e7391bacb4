import { integer, options, U16 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import type { Mapping } from './mappings.js'

/** ESP in UDP (RFC 3948), for nodes behind NAT. All nodes of an overlay have it, or none. */
export interface NatOptions {
  /**
   * UDP port of this node, 1 to 65535, and not VXLAN's: ESP is sent from it and received at it. It is also that of peers
   * of whom no other is said. Default: 4500.
   */
  port?: number
  /**
   * An open descriptor of a UDP socket that somebody else holds: an IKE daemon, or whoever started this process. Bound to
   * that port, at `local` or at all addresses; neither connected, nor bound to a device, nor with SO_REUSEPORT, nor of
   * another use (UDP_ENCAP). With SO_REUSEADDR, as IKE daemons have it, another socket that is bound to the same place, or to
   * `local` where this one is at all addresses, takes the packets, and nobody is told. A duplicate is used, and closed with
   * the overlay; the caller may close its own. It takes ESP out of UDP from then on, also once the overlay is closed or could
   * not be opened: to undo that is for whoever holds it. Default: a socket of the overlay's own, see `natSocket`.
   */
  socket?: number
  /**
   * Seconds between two keepalives to the same peer, 0 to 3600; 0: none. They keep the mapping of a NAT that this node is
   * behind, and change none at the peer: of a new one it learns by the next packet of ESP. Default: 20 (RFC 3948, 4).
   */
  keepalive?: number
  /**
   * Called when a peer's packets come from another port than before, which is followed unless it was given; or from another
   * address, which is not: remove that peer, and add it by its new address. What it throws is an uncaught exception.
   */
  onMapping?: (mapping: Mapping) => void
}

export const natOptionNames = ['port', 'socket', 'keepalive', 'onMapping'] as const

/** Options, checked, with their defaults. */
export interface NatSettings {
  readonly port: number
  readonly socket: number | undefined
  /** Seconds; 0: none. */
  readonly keepalive: number
  readonly onMapping: ((mapping: Mapping) => void) | undefined
}

/** Checks the option `nat`. @throws InvalidArgument */
export function natSettings(given: unknown, vxlanPort: number): NatSettings | undefined {
  if (given === undefined || given === false) return undefined
  if (typeof given !== 'object') throw new InvalidArgument('nat', 'false or an object, as in { port: 4500 }', given)
  const { port, socket, keepalive, onMapping } = options<NatOptions>(given, 'nat', natOptionNames)
  if (onMapping !== undefined && typeof onMapping !== 'function') {
    throw new InvalidArgument('nat.onMapping', 'a function', onMapping)
  }
  return {
    onMapping,
    keepalive: integer(keepalive ?? 20, 'nat.keepalive', 0, 3600),
    port: natPort(port ?? 4500, 'nat.port', vxlanPort),
    socket: socket === undefined ? undefined : integer(socket, 'nat.socket', 0, 0x7fffffff),
  }
}

/** A UDP port that ESP may have, ours or a peer's. @throws InvalidArgument */
export function natPort(value: unknown, argument: string, vxlanPort: number): number {
  const port = integer(value, argument, 1, U16)
  if (port !== vxlanPort) return port
  throw new InvalidArgument(
    argument,
    `another port than VXLAN's (${vxlanPort}): what goes there is looked at as VXLAN, and encrypted or dropped`,
  )
}
