import {
  add,
  addX,
  bytecode,
  constantToX,
  fromX,
  ipv4HeaderToX,
  jumpIf,
  label,
  type Line,
  loadByte,
  loadByteAt,
  loadHalfAt,
  loadWordAt,
  memoryToX,
  MOST_INSTRUCTIONS,
  ret,
  shiftLeft,
  shiftRight,
  sizeOf,
  store,
} from '../kernel/bpf.js'
import type { XtFamily } from '../kernel/iptables.js'
import { IPPROTO_UDP } from '../kernel/xfrm-names.js'
import { LAST_VNI } from './vni-set.js'

/**
 * Programs for xt_bpf that tell a VXLAN packet by its VNI, for rules that have seen by `-p udp --dport` that it is UDP, and
 * ICMP errors that quote one. None matches where the VNI can't be read.
 *
 * In IPv6 that is also where the extension headers before UDP are others than those of RFC 8200, 4.1, or stand in another
 * order than it recommends: hop-by-hop options, destination options, routing, fragment, destination options.
 */

/** Where the VXLAN packet is: it is the packet, or an ICMP error quotes it. */
export interface Place {
  readonly family: XtFamily
  readonly quoted?: boolean
}

/** VNIs from the first to the last. */
export type Run = readonly [first: number, last: number]

/** From UDP's header on (RFC 768, RFC 7348): its 8 bytes, then VXLAN's flags, then the VNI in three bytes of four. */
const PORT_OFFSET = 2
const FLAGS_OFFSET = 8
const VNI_OFFSET = 12
const VNI_SHIFT = 8
/** Among the flags: "there is a VNI". */
const VNI_FLAG = 0x08

const IPV6_HEADER = 40
const IPV6_NEXT_HEADER_OFFSET = 6
const IPPROTO_HOPOPTS = 0
const IPPROTO_ROUTING = 43
const IPPROTO_FRAGMENT = 44
const IPPROTO_DSTOPTS = 60
const FRAGMENT_OFFSET_OFFSET = 2
const FRAGMENT_OFFSET_MASK = 0xfff8
/** First byte of an IPv4 header without options. */
const BARE_IPV4 = 0x45

/** In an ICMP error of a family: which types quote a packet, and where in it things are, if it has no options. */
const QUOTES = {
  // Destination unreachable; time exceeded and parameter problem (RFC 792).
  4: { types: [3, 11, 12], protocol: 8 + 9, udp: 8 + 20 },
  // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
  6: { types: [1, 2, 3, 4], protocol: 8 + IPV6_NEXT_HEADER_OFFSET, udp: 8 + IPV6_HEADER },
} as const

/** Most characters of an argument that iptables-restore takes, and of an instruction that tells VNIs. */
const MOST_CHARACTERS = 1023
const INSTRUCTION_CHARACTERS = ',21 63 63 16777215'.length

const yes = 'yes'
const no = 'no'

/** The VNI can be read. */
export function hasVni(family: XtFamily): string {
  return asking([...findUdp(family), loadWordAt(VNI_OFFSET)])
}

/** The VNI is less than that. */
export function isBelow(place: Place, vni: number): string {
  return asking([...vniOf(place), jumpIf('>=', vni, { then: no })])
}

/** The VNI is one of these, given in order, at most {@link capacity} of them. */
export function isAmong(place: Place, runs: readonly Run[]): string {
  const lines = runs.flatMap(([first, last], i): Line[] => {
    if (first === last) return [jumpIf('==', first, { then: yes })]
    const next = `after ${i}`
    // What is below this is below all that follow.
    return [jumpIf('>=', first, { otherwise: no }), jumpIf('>', last, { then: next, otherwise: yes }), label(next)]
  })
  return bytecode([...vniOf(place), ...lines, label(no), ret(0), label(yes), ret(1)])
}

/** It says by its VXLAN header that it has a VNI, whatever the port, and that can be read. */
export function isVxlan(family: XtFamily): string {
  const flags = [loadByteAt(FLAGS_OFFSET), jumpIf('&', VNI_FLAG, { otherwise: no })]
  return asking([...findUdp(family), ...flags, loadWordAt(VNI_OFFSET)])
}

/** Its IP header has no options, and in IPv6 UDP follows it. */
export function isBare(family: XtFamily): string {
  const [at, value] = family === 4 ? [0, BARE_IPV4] : [IPV6_NEXT_HEADER_OFFSET, IPPROTO_UDP]
  return asking([loadByte(at), jumpIf('==', value, { otherwise: no })])
}

/** It is an IPv6 fragment, and not the first of its datagram. */
export function isLaterFragment(): string {
  return asking([
    ...findFragment(),
    jumpIf('==', IPPROTO_FRAGMENT, { otherwise: no }),
    loadHalfAt(FRAGMENT_OFFSET_OFFSET),
    jumpIf('&', FRAGMENT_OFFSET_MASK, { otherwise: no }),
  ])
}

