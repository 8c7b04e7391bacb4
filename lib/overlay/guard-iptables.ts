import type { XtFamily } from '../kernel/iptables.js'
import type { Drops, GuardOptions } from './guard.js'
import { hasVni, isBare, isLaterFragment, isQuoting, isVxlan, type Run } from './vni-program.js'
import { branches, grow, program } from './vni-tree.js'

/**
 * The guard as chains of iptables: what {@link Guard} holds, held with what iptables has.
 *
 * - `raw` OUTPUT takes locally made VXLAN of the encrypted networks out of connection tracking: then no rule of source NAT,
 *   wherever it stands, can touch it, and no mapping made before. iptables has no place after source NAT to look again, and
 *   a packet that gets another address there is routed anew, past our policies.
 * - `mangle` OUTPUT gives it our mark, and drops ICMP errors that quote it.
 * - `mangle` INPUT, FORWARD and POSTROUTING drop what {@link Guard} says, and so does `filter` OUTPUT, which sees what is
 *   routed into segments (SRv6). In the path that a packet came by, any SA may be ours; on the way out the one there is
 *   must be.
 *
 * Each of these begins with a jump to a chain of ours. What goes to the VXLAN port and has a VNI that can be read goes
 * through a tree of chains to a program that knows whether it is encrypted; what can't be read is dropped. Such a packet
 * costs two rules for each level of the tree, one level more each time that the networks double, and four programs at
 * most at its end; other packets cost a few rules.
 */
export interface XtChain {
  readonly table: XtTable
  readonly chain: string
  /** The built-in chain that begins with a jump to this one. */
  readonly hook?: string
  readonly rules: readonly string[]
}

/** In the order in which the guard goes up: what is encrypted is not tracked, and dropped, before it is marked. */
export const TABLES = ['raw', 'filter', 'mangle'] as const
export type XtTable = (typeof TABLES)[number]

/** The chains whose drops count for each kind. */
const DROPPING: Readonly<Record<keyof Drops, readonly string[]>> = {
  in: ['in-hit'],
  out: ['out-hit', 'leave-hit'],
  forwarded: ['fwd-hit'],
  diverted: ['diverted'],
  forged: ['mark-hit'],
  fragments: ['fragment'],
  quoted: ['quoted-hit'],
}

/** What the names of all our chains begin with. With 28 characters at most (XT_EXTENSION_MAXNAMELEN) they are terse. */
export function chainPrefix(mark: number): string {
  return `xfrmesh_${mark.toString(16)}-`
}

/** @param runs of VNIs of the networks, in order, no two of them touching */
export function chainsOf(family: XtFamily, options: GuardOptions, runs: readonly Run[]): XtChain[] {
  const { mark, port, exclusive } = options
  const name = (part: string) => chainPrefix(mark) + part
  const goto = (part: string) => `-g ${name(part)}`
  const toPort = `-p udp -m udp --dport ${port}`
  const trees = { packet: grow({ family }, runs), quoted: grow({ family, quoted: true }, runs) }
  const told = (table: XtTable, use: string, found: string, tree = trees.packet) =>
    branches(tree, (i) => name(`${use}-${i}`), found).map((branch): XtChain => ({ table, ...branch }))
  // ip6tables' legacy kind drops them itself at a `-p`, if they begin with another extension header.
  const later = family === 6 ? [`${program(isLaterFragment())} -j RETURN`] : []

  const chains = usesOf(family, options, goto).flatMap(({ use, table, hook, isStrict, others, hit }): XtChain[] => {
    const readable = exclusive ? [] : [`${toPort} ${program(hasVni(family))} ${goto(`${use}-0`)}`]
    const rest = exclusive || isStrict ? [`${toPort} ${goto(`${use}-hit`)}`] : []
    return [
      { table, chain: name(use), hook, rules: [...later, ...readable, ...rest, ...others] },
      ...(exclusive ? [] : told(table, use, goto(`${use}-hit`))),
      { table, chain: name(`${use}-hit`), rules: hit },
    ]
  })
  const drop = (table: XtTable, part: string, ...but: string[]): XtChain => ({
    table,
    chain: name(part),
    rules: [...but, '-j DROP'],
  })
  chains.push(drop('mangle', 'diverted'), drop('mangle', 'quoted-hit'))
  if (!exclusive) chains.push(...told('mangle', 'quoted', goto('quoted-hit'), trees.quoted))
  if (family === 6) {
    // What has a protocol that can be read, another one, is none of ours; nor is what has another port.
    const others = ['! -p udp -j RETURN', `-p udp -m udp ! --dport ${port} -j RETURN`]
    chains.push(drop('mangle', 'fragment', ...others), drop('filter', 'fragment', ...others))
  }
  // Nothing leads to these: they say which networks there are.
  if (exclusive) chains.push(...told('mangle', 'list', '-j RETURN'))
  return chains
}

