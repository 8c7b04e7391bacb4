import { IPPROTO_UDP } from '../kernel/xfrm-names.js'
import type { BaseChain, Expression, Rule } from '../kernel/nft.js'
import {
  bitwise,
  cmp,
  counter,
  exthdr,
  goto,
  hostU32,
  immediate,
  jump,
  lookup,
  meta,
  payload,
  setMeta,
  u16,
  u8,
  verdict,
  xfrm,
} from '../kernel/nft-expressions.js'

/**
 * The guard as a value: which chains and rules keep the cleartext of encrypted networks in and out.
 *
 * - Locally made VXLAN packets of these networks get our mark, which is what our policies select.
 * - None is received that did not come through an SA with our reqid, at whatever depth: over a route-based VPN ours is
 *   not the outermost.
 * - None leaves that is not about to go through such an SA. There ours is always the first: no policy but ours selects
 *   our mark, and it has one template. Whatever puts another one ahead of it ends in the drop. What bears our mark and is
 *   VXLAN by its header is held to the same on another port: a DNAT rule may have sent it there. It is looked at after
 *   source NAT, and before: what is routed into segments (SRv6) passes no hook after that.
 * - None is forwarded, be it in the clear or about to be encrypted: with an address of ours, by SNAT or by forgery, a
 *   stranger's packet would leave as this node's. A network that is encrypted here is encrypted in all that leaves here.
 * - What came through our SAs goes to the VXLAN port of this namespace and nowhere else: not where a DNAT rule turns it.
 * - What came through our SAs is quoted to nobody: where no link takes it, or a rule rejects it, the kernel answers with an
 *   ICMP error that holds up to a kilobyte of it, in the clear. To be found there it must have no IP options and no
 *   extension headers, which are not under the SA's protection: anybody on the way may add them.
 *
 * A rule whose field a packet does not have is skipped. So the guards say what passes and drop the rest: the first
 * fragment of an IPv6 datagram can be too short for a VNI, and still has a port. Later fragments have none and pass, and
 * never complete. One whose extension headers go on in the next fragment has no port either, and the kernel would put
 * them together after our hook: RFC 8200 (4.5) forbids to send such, and it is dropped. Other VXLAN networks on the same
 * port, and other traffic, are not touched.
 */
export interface Guard {
  readonly chains: readonly GuardChain[]
}

export interface GuardChain {
  readonly chain: string
  readonly base?: Required<BaseChain>
  readonly rules: readonly (readonly Expression[])[]
}

export interface GuardOptions {
  /** The fwmark set on what is to be encrypted, and the reqid of our SAs. */
  readonly mark: number
  /** VXLAN's UDP port. */
  readonly port: number
  /**
   * All of the port is encrypted: then the guard looks at no VNI. It sees the first of several datagrams that the kernel
   * carries as one (UDP segmentation offload), and the others may be of other networks.
   */
  readonly exclusive: boolean
  /** No VXLAN link of these networks lives in this namespace: what a socket of it sends there is forged. */
  readonly linksElsewhere: boolean
}

/** Packets dropped, by what was wrong with them. */
export interface Drops {
  /** Received in the clear, or by SAs of others. */
  in: number
  /** About to leave in the clear, or by SAs of others. */
  out: number
  /** Of an encrypted network, passing through. */
  forwarded: number
  /** Came through our SAs, and were turned elsewhere than to the VXLAN port here. */
  diverted: number
  /** Of an encrypted network, sent by a socket of this namespace, while its links live elsewhere. */
  forged: number
  /** First fragments of IPv6 without a transport header that could be read. */
  fragments: number
  /** ICMP errors that quote a packet of an encrypted network. */
  quoted: number
}

/** The set of the networks, by VNI. */
export const VNI_SET = 'encrypted-vnis'
export const VNI_BYTES = 3
/** Where the VNI is from the UDP header on, in bytes: after UDP's 8, and VXLAN's flags and reserved bits (RFC 7348). */
export const VNI_OFFSET = 12
const FLAGS_OFFSET = 8
/** Among the flags of a VXLAN header: "there is a VNI". Its extensions set others beside it. */
const VNI_FLAG = 0x08

const DESTINATION_PORT_OFFSET = 2
/** A path holds at most six SAs (XFRM_MAX_DEPTH). */
const DEPTHS = [0, 1, 2, 3, 4, 5]