/**
 * It is, of an ICMP packet of the family, an error that quotes UDP to the port.
 * @param withVni and a VNI can be read in it
 */
export function isQuoting(family: XtFamily, port: number, withVni: boolean): string {
  const { types, protocol, udp } = QUOTES[family]
  return asking([
    ...findIcmp(family),
    loadByteAt(0),
    ...types.map((type, i) =>
      jumpIf('==', type, { then: 'error', otherwise: i === types.length - 1 ? no : undefined }),
    ),
    label('error'),
    loadByteAt(protocol),
    jumpIf('==', IPPROTO_UDP, { otherwise: no }),
    loadHalfAt(udp + PORT_OFFSET),
    jumpIf('==', port, { otherwise: no }),
    ...(withVni ? [loadWordAt(udp + VNI_OFFSET)] : []),
  ])
}

/** How much {@link isAmong} has room for: a VNI takes 1, a run of several 2. */
export function capacity(place: Place): number {
  const empty = isAmong(place, [])
  const characters = Math.floor((MOST_CHARACTERS - empty.length) / INSTRUCTION_CHARACTERS)
  return Math.min(characters, MOST_INSTRUCTIONS - Number.parseInt(empty))
}

/** What a run takes of the {@link capacity}. */
export function sizeOfRun([first, last]: Run): number {
  return first === last ? 1 : 2
}

/** The runs of VNIs that {@link isAmong} made this of; undefined if it did not. */
export function runsOf(place: Place, program: string): Run[] | undefined {
  const runs: Run[] = []
  const instructions = program.split(',').slice(1 + sizeOf(vniOf(place)))
  for (let i = 0; i < instructions.length; i++) {
    const [code, k] = numbers(instructions[i]!)
    if (code === jumpIf('==', 0, {}).code) runs.push([k, k])
    else if (code === jumpIf('>=', 0, {}).code) runs.push([k, numbers(instructions[++i] ?? '')[1]])
  }
  const areVnis = runs.every(([first, last]) => first <= last && last <= LAST_VNI)
  return areVnis && isAmong(place, runs) === program ? runs : undefined
}

function numbers(instruction: string): [code: number, k: number] {
  const words = instruction.split(' ')
  return [Number(words[0]), Number(words[3])]
}

/** A program that matches unless these lines lead to `no`, or beyond the packet. */
function asking(lines: readonly Line[]): string {
  return bytecode([...lines, ret(1), label(no), ret(0)])
}

/** Ends with the VNI in A. */
function vniOf({ family, quoted = false }: Place): Line[] {
  const at = quoted ? QUOTES[family].udp + VNI_OFFSET : VNI_OFFSET
  return [...(quoted ? findIcmp(family) : findUdp(family)), loadWordAt(at), shiftRight(VNI_SHIFT)]
}

/** Ends with X at ICMP's header. The kernel makes its errors without extension headers. */
function findIcmp(family: XtFamily): Line[] {
  return [family === 4 ? ipv4HeaderToX(0) : constantToX(IPV6_HEADER)]
}

/** Ends with X at UDP's header, or goes to `no`. */
function findUdp(family: XtFamily): Line[] {
  if (family === 4) return [ipv4HeaderToX(0)]
  return [
    ...findFragment(),
    ...past(IPPROTO_FRAGMENT, 'fragment', [fromX, add(8)]),
    ...past(IPPROTO_DSTOPTS, 'last destination', lengthInIt),
    jumpIf('==', IPPROTO_UDP, { otherwise: no }),
  ]
}

/** Ends with X at the IPv6 header where a fragment's would stand, and its number in A. */
function findFragment(): Line[] {
  return [
    loadByte(IPV6_NEXT_HEADER_OFFSET),
    constantToX(IPV6_HEADER),
    ...past(IPPROTO_HOPOPTS, 'hop-by-hop', lengthInIt),
    ...past(IPPROTO_DSTOPTS, 'destination', lengthInIt),
    ...past(IPPROTO_ROUTING, 'routing', lengthInIt),
  ]
}

/** A = where the next header is, by this one's second byte: its length in 8 bytes, without the first 8. */
const lengthInIt = [loadByteAt(1), add(1), shiftLeft(3), addX]

/** Passes over a header, if it is that one. */
function past(header: number, name: string, next: readonly Line[]): Line[] {
  const after = `after ${name}`
  return [
    jumpIf('==', header, { otherwise: after }),
    ...next,
    store(0),
    // The number of the next one is the first byte of each.
    loadByteAt(0),
    memoryToX(0),
    label(after),
  ]
}
