import { hostAddress, ONE_FAMILY } from '../base/address.js'
import { boolean, integer, namespace, oneOf, options, U16, U32 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { WIDEST_WINDOW } from '../kernel/xfrm-replay.js'
import type { Form } from './form.js'
import { type NatOptions, type NatSettings, natSettings } from './nat-options.js'
import { SpiDeriver } from './spi.js'
import { suite, type SuiteName } from './suites.js'

/** Who guards the encrypted networks. */
export type FirewallKind = 'nftables' | 'iptables' | 'none'

/** What an Overlay is opened with. Only `local` is required. */
export interface OverlayOptions {
  /** Outer address on this node. Its family decides the transport: all peers are of it. */
  local: string
  /** The address that peers know this node by, where that is another (behind NAT): SPIs derive from it. Default: `local`. */
  advertise?: string
  /** Network namespace: a path, as in /run/netns/a, or an open descriptor. Default: the process's own. */
  netns?: string | number
  /** VXLAN's UDP port, 1 to 65535. Default: 4789. */
  port?: number
  /**
   * What is ours: the reqid of all SAs and policies, the fwmark of packets to be encrypted, the lock's and the table's
   * name. 1 to 2^32 - 1. Default: 0x58464D. Not 0xD0C4E3 beside Docker: its driver deletes all that bears it.
   */
  mark?: number
  /** Default: 'aes-gcm-64', Docker's wire format. */
  suite?: SuiteName
  /** Extended sequence numbers (RFC 4303, 2.2.1): both ends must agree. They need a replay window. Default: false. */
  esn?: boolean
  /**
   * Packets, 0 to 4096. Default: 0, no replay protection: with one, the far end drops a sender that started anew until its
   * sequence numbers have caught up.
   */
  replayWindow?: number
  /** One policy for all peers, or one for each with the SPI in its template, as Docker does. Default: 'shared'. */
  policies?: 'shared' | 'per-peer'
  /**
   * All networks on this port are encrypted: the SPD alone enforces it, out and in, forwarded packets too, with nftables
   * flushed as well, but for cleartext that comes behind IPv6 extension headers. For the transport's family; VXLAN of the
   * other one is the firewall's alone. Default: false.
   */
  exclusive?: boolean
  /**
   * Who marks what is to be encrypted, and keeps cleartext out and in. 'iptables': on hosts without nf_tables, or where its
   * rules are the administrator's, whose own come first if they are put before ours. 'none': somebody else does. Default:
   * 'nftables'.
   */
  firewall?: FirewallKind
  /**
   * The VXLAN links of encrypted networks live in other namespaces, into which they were moved: what a socket of this one
   * sends as VXLAN of theirs is forged, and dropped. Leave it where a link lives here, or a bridge of one has a port here:
   * what local processes send through it would be taken for forged. Needs a firewall. Default: false.
   */
  linksElsewhere?: boolean
  /**
   * ESP in UDP, for nodes behind NAT: as in { port: 4500 }. It takes eight bytes of each packet: tell `overlayMtu`. Without
   * it a node may be behind NAT all the same, if that turns its address and nothing else (`advertise`), and its VXLAN links
   * and its peers' make no UDP checksums: no NAT can adjust what ESP hides. Default: false.
   */
  nat?: false | NatOptions
  /**
   * Expedite RCU grace periods on this host (/sys/kernel/rcu_expedited) while two thousand SAs and policies or more are
   * added, and put back what was found, also after a crash, at the next start: for first loads. It interrupts all
   * processors of the host and takes root on it. Processes that share /run count together. Default: false.
   */
  boost?: boolean
  /** Time that one exchange with the kernel (of a few thousand operations) may take, 1 to 2^31 - 1 ms. Default: 10,000. */
  timeoutMs?: number
}

/** Options, checked, with their defaults. */
export interface Settings {
  readonly form: Form
  readonly advertise: string
  /** The same address, 16 bytes. */
  readonly advertised: Uint8Array
  readonly netns: string | number | undefined
  readonly firewall: FirewallKind
  readonly linksElsewhere: boolean
  /** undefined: ESP without UDP. */
  readonly nat: NatSettings | undefined
  readonly boost: boolean
  readonly timeoutMs: number
}

const known = [
  'local',
  'advertise',
  'netns',
  'port',
  'mark',
  'suite',
  'esn',
  'replayWindow',
  'policies',
  'exclusive',
  'firewall',
  'linksElsewhere',
  'nat',
  'boost',
  'timeoutMs',
] as const

/** Checks the options of `Overlay.open`. @throws InvalidArgument */
export function settings(given: unknown): Settings {
  const o = options<OverlayOptions>(given, 'options', known)
  const local = hostAddress(o.local, 'local')
  const advertise = o.advertise === undefined ? local : hostAddress(o.advertise, 'advertise')
  if (advertise.family !== local.family) {
    throw new InvalidArgument('advertise', `an address of local's family (${local.text}): ${ONE_FAMILY}`, o.advertise)
  }
  const esn = boolean(o.esn ?? false, 'esn')
  const replayWindow = integer(o.replayWindow ?? 0, 'replayWindow', 0, WIDEST_WINDOW)
  if (esn && replayWindow === 0) {
    throw new InvalidArgument(
      'replayWindow',
      `an integer from 1 to ${WIDEST_WINDOW} with esn: the kernel needs one for it`,
    )
  }
  const firewall = oneOf(o.firewall ?? 'nftables', 'firewall', ['nftables', 'iptables', 'none'])
  const linksElsewhere = boolean(o.linksElsewhere ?? false, 'linksElsewhere')
  if (linksElsewhere && firewall === 'none') {
    throw new InvalidArgument('linksElsewhere', "false with firewall: 'none': it is the firewall that knows them", true)
  }
  const port = integer(o.port ?? 4789, 'port', 1, U16)
  const nat = natSettings(o.nat, port)
  return {
    form: {
      local,
      spis: new SpiDeriver(advertise),
      port,
      mark: integer(o.mark ?? 0x58464d, 'mark', 1, U32),
      suite: suite(o.suite ?? 'aes-gcm-64'),
      esn,
      replayWindow,
      natPort: nat?.port ?? 0,
      policies: oneOf(o.policies ?? 'shared', 'policies', ['shared', 'per-peer']),
      exclusive: boolean(o.exclusive ?? false, 'exclusive'),
    },
    advertise: advertise.text,
    advertised: advertise.bytes,
    netns: namespace(o.netns, 'netns'),
    firewall,
    linksElsewhere,
    nat,
    boost: boolean(o.boost ?? false, 'boost'),
    timeoutMs: integer(o.timeoutMs ?? 10_000, 'timeoutMs', 1, 0x7fffffff),
  }
}
