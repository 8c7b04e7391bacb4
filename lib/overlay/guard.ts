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
 *   VXLAN by its header is held to the same on another port: a DNAT rule may have sent it there.
 * - None is forwarded, be it in the clear or about to be encrypted: with an address of ours, by SNAT or by forgery, a
 *   stranger's packet would leave as this node's. A network that is encrypted here is encrypted in all that leaves here.
 * - What came through our SAs goes to the VXLAN port of this namespace and nowhere else: not where a DNAT rule turns it.
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
}

/** The set of the networks, by VNI. */
export const VNI_SET = 'encrypted-vnis'
export const VNI_BYTES = 3
/** Where the VNI is from the UDP header on, in bytes: after UDP's 8, and VXLAN's flags and reserved bits (RFC 7348). */
export const VNI_OFFSET = 12
const FLAGS_OFFSET = 8
/** Flags and reserved bits of a VXLAN header: "there is a VNI", and nothing else. */
const VNI_FLAG = Uint8Array.of(0x08, 0, 0, 0)

const DESTINATION_PORT_OFFSET = 2
/** A path holds at most six SAs (XFRM_MAX_DEPTH). */
const DEPTHS = [0, 1, 2, 3, 4, 5]

const NFPROTO_IPV6 = 10
const IPPROTO_FRAGMENT = 44
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

/** The chain whose counters count each kind of drop. */
const DROPPING: Readonly<Record<keyof Drops, string>> = {
  in: GUARD_IN,
  out: GUARD_OUT,
  forwarded: GUARD_FORWARD,
  diverted: GUARD_DIVERTED,
  forged: GUARD_FORGED,
  fragments: GUARD_FRAGMENT,
}

export function guardOf({ mark, port, exclusive, linksElsewhere }: GuardOptions): Guard {
  const isUdp = [meta('l4proto'), cmp('==', u8(IPPROTO_UDP))]
  const portField = payload('transport', DESTINATION_PORT_OFFSET, 2)
  const toPort = [...isUdp, portField, cmp('==', u16(port))]
  const vni = payload('transport', VNI_OFFSET, VNI_BYTES)
  const ours = hostU32(mark)
  const isVxlan = [...isUdp, payload('transport', FLAGS_OFFSET, VNI_FLAG.length), cmp('==', VNI_FLAG)]
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
  const plain = exclusive ? [] : [[vni, lookup(VNI_SET, true), verdict('return')]]
  const drop = [counter(), verdict('drop')]

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
        rules: [...plain, ...DEPTHS.map((depth) => [...through('in', depth), verdict('return')]), drop],
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
        chain: 'postrouting',
        base: { type: 'filter', hook: 'postrouting', priority: PRIORITY_LAST, policy: 'accept' },
        rules: [
          [...toPort, goto(GUARD_OUT)],
          [meta('mark'), cmp('==', ours), ...isVxlan, goto(GUARD_OUT)],
          [...isFirstFragment, goto(GUARD_FRAGMENT)],
        ],
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
    ],
  }
}

/** Packets that the guard dropped. */
export function drops(rules: readonly Rule[]): Drops {
  const counts = Object.entries(DROPPING).map(([kind, chain]) => [kind, dropped(rules, chain)])
  return Object.fromEntries(counts) as Drops
}

function dropped(rules: readonly Rule[], chain: string): number {
  const counters = rules
    .filter((rule) => rule.chain === chain)
    .flatMap(({ expressions }) => expressions.filter((expression) => expression.kind === 'counter'))
  return counters.reduce((sum, { packets }) => sum + Number(packets), 0)
}
