import { DEFAULT, deviceSwitches, type DeviceSwitch, switchOf } from '../kernel/device-switches.js'

/**
 * What a node of an overlay needs of its host's sysctls, and why. Each was seen to matter: test/kernel/host.test.ts.
 *
 * XFRM itself has no limit to raise: SAs and policies take memory and nothing else. net.ipv4.xfrm4_gc_thresh and its like of
 * IPv6 are without effect since Linux 4.14 (Documentation/networking/ip-sysctl.rst). Others there are not, but IP-TFS's and
 * what key daemons need (net/xfrm/xfrm_sysctl.c): net.core.xfrm_acq_expires and xfrm_larval_drop, of packets whose SA such a
 * daemon is asked for, and xfrm_aevent_etime and xfrm_aevent_rseqth, of how often it is told of sequence numbers.
 */

/** What the node has to do with. */
export interface Load {
  readonly peers: number
  readonly networks: number
  readonly endpoints: number
  readonly forwarding: boolean
}

/** What sockets of ours are granted here: netlink messages, and bytes, in one send. */
export interface Granted {
  readonly messages: number
  readonly bytes: number
}

/** A sysctl that matters. */
export interface Need {
  readonly name: string
  /** The host's: one value for all its network namespaces. Else each namespace has its own. */
  readonly scope: 'host' | 'namespace'
  /** This or more; with `most`, this or less. null: whatever it is. */
  readonly wants: number | null
  readonly most?: true
  readonly why: string
}

export function needs(load: Load, granted: Granted): Need[] {
  return [
    ...neighbours(4, load),
    ...neighbours(6, load),
    receiveBuffer(granted),
    sendBuffer(load, granted),
    ...forwarding(load),
    ...switches('all'),
    {
      name: 'net.ipv4.conf.all.rp_filter',
      scope: 'namespace',
      wants: null,
      why: 'with 1, what comes in by another device than answers leave by is dropped, ESP too: on a host with several paths take 2',
    },
  ]
}

/** What Docker's overlay driver sets, for IPv4 (moby, libnetwork/drivers/overlay/ostweaks_linux.go). */
const DOCKER_THRESHOLDS = [8192, 49_152, 65_536] as const

/**
 * Neighbours that the kernel learns by itself: peers on a link of this host's, and for each container those it talks to.
 * The table is one for all namespaces. Permanent entries do not count (Linux 5.0 and later).
 */
function neighbours(version: 4 | 6, { peers, endpoints }: Load): Need[] {
  const source = version === 4 ? "Docker's overlay sets as much" : "Docker's overlay sets it for IPv4 alone"
  const whys = [
    'up to it no neighbour is forgotten: peers on a link of this host, and those that its containers talk to',
    'over it the oldest are forgotten, in use or not',
    'over it packets to further neighbours are dropped, and who sends them is not told',
  ]
  return DOCKER_THRESHOLDS.map((docker, i) => ({
    name: `net.ipv${version}.neigh.default.gc_thresh${i + 1}`,
    scope: 'host',
    wants: Math.max(docker, Math.ceil(((peers + endpoints) * docker) / DOCKER_THRESHOLDS[1])),
    why: `${whys[i]!}; ${source}`,
  }))
}

/** Operations in one send that serve best, and what the kernel charges a receive buffer for the answer to one. */
const BEST_SEND = 256
const ANSWER_BYTES = 1024

const beyond = "with CAP_NET_ADMIN in the host's user namespace a process gets its buffers whatever the limit"

/** A buffer is granted at twice the size asked for, and that can be asked for up to the limit (socket(7)). */
function receiveBuffer({ messages }: Granted): Need {
  const why =
    messages < BEST_SEND
      ? `the answers to a send must fit, so this process sends ${messages} operations at a time; ${BEST_SEND} serve best`
      : `the answers to ${BEST_SEND} operations fit what this process is granted, however many peers there are`
  const wants = messages < BEST_SEND ? (BEST_SEND * ANSWER_BYTES) / 2 : null
  return { name: 'net.core.rmem_max', scope: 'host', wants, why: `${why}; ${beyond}` }
}

/** Of an nftables transaction: what a network takes, and all else in the guard's table at most. */
export const NETWORK_BYTES = 16
export const TABLE_BYTES = 32_768
/** What the kernel keeps back of a send buffer (netlink_sendmsg). */
const SEND_OVERHEAD = 32

function sendBuffer({ networks }: Load, { bytes }: Granted): Need {
  const needed = TABLE_BYTES + networks * NETWORK_BYTES
  const wants = needed > bytes ? Math.ceil((needed + SEND_OVERHEAD) / 2) : null
  const why = `the firewall of ${networks} networks takes a send of ${needed} bytes, and this process is granted ${bytes}`
  return { name: 'net.core.wmem_max', scope: 'host', wants, why: `${why}; ${beyond}` }
}

/** A host sends and receives VXLAN's packets itself: it forwards only what goes on from containers. */
function forwarding(load: Load): Need[] {
  const why = 'where containers reach other networks through this host; the overlay itself takes none'
  const unheard = 'with it router advertisements are heeded only on devices whose accept_ra is 2'
  return [
    { name: 'net.ipv4.ip_forward', scope: 'namespace', wants: load.forwarding ? 1 : null, why },
    {
      name: 'net.ipv6.conf.all.forwarding',
      scope: 'namespace',
      wants: load.forwarding ? 1 : null,
      why: `${why}; ${unheard}`,
    },
  ]
}

const PASSED_BY: Readonly<Record<DeviceSwitch['what'], string>> = {
  disable_xfrm:
    'else nothing sent there is encrypted: what should be is dropped, or with the firewall gone leaves in the clear',
  disable_policy: 'else no policy is asked about what comes in there: `exclusive` keeps nothing out',
}

/** Those of a device, of `all` devices, or of {@link DEFAULT}. */
export function switches(device: string): Need[] {
  const whose = device === DEFAULT ? 'of devices that are made from now on: ' : ''
  return deviceSwitches.map((each) => ({
    name: switchOf(each, device),
    scope: 'namespace',
    wants: 0,
    most: true,
    why: whose + PASSED_BY[each.what],
  }))
}