const NFPROTO_IPV4 = 2
const NFPROTO_IPV6 = 10
const IPPROTO_FRAGMENT = 44
const IPPROTO_ICMP = 1
const IPPROTO_ICMPV6 = 58
/** Types of ICMP that quote a packet: destination unreachable; time exceeded and parameter problem (RFC 792). */
const ICMP_ERRORS = [[cmp('==', u8(3))], [cmp('>=', u8(11)), cmp('<=', u8(12))]]
/** And of ICMPv6 (RFC 4443). */
const ICMPV6_ERRORS = [[cmp('<', u8(128))]]
const ICMP_HEADER = 8
/** Bytes in a header without options, and where the number of the next protocol is. */
const IPV4 = { header: 20, protocol: 9 } as const
const IPV6 = { header: 40, protocol: 6 } as const
const HEADER_WORDS_MASK = 0x0f
const FRAGMENT_OFFSET_OFFSET = 2
const FRAGMENT_OFFSET_MASK = 0xfff8
/** What no user has: INVALID_UID. */
const NOBODY_AT_ALL = 0xffff_ffff

const PRIORITY_RAW = -300
const PRIORITY_MANGLE = -150
/** After source NAT (100), which may send a packet another way, one without IPsec. */
const PRIORITY_LAST = 300

const GUARD_IN = 'guard-in'
const GUARD_OUT = 'guard-out'
const GUARD_FORWARD = 'guard-forward'
const GUARD_DIVERTED = 'guard-diverted'
const GUARD_FORGED = 'guard-forged'
const GUARD_FRAGMENT = 'guard-fragment'
const GUARD_QUOTED = 'guard-quoted'
const GUARD_QUOTED6 = 'guard-quoted6'

/** The chains whose counters count each kind of drop. */
const DROPPING: Readonly<Record<keyof Drops, readonly string[]>> = {
  in: [GUARD_IN],
  out: [GUARD_OUT],
  forwarded: [GUARD_FORWARD],
  diverted: [GUARD_DIVERTED],
  forged: [GUARD_FORGED],
  fragments: [GUARD_FRAGMENT],
  quoted: [GUARD_QUOTED, GUARD_QUOTED6],
}