/** What is done with packets of the networks in one place. */
interface Use {
  /** In the names of its chains. */
  readonly use: string
  readonly table: XtTable
  readonly hook: string
  /** Whether what can't be read is taken for theirs. */
  readonly isStrict: boolean
  /** Rules for packets to other ports. */
  readonly others: readonly string[]
  /** Rules for theirs. */
  readonly hit: readonly string[]
}

function usesOf(
  family: XtFamily,
  { mark, port, exclusive, linksElsewhere }: GuardOptions,
  goto: (part: string) => string,
): Use[] {
  const hex = `0x${mark.toString(16)}`
  const came = `-m policy --dir in --pol ipsec --reqid ${mark}`
  const leaves = `-m policy --dir out --pol ipsec --strict --reqid ${mark} --proto esp --mode transport`
  const diverted = `${came} ${goto('diverted')}`
  const forged = linksElsewhere ? ['-m owner --socket-exists -j DROP'] : []
  const icmp = family === 4 ? '-p icmp' : '-p ipv6-icmp'
  const quoting = (withVni: boolean, to: string) => `${icmp} ${program(isQuoting(family, port, withVni))} ${goto(to)}`
  const quoted = exclusive ? [] : [quoting(true, 'quoted-0')]
  // One whose headers go on in the next fragment shows no port, and the kernel would put them together after INPUT.
  const fragment = family === 6 ? [`-m frag --fragfirst ${goto('fragment')}`] : []
  const leaving = (use: string) => ({
    use,
    isStrict: true,
    others: [
      `-p udp -m mark --mark ${hex} ${program(isVxlan(family))} ${goto(exclusive ? `${use}-hit` : `${use}-0`)}`,
      ...fragment,
    ],
    hit: [`${leaves} -j RETURN`, '-j DROP'],
  })
  return [
    { use: 'raw', table: 'raw', hook: 'OUTPUT', isStrict: false, others: [], hit: ['-j CT --notrack'] },
    { table: 'filter', hook: 'OUTPUT', ...leaving('leave') },
    {
      use: 'mark',
      table: 'mangle',
      hook: 'OUTPUT',
      isStrict: false,
      others: [...quoted, quoting(false, 'quoted-hit')],
      hit: [...forged, `-j MARK --set-xmark ${hex}/0xffffffff`],
    },
    {
      use: 'in',
      table: 'mangle',
      hook: 'INPUT',
      isStrict: true,
      others: [diverted, ...fragment],
      // Options are not under the SA's protection, and an ICMP error that quotes them would not be known for what it is.
      hit: [`${program(isBare(family))} ${came} -j RETURN`, '-j DROP'],
    },
    { use: 'fwd', table: 'mangle', hook: 'FORWARD', isStrict: true, others: [diverted], hit: ['-j DROP'] },
    { table: 'mangle', hook: 'POSTROUTING', ...leaving('out') },
  ]
}

/** The kind of drop that a rule of a chain counts, if it does. */
export function dropOf(mark: number, chain: string, rule: string): keyof Drops | undefined {
  if (!rule.endsWith('-j DROP')) return undefined
  const kinds = Object.keys(DROPPING) as (keyof Drops)[]
  return kinds.find((kind) => DROPPING[kind].some((part) => chain === chainPrefix(mark) + part))
}
