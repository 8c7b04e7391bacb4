import type { UdpEncap } from '../kernel/udp-encap.js'
import type { XfrmChannel } from '../kernel/xfrm-channel.js'
import type { EventChannel } from '../kernel/xfrm-monitor.js'
import type { OpenLink } from '../vxlan/endpoint-link.js'
import type { Firewall } from './firewall.js'

/** What an Overlay needs of the kernel. */

/** The SAD and SPD, in batches of records. */
export type XfrmPort = Pick<XfrmChannel, 'commit' | 'read' | 'close'> & Partial<Pick<XfrmChannel, 'boosted'>>

/** The guard of the encrypted networks. */
export type FirewallPort = Pick<Firewall, 'apply' | 'read' | 'restore'>

/** The UDP socket of ESP in UDP, and what the kernel tells of where that comes from. */
export interface NatPort extends Pick<UdpEncap, 'descriptor' | 'isIntact' | 'keepAlive'> {
  readonly mappings: Pick<EventChannel, 'hear'>
}

export interface Ports {
  readonly xfrm: XfrmPort
  /** Left out where ESP goes without UDP. */
  readonly nat?: NatPort
  /** Left out where somebody else guards. */
  readonly firewall?: FirewallPort
  /** Whether the UDP socket of a link is in this namespace: its packets leave here, and are encrypted. */
  hasSocketOf(link: OpenLink): Promise<boolean>
  /** Closes what the ports stand on. */
  close(): Promise<void>
}