export function guardOf({ mark, port, exclusive, linksElsewhere }: GuardOptions): Guard {
  const isUdp = [meta('l4proto'), cmp('==', u8(IPPROTO_UDP))]
  const portField = payload('transport', DESTINATION_PORT_OFFSET, 2)
  const toPort = [...isUdp, portField, cmp('==', u16(port))]
  const vniAt = (offset: number) => payload('transport', offset + VNI_OFFSET, VNI_BYTES)
  const vni = vniAt(0)
  const ours = hostU32(mark)
  const isVxlan = [
    ...isUdp,
    payload('transport', FLAGS_OFFSET, 1),
    bitwise(u8(VNI_FLAG), u8(0)),
    cmp('==', u8(VNI_FLAG)),
  ]
  const isFirstFragment = [
    meta('nfproto'),
    cmp('==', u8(NFPROTO_IPV6)),
    exthdr(IPPROTO_FRAGMENT, FRAGMENT_OFFSET_OFFSET, 2),
    bitwise(u16(FRAGMENT_OFFSET_MASK), u16(0)),
    cmp('==', u16(0)),
  ]
  const isDecrypted = [meta('secpath'), cmp('==', u8(1))]
  const through = (direction: 'in' | 'out', depth: number) => [xfrm(direction, 'reqid', depth), cmp('==', ours)]
  const encrypted = exclusive ? [] : [vni, lookup(VNI_SET)]
  const plainAt = (offset: number) => (exclusive ? [] : [[vniAt(offset), lookup(VNI_SET, true), verdict('return')]])
  const plain = plainAt(0)
  const drop = [counter(), verdict('drop')]
  const headerWords = [payload('network', 0, 1), bitwise(u8(HEADER_WORDS_MASK), u8(0))]
  const hasOptions = [
    [meta('nfproto'), cmp('==', u8(NFPROTO_IPV4)), ...headerWords, cmp('!=', u8(IPV4.header / 4))],
    [meta('nfproto'), cmp('==', u8(NFPROTO_IPV6)), payload('network', IPV6.protocol, 1), cmp('!=', u8(IPPROTO_UDP))],
  ]

  const quoting = (protocol: number, errors: Expression[][], ip: typeof IPV4 | typeof IPV6, chain: string) =>
    errors.map((type) => [
      ...[meta('l4proto'), cmp('==', u8(protocol)), payload('transport', 0, 1), ...type],
      ...[payload('transport', ICMP_HEADER + ip.protocol, 1), cmp('==', u8(IPPROTO_UDP))],
      ...[payload('transport', ICMP_HEADER + ip.header + DESTINATION_PORT_OFFSET, 2), cmp('==', u16(port))],
      goto(chain),
    ])
  const leaving = [
    [...toPort, goto(GUARD_OUT)],
    [meta('mark'), cmp('==', ours), ...isVxlan, goto(GUARD_OUT)],
    [...isFirstFragment, goto(GUARD_FRAGMENT)],
    ...quoting(IPPROTO_ICMP, ICMP_ERRORS, IPV4, GUARD_QUOTED),
    ...quoting(IPPROTO_ICMPV6, ICMPV6_ERRORS, IPV6, GUARD_QUOTED6),
  ]

  const isSent = [meta('skuid'), cmp('!=', hostU32(NOBODY_AT_ALL))]
  const forged = linksElsewhere ? [[...toPort, ...isSent, goto(GUARD_FORGED)]] : []
  return {
    chains: [
      {
        chain: 'output',
        base: { type: 'route', hook: 'output', priority: PRIORITY_MANGLE, policy: 'accept' },
        rules: [...forged, [...toPort, ...encrypted, counter(), immediate(ours), setMeta('mark')]],
      },
      ...(linksElsewhere ? [{ chain: GUARD_FORGED, rules: [...plain, drop] }] : []),
      {
        chain: 'input',
        base: { type: 'filter', hook: 'input', priority: PRIORITY_RAW, policy: 'accept' },
        rules: [
          [...toPort, goto(GUARD_IN)],
          [...isDecrypted, jump(GUARD_DIVERTED)],
          [...isFirstFragment, goto(GUARD_FRAGMENT)],
        ],
      },
      {
        chain: GUARD_IN,
        rules: [
          ...plain,
          ...hasOptions.map((rule) => [...rule, ...drop]),
          ...DEPTHS.map((depth) => [...through('in', depth), verdict('return')]),
          drop,
        ],
      },
      {
        chain: 'forward',
        base: { type: 'filter', hook: 'forward', priority: PRIORITY_RAW, policy: 'accept' },
        rules: [
          [...toPort, goto(GUARD_FORWARD)],
          [...isDecrypted, jump(GUARD_DIVERTED)],
        ],
      },
      { chain: GUARD_FORWARD, rules: [...plain, drop] },
      { chain: GUARD_DIVERTED, rules: DEPTHS.map((depth) => [...through('in', depth), ...drop]) },
      {
        chain: 'leaving',
        base: { type: 'filter', hook: 'output', priority: PRIORITY_LAST, policy: 'accept' },
        rules: leaving,
      },
      {
        chain: 'postrouting',
        base: { type: 'filter', hook: 'postrouting', priority: PRIORITY_LAST, policy: 'accept' },
        rules: leaving,
      },
      { chain: GUARD_OUT, rules: [...plain, [...through('out', 0), verdict('return')], drop] },
      {
        chain: GUARD_FRAGMENT,
        rules: [
          // What has a protocol that can be read, another one, is none of ours.
          [meta('l4proto'), cmp('!=', u8(IPPROTO_UDP)), verdict('return')],
          // Whatever the port is, it can be read.
          [portField, cmp('>=', u16(0)), verdict('return')],
          drop,
        ],
      },
      { chain: GUARD_QUOTED, rules: [...plainAt(ICMP_HEADER + IPV4.header), drop] },
      { chain: GUARD_QUOTED6, rules: [...plainAt(ICMP_HEADER + IPV6.header), drop] },
    ],
  }
}

/** Packets that the guard dropped. */
export function drops(rules: readonly Rule[]): Drops {
  const counts = Object.entries(DROPPING).map(([kind, chains]) => [kind, dropped(rules, chains)])
  return Object.fromEntries(counts) as Drops
}

function dropped(rules: readonly Rule[], chains: readonly string[]): number {
  const counters = rules
    .filter(({ chain }) => chains.includes(chain))
    .flatMap(({ expressions }) => expressions.filter((expression) => expression.kind === 'counter'))
  return counters.reduce((sum, { packets }) => sum + Number(packets), 0)
}
